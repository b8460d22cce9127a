"""From a study file to its plan."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.plan.plan import Plan, plan
from deltaball.study import reading


def chosen_study(configfiles: Sequence[str], overrides: Mapping[str, Any]) -> Path:
    """The study file: the one given by `--configfile` or by a profile replaces config.yaml whole.

    Snakemake would merge several files key by key, which mixes the grids of two studies. Raises InputError for
    several files, and for `--config`, which changes keys that the jobs' own reading of the file would not see.
    """
    if overrides:
        raise InputError(
            f"--config {' '.join(overrides)}: a study is changed in its file; write another and give it by "
            "--configfile, or change single keys by `deltaball study --set KEY=VALUE`"
        )
    if len(configfiles) > 1:
        raise InputError(f"--configfile {' '.join(map(str, configfiles))}: one study at a time; give one file")
    return Path(os.path.relpath(configfiles[0])) if configfiles else Path("config.yaml")


def planned(path: Path, settings: Sequence[str] = ()) -> Plan:
    """The plan of a study file, with `settings` as `reading.load` takes them. Raises InputError that names the file."""
    study = reading.load(path, settings)
    try:
        found = plan(study)
        found.measures  # noqa: B018 - what it refuses is to be refused here
    except InputError as problem:
        raise InputError(f"{' '.join([str(path), *(f'--set {one}' for one in settings)])}: {problem}") from None
    return found


def with_settings(path: Path, settings: Sequence[str]) -> Path:
    """A study file with settings, written beside the study's results; jobs and reports read it, as any study file.

    Raises InputError as `reading.load` does.
    """
    study, content = reading.load(path, settings), reading.content(path, settings)
    text = f"# {path} {' '.join(f'--set {one}' for one in settings)}\n" + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True
    )
    changed = study.folder / "study.yaml"
    if not changed.exists() or changed.read_text(encoding="utf-8") != text:
        with written_whole(changed) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return changed
