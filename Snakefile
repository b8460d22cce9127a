"""deltaball: train the networks of a study, measure how robust they are, and report what it costs.

snakemake --cores all                                   the study in config.yaml
snakemake --cores all --configfile studies/paper.yaml   another study, instead of it
snakemake --cores all networks | measures | figures | report
"""

import os
import sys
from pathlib import Path

# Every cluster job executes this file again, so it imports only what is light: no array library.
sys.path.insert(0, str(Path(workflow.basedir) / "src"))
from deltaball import stages
from deltaball.errors import InputError

try:
    STUDY = stages.chosen_study(workflow.configfiles, workflow.config_settings.config)
    PLAN = stages.planned(STUDY)
except InputError as problem:
    sys.exit(f"deltaball: {problem}")

RESULTS = str(PLAN.study.folder)
CODE = Path(workflow.basedir) / "src/deltaball"

# `deltaball` of the environment that runs Snakemake, unless each job brings its own (--sdm conda).
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH='{Path(sys.executable).parent}':\"$PATH\"; ")


wildcard_constraints:
    dataset="[^/]+",
    shard="[^/]+",


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/measure.smk"
include: "rules/analyse.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
