"""How long Snakemake takes to plan the paper's study: parsing the Snakefile, and a whole dry run.

    .venv/bin/python benchmarks/planning.py [STUDY] [RUNS]

Every cluster job parses the Snakefile again, so parsing must cost next to nothing, and must import no array library.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "jax", "keras", "numpy", "pandas")

# What the Snakefile does while it is parsed, in an interpreter that has imported nothing of deltaball yet.
PARSE = f"""
import json, sys, time
started = time.perf_counter()
from deltaball.plan import loading
from deltaball.workflow import stages
plan = loading.planned(loading.chosen_study([sys.argv[1]], {{}}))
shards, figures = len(plan.shards), stages.figures(plan)
for shard in plan.shards.values():
    stages.shard_digest(plan, shard), stages.measures_digest(plan, shard), plan.needed_by(shard)
stages.networks_digest(plan)
seconds = time.perf_counter() - started
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([seconds, len(plan.networks), shards, heavy]))
"""


def main() -> None:
    study = sys.argv[1] if len(sys.argv) > 1 else "studies/paper.yaml"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    parses, dry_runs = [], []
    for _ in range(runs):
        found = subprocess.run([sys.executable, "-c", PARSE, study], cwd=ROOT, check=True, capture_output=True)
        seconds, networks, shards, heavy = json.loads(found.stdout)
        parses.append(seconds)
        started = time.perf_counter()
        command = [sys.executable, "-m", "snakemake", "-n", "--cores", "all", "--quiet", "all", "--configfile", study]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        dry_runs.append(time.perf_counter() - started)
    print(f"{study}: {networks:,} networks in {shards} shards (Python {platform.python_version()})")
    print(f"array libraries imported by parsing: {', '.join(heavy) or 'none'}")
    for name, seconds in (("parse the Snakefile's Python", parses), ("snakemake -n", dry_runs)):
        print(f"{name:30} median {statistics.median(seconds):.2f} s   max {max(seconds):.2f} s   ({runs} runs)")


if __name__ == "__main__":
    main()
