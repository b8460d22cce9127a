"""Data sets of a study, prepared in its store before its jobs need them."""

import json
from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.base.files import written_whole
from deltaball.data import datasets
from deltaball.plan import loading
from deltaball.store.store import Store


def prepare(study: Path, name: str) -> str:
    """Put a data set of a study in its store, and its facts beside the tables; returns them in words.

    Raises InputError when the study does not use it, or it cannot be had.
    """
    planned = loading.planned(study)
    if name not in planned.facts:
        raise InputError(f"{study} uses no data set '{name}'; {alternatives(name, planned.facts)}")
    dataset = datasets.load(name, Path(planned.study.data))
    Store(planned.study.store).save_dataset(dataset)
    facts = dataset.facts
    content = {
        "name": name,
        "sha256": facts.fingerprint,
        "train": facts.train,
        "test": facts.test,
        "classes": facts.classes,
    }
    with written_whole(planned.study.folder / "data" / f"{name}.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return f"{name}: {facts.train} training and {facts.test} test images, arrays sha256 {facts.fingerprint}"
