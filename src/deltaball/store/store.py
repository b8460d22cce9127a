"""What is finished, on disk: data sets, checkpoints, outcomes, adversarial examples.

Everything is found by content or trajectory id, so any job may write anything at any time: two jobs writing the
same id write the same thing, and a job that is killed leaves either the whole file or none.
"""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.files import remove
from deltaball.base.statuses import DIVERGED
from deltaball.data.catalogue import ARRAYS, DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.store import examples, outcomes, tensors
from deltaball.store.examples import Examples, Place


@dataclass(frozen=True)
class Checkpoint:
    """A network on disk: weights in Keras' order, what else training needs to go on from it, and its facts.

    `state` holds arrays by name: the optimizer's moments, the mask of a pruned network. `facts` are the JSON values
    that the table's row needs: accuracies, loss, status, where it was trained.
    A network that diverged has no weights.
    """

    weights: tuple[np.ndarray, ...]
    state: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def numbered(name: str, arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays as the state of a checkpoint has a list of them."""
    return {f"{name}.{index}": array for index, array in enumerate(arrays)}


def listed(state: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """The list of arrays that the state of a checkpoint has under a name; none where it has no such list."""
    count = sum(key.rpartition(".")[0] == name for key in state)
    return tuple(state[f"{name}.{index}"] for index in range(count))


class EvictedError(InputError):
    """Weights that the study let go once their network was measured; the message names the network."""


class Store:
    """The store below a folder. Files that turn out damaged are reported and count as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def trials(self) -> Path:
        """The folder of what trials found of this store's devices; it may be deleted at any time."""
        return self.folder / "ways"

    @property
    def corrupted(self) -> Path:
        """The folder of corrupted images; it may be deleted at any time."""
        return self.folder / "corrupted"

    def save_dataset(self, dataset: Dataset) -> None:
        """Keep the arrays under their fingerprint."""
        arrays = {name: getattr(dataset, name) for name in ARRAYS}
        tensors.write(self._dataset(dataset.facts), arrays, {"fingerprint": dataset.facts.fingerprint})

    def load_dataset(self, facts: DatasetFacts) -> Dataset:
        """The arrays that `facts` describe. Raises InputError when they were never prepared, or are damaged."""
        dataset = self.find_dataset(facts)
        if dataset is None:
            raise InputError(f"data set '{facts.name}' is not prepared; run `deltaball data {facts.name}`")
        return dataset

    def find_dataset(self, facts: DatasetFacts) -> Dataset | None:
        """The arrays that `facts` describe, or None when they are not there. Damaged ones are named and removed."""
        path = self._dataset(facts)
        try:
            arrays, _ = tensors.read(path, {"fingerprint": facts.fingerprint})
        except FileNotFoundError:
            return None
        except tensors.DamagedFileError as problem:
            print(f"store: {problem}; it is prepared again", flush=True)
            remove(path)
            return None
        return Dataset(facts, **arrays)

    def save(self, trajectory_id: str, step: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint of a trajectory after `step` epochs (or samples)."""
        arrays = {f"weight.{index}": array for index, array in enumerate(checkpoint.weights)}
        arrays |= {f"state.{name}": array for name, array in checkpoint.state.items()}
        identity = {"trajectory": trajectory_id, "step": str(step)}
        tensors.write(self._checkpoint(trajectory_id, step), arrays, identity, checkpoint.facts)

    def load(self, trajectory_id: str, step: int) -> Checkpoint:
        """A checkpoint. Raises FileNotFoundError or DamagedFileError."""
        identity = {"trajectory": trajectory_id, "step": str(step)}
        arrays, facts = tensors.read(self._checkpoint(trajectory_id, step), identity)
        count = sum(name.startswith("weight.") for name in arrays)
        return Checkpoint(
            tuple(arrays[f"weight.{index}"] for index in range(count)),
            {name.removeprefix("state."): arrays[name] for name in arrays if name.startswith("state.")},
            facts,
        )

    def weights(self, trajectory_id: str, step: int, corruption: str = "") -> tuple[np.ndarray, ...]:
        """The weights of a checkpoint in Keras' order. Raises as `load` does, and EvictedError.

        A classifier behind a transfer has those of both; where it has one for each corruption, that of `corruption`.
        Raises InputError where there is none for it.
        """
        return self.load_whole(trajectory_id, step, corruption).weights

    def transfers(self, trajectory_id: str, step: int) -> list[str]:
        """The corruptions for each of which a classifier has a transfer of its own; none of any other network."""
        return [name for name in self.facts(trajectory_id, step).get("transfers", ()) if name]

    def is_averaged(self, trajectory_id: str, step: int) -> bool:
        """Whether the network of a checkpoint is a mean over `samples`, and not one of its `weights`."""
        return "after" in self.facts(trajectory_id, step)

    def samples(self, trajectory_id: str, step: int) -> tuple[np.ndarray, ...]:
        """All samples of a chain up to `step`, [S, *shape] in Keras' order. Raises as `weights` does.

        A checkpoint of a chain holds the samples since the checkpoint that its facts name as `after`.
        """
        parts = []
        while step > 0:
            part = self.load_whole(trajectory_id, step)
            parts.append(part.weights)
            step = part.facts["after"]
        return tuple(np.concatenate(arrays[::-1]) for arrays in zip(*parts, strict=True))

    def load_whole(self, trajectory_id: str, step: int, corruption: str = "") -> Checkpoint:
        """A checkpoint with its weights, as `weights` has them. Raises as `load` does, EvictedError and InputError."""
        found = self._unevicted(trajectory_id, step)
        if "transfers" not in found.facts:
            return found
        if corruption not in found.facts["transfers"]:
            there = ", ".join(found.facts["transfers"])
            raise InputError(f"{trajectory_id} has a transfer for each corruption: ask for one of {there}")
        parts = found.facts["transfers"][corruption], found.facts["classifier"]
        return replace(found, weights=tuple(array for part in parts for array in self._unevicted(*part).weights))

    def _unevicted(self, trajectory_id: str, step: int) -> Checkpoint:
        found = self.load(trajectory_id, step)
        if found.facts.get("evicted"):
            raise EvictedError(f"the weights of {trajectory_id} after {step} were evicted")
        return found

    def find(self, trajectory_id: str, step: int) -> Checkpoint | None:
        """A checkpoint, or None when there is none with weights. A damaged one is named, removed, and is none."""
        try:
            return self._unevicted(trajectory_id, step)
        except (FileNotFoundError, EvictedError):
            return None
        except tensors.DamagedFileError as problem:
            print(f"store: {problem}; it is made again", flush=True)
            remove(self._checkpoint(trajectory_id, step))
            return None

    def facts(self, trajectory_id: str, step: int) -> dict[str, Any]:
        """The facts of a checkpoint, read without its weights. Raises FileNotFoundError or DamagedFileError."""
        identity = {"trajectory": trajectory_id, "step": str(step)}
        path = self._checkpoint(trajectory_id, step)
        with tensors.opened(path) as file:
            return tensors.read_facts(file, path, identity)

    def has(self, trajectory_id: str, step: int) -> bool:
        """Whether a checkpoint is there, if only its facts (its content is not checked)."""
        return self._checkpoint(trajectory_id, step).exists()

    def evict(self, trajectory_id: str) -> None:
        """Let the weights of all of a trajectory's checkpoints go, and keep their facts."""
        for step in self.steps(trajectory_id):
            facts = self.facts(trajectory_id, step)
            if facts["status"] != DIVERGED and not facts.get("evicted"):
                self.save(trajectory_id, step, Checkpoint((), {}, {**facts, "evicted": True}))

    def forget(self, trajectory_id: str, steps: Iterable[int]) -> None:
        """Let checkpoints go that were kept only to go on from."""
        for step in steps:
            remove(self._checkpoint(trajectory_id, step))

    def steps(self, trajectory_id: str) -> list[int]:
        """The steps at which a trajectory has checkpoints, ascending (their content is not checked)."""
        return sorted(int(path.stem) for path in self._folder(trajectory_id).glob("[0-9]*.safetensors"))

    def note(self, event: str, trajectory_id: str, step: int) -> None:
        """Add a line to the store's log: the time, what happened, and to which checkpoint.

        A file per process: on a network disk, jobs that append to one file overwrite each other's lines.
        """
        folder = self.folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{socket.gethostname()}-{os.getpid()}.log").open("a") as log:
            log.write(f"{time.time_ns()} {event} {trajectory_id} {step}\n")

    def save_outcomes(self, trajectory_id: str, added: Mapping[str, np.ndarray]) -> None:
        """Add outcomes of a trajectory's networks, each float32 [points] under its key; what is there stays."""
        outcomes.save(self._folder(trajectory_id), trajectory_id, added)

    def find_outcomes(self, trajectory_id: str) -> dict[str, np.ndarray]:
        """All outcomes kept for a trajectory, of each key the longest. A damaged file is named, removed, and none."""
        return outcomes.find(self._folder(trajectory_id), trajectory_id)

    def save_examples(self, place: Place, found: Examples) -> None:
        """Keep adversarial examples that were found against a network."""
        examples.save(self._folder(place.network[0]), place, found)

    def find_examples(self, place: Place) -> Examples | None:
        """The examples of a place; None where they were not sought. A damaged file is named, removed, and is none."""
        return examples.find(self._folder(place.network[0]), place)

    def _dataset(self, facts: DatasetFacts) -> Path:
        return self.folder / "datasets" / f"{facts.name}-{facts.fingerprint[:16]}.safetensors"

    def _folder(self, trajectory_id: str) -> Path:
        return self.folder / "trajectories" / trajectory_id[:2] / trajectory_id

    def _checkpoint(self, trajectory_id: str, step: int) -> Path:
        return self._folder(trajectory_id) / f"{step:05d}.safetensors"
