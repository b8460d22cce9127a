"""Data sets of a study, prepared in its store before its jobs need them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.base.files import written_checked
from deltaball.data import catalogue, datasets
from deltaball.data import gtsrb as signs
from deltaball.data.datasets import Dataset
from deltaball.plan import loading
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.store.store import Store


def prepare(study: Path, name: str) -> str:
    """Put a data set of a study in its store, unless it is there; its facts beside the tables. Returns them in words.

    Raises InputError when the study does not use it, or it cannot be had.
    """
    planned = loading.planned(study)
    if name not in planned.facts:
        raise InputError(f"{study} uses no data set '{name}'; {alternatives(name, planned.facts)}")
    facts = prepared(planned, name).facts
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


def check_there(plan: Plan, store: Store, networks: Iterable[Network]) -> None:
    """Raise InputError when a data set that these networks are still to be trained on is nowhere to be had.

    What is downloaded when it is needed counts as there.
    """
    for name in sorted({one.dataset for one in networks if not store.has(one.trajectory_id, one.checkpoint)}):
        if store.find_dataset(plan.facts[name]) is None:
            catalogue.check_there(name, Path(plan.study.data))


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


def gtsrb(source: Path | None, folder: Path, size: int) -> Iterator[str]:
    """Make the data sets of GTSRB in a data folder from an .npz file, or, at `size` × `size`, from its archives.

    Where no source is given, it is ``gtsrb.npz`` of the folder, or else the archives are downloaded. Says what is made.
    Raises InputError when the source is not GTSRB, or another ``gtsrb.npz`` is in the way.
    """
    own = folder / "gtsrb.npz"
    if not 8 <= size <= 256:
        raise InputError(f"--size {size}: a side of 8 to 256 pixels is needed; the paper's images have 48")
    source = source or (own if own.exists() else None)
    if own.exists() and not (source and source.exists() and source.samefile(own)):
        raise InputError(f"{own} is there already; make the others from it, or move it away, or give another --data")
    if source is None:
        yield f"downloading {', '.join(signs.ARCHIVES)} from {signs.WHERE} into {folder / 'gtsrb'}"
        source = signs.download(folder / "gtsrb")
    if not source.exists():
        raise InputError(f"{source}: not there; give an .npz file, or a folder of GTSRB's unpacked archives")
    arrays = signs.from_folder(source, size) if source.is_dir() else signs.from_file(source)
    for facts in signs.write(folder, arrays):
        height, width, channels = facts.shape
        yield (
            f"{folder / facts.name}.npz: {facts.train} training and {facts.test} test images of {facts.classes} "
            f"classes, {height}×{width} in {'grey' if channels == 1 else 'colour'}"
        )
