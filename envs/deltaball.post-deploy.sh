#!/usr/bin/env bash
# Snakemake runs this inside the new environment, from the folder in which it was started (the repository's root).
set -euo pipefail
pip install --no-deps --editable .
