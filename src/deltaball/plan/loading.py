"""From a study file to its plan."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltaball.base.errors import InputError
from deltaball.plan.plan import Plan, plan
from deltaball.study import reading


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
    study = reading.load(path)
    try:
        return plan(study)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
