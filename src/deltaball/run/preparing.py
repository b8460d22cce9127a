"""Data sets of a study, prepared in its store before its jobs need them."""

import json
from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.base.files import written_checked
from deltaball.data import datasets
from deltaball.data.datasets import Dataset
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.store.store import Store


def prepare(study: Path, name: str) -> str:
    """Put a data set of a study in its store, unless it is there; its facts beside the tables. Returns them in words.

    Raises InputError when the study does not use it, or it cannot be had.
    """
    planned = loading.planned(study)
    if name not in planned.facts:
        raise InputError(f"{study} uses no data set '{name}'; {alternatives(name, planned.facts)}")
    dataset = prepared(planned, name)
    facts = dataset.facts
    content = {
        "name": name,
        "sha256": facts.fingerprint,
        "train": facts.train,
        "test": facts.test,
        "classes": facts.classes,
    }
    with written_checked(planned.study.folder / "data" / f"{name}.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return f"{name}: {facts.train} training and {facts.test} test images, arrays sha256 {facts.fingerprint}"


def prepared(plan: Plan, name: str) -> Dataset:
    """A data set of a plan from its store, which may be read-only where it has the data; put there where it lacks them.

    What the store has is checked, and what is damaged is made again.
    """
    store, facts = Store(plan.study.store), plan.facts[name]
    dataset = store.find_dataset(facts)
    if dataset is None:
        dataset = datasets.load(name, Path(plan.study.data))
        store.save_dataset(dataset)
    return dataset
