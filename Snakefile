"""deltaball: train the networks of a study, measure how robust they are, and report what it costs.

snakemake --cores all                                   the study in config.yaml
snakemake --cores all --configfile studies/paper.yaml   another study, instead of it
snakemake --cores all networks | measures | figures | report
snakemake --cores all --profile slurm                   the paper's study on a Slurm cluster
"""

import os
import shlex
import sys
from pathlib import Path

# Every cluster job executes this file again, so it imports only what is light: no array library.
sys.path.insert(0, str(Path(workflow.basedir) / "src"))
from deltaball.base.errors import InputError
from deltaball.plan import loading
from deltaball.workflow import claims, jobs, launch, parts, products, resources, stages

try:
    STUDY = loading.chosen_study(workflow.configfiles, workflow.config_settings.config)
    PLAN = loading.planned(STUDY)
    CLAIM = None
    if workflow.is_main_process and not launch.only_looks(workflow):
        # Held until Snakemake ends: `deltaball study` must not take its lock for a dead run's.
        CLAIM = claims.claim()
        launch.check_writable(PLAN.study.folder)
        launch.tell(products.remove_damaged(PLAN))
        launch.tell(parts.remove_damaged(PLAN))
        products.keep_known(PLAN)
except InputError as problem:
    sys.exit(f"deltaball: {problem}")

# Read once, for Snakemake records the parameters of a job when it has ended.
PARTIAL = jobs.partial_runs(PLAN)

RESULTS = str(PLAN.study.folder)
CODE = Path(workflow.basedir) / "src/deltaball"

# `deltaball` of the environment that runs Snakemake, unless each job brings its own (--sdm conda).
if not workflow.deployment_settings.deployment_method:
    binaries = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
    shell.prefix(f'export PATH={binaries}:"$PATH"; ')


report: "rules/captions/workflow.rst"


wildcard_constraints:
    dataset="[^/]+",
    shard="[^/]+",
    coder="[^/]+",


onsuccess:
    launch.tell(jobs.summary(PLAN, succeeded=True))


onerror:
    launch.tell(launch.unwritable(PLAN.study.folder))
    launch.tell(jobs.summary(PLAN))
    # `deltaball study` does it itself, because it knows whether the user stopped the run.
    if workflow.execution_settings.keep_going and claims.LOCK_HELD not in os.environ:
        launch.collect(PLAN, STUDY)


rule all:
    default_target: True
    input:
        f"{RESULTS}/networks.parquet",
        expand(f"{RESULTS}/{{table}}.parquet", table=stages.MEASURED),
        # Of a study that failed in part, the tables are there and some parts are not.
        expand(f"{RESULTS}/shards/{{shard}}.{{part}}.parquet", shard=PLAN.shards, part=jobs.PARTS.values()),
        expand(f"{RESULTS}/tables/{{table}}.csv", table=[*stages.tables(PLAN)]),
        expand(f"{RESULTS}/figures/{{figure}}.{{kind}}", figure=stages.figures(PLAN), kind=["png", "svg", "csv"]),
        f"{RESULTS}/report.html",
        f"{RESULTS}/README.md",
        f"{RESULTS}/PROVENANCE.md",
        f"{RESULTS}/complete.txt",


include: "rules/data.smk"
include: "rules/autoencoders.smk"
include: "rules/train.smk"
include: "rules/measure.smk"
include: "rules/analyse.smk"
include: "rules/figures.smk"
include: "rules/examples.smk"
include: "rules/report.smk"
