"""What the Snakefile asks of a plan: which study, which files come out, what makes them stale. Light, like the plan."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltaball import study_file
from deltaball.errors import InputError
from deltaball.plan import TRAINED, Plan, Shard, plan

TABLES = ("completeness", "correlations", "regressions", "monotonicity", "pruning", "pruning_tests", "jobs")


def chosen_study(configfiles: Sequence[str], overrides: Mapping[str, Any]) -> Path:
    """The study file: the one given by `--configfile` or by a profile replaces config.yaml whole.

    Snakemake would merge several files key by key, which mixes the grids of two studies. Raises InputError for
    several files, and for `--config`, which changes keys that the jobs' own reading of the file would not see.
    """
    if overrides:
        raise InputError(
            f"--config {' '.join(overrides)}: a study is changed in its file; write another and give it by --configfile"
        )
    if len(configfiles) > 1:
        raise InputError(f"--configfile {' '.join(map(str, configfiles))}: one study at a time; give one file")
    return Path(os.path.relpath(configfiles[0])) if configfiles else Path("config.yaml")


def planned(path: Path) -> Plan:
    """The plan of a study file. Raises InputError that names the file."""
    study = study_file.load(path)
    try:
        return plan(study)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def figures(plan: Plan) -> list[str]:
    """The names of the study's figures: per data set × notion a trade-off, and the effect of pruning if any is."""
    kinds = {dataset: ["tradeoff"] for dataset in plan.facts}
    for grid in plan.study.grids:
        if grid.method == "imp" and "pruning" not in kinds[grid.dataset]:
            kinds[grid.dataset].append("pruning")
    return [
        f"{kind}_{dataset}_{notion}"
        for dataset in plan.facts
        for kind in kinds[dataset]
        for notion in dict.fromkeys(one.notion for one in plan.measures if one.applies_to(dataset))
    ]


def unbuilt(plan: Plan) -> str:
    """A line on the grids whose networks stay `planned` because their method's training is not built; else empty."""
    grids = [grid for grid in plan.study.grids if grid.method not in TRAINED]
    if not grids:
        return ""
    names, methods = ", ".join(grid.name for grid in grids), " and ".join(sorted({grid.method for grid in grids}))
    return f"planned only: {names}; the training of method {methods} is not built yet"


def networks_digest(plan: Plan) -> str:
    """Changes when the rows of networks.parquet would be others."""
    return _digest(f"{network.id} {network.grid}" for network in plan.networks)


def shard_digest(plan: Plan, shard: Shard) -> str:
    """Changes when the networks that stand on a shard's checkpoints are others, though the checkpoints are the same."""
    return _digest(one.id for one in plan.networks_of(shard.trajectories))


def measures_digest(plan: Plan, shard: Shard) -> str:
    """Changes when a shard's networks, their measures, or the points they are taken on, are others."""
    guarantee = plan.study.guarantee
    names = [one.name for one in plan.measures if one.applies_to(shard.dataset)]
    return _digest(
        [shard_digest(plan, shard), *names, f"{plan.samples} {guarantee.epsilon} {plan.confidence} {guarantee.seed}"]
    )


def file_digest(path: Path) -> str:
    """Changes with a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _digest(lines: Any) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
