"""What is finished, on disk: data sets, checkpoints, outcomes. Safetensors, written whole or not at all.

Everything is found by content or trajectory id, so any job may write anything at any time: two jobs writing the
same id write the same thing, and a job that is killed leaves either the whole file or none.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.base.statuses import DIVERGED
from deltaball.data.catalogue import ARRAYS, DatasetFacts
from deltaball.data.datasets import Dataset


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


class EvictedError(InputError):
    """Weights that the study let go once their network was measured; the message names the network."""


class DamagedFileError(InputError):
    """A file of the store that cannot be what was written there; the message names it."""


class Store:
    """The store below a folder. Files that turn out damaged are reported and count as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def ways(self) -> Path:
        """The folder of what trials found of this store's devices; it may be deleted at any time."""
        return self.folder / "ways"

    def save_dataset(self, dataset: Dataset) -> None:
        """Keep the arrays under their fingerprint."""
        arrays = {name: getattr(dataset, name) for name in ARRAYS}
        _write(self._dataset(dataset.facts), arrays, {"fingerprint": dataset.facts.fingerprint})

    def has_dataset(self, facts: DatasetFacts) -> bool:
        """Whether the arrays that `facts` describe are there (their content is not checked)."""
        return self._dataset(facts).exists()

    def load_dataset(self, facts: DatasetFacts) -> Dataset:
        """The arrays that `facts` describe. Raises InputError when they were never prepared or are damaged."""
        path = self._dataset(facts)
        remedy = f"run `deltaball data {facts.name}`"
        if not path.exists():
            raise InputError(f"data set '{facts.name}' is not prepared; {remedy}")
        try:
            arrays, _ = _read(path, {"fingerprint": facts.fingerprint})
        except DamagedFileError as problem:
            raise InputError(f"{problem}; delete it and {remedy}") from None
        return Dataset(facts, **arrays)

    def save(self, trajectory_id: str, step: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint of a trajectory after `step` epochs (or samples)."""
        tensors = {f"weight.{index}": array for index, array in enumerate(checkpoint.weights)}
        tensors |= {f"state.{name}": array for name, array in checkpoint.state.items()}
        identity = {"trajectory": trajectory_id, "step": str(step)}
        _write(self._checkpoint(trajectory_id, step), tensors, identity, checkpoint.facts)

    def load(self, trajectory_id: str, step: int) -> Checkpoint:
        """A checkpoint. Raises FileNotFoundError or DamagedFileError."""
        identity = {"trajectory": trajectory_id, "step": str(step)}
        tensors, facts = _read(self._checkpoint(trajectory_id, step), identity)
        count = sum(name.startswith("weight.") for name in tensors)
        return Checkpoint(
            tuple(tensors[f"weight.{index}"] for index in range(count)),
            {name.removeprefix("state."): tensors[name] for name in tensors if name.startswith("state.")},
            facts,
        )

    def weights(self, trajectory_id: str, step: int) -> tuple[np.ndarray, ...]:
        """The weights of a checkpoint in Keras' order. Raises as `load` does, and EvictedError."""
        return self._unevicted(trajectory_id, step).weights

    def samples(self, trajectory_id: str, step: int) -> tuple[np.ndarray, ...]:
        """All samples of a chain up to `step`, [S, *shape] in Keras' order. Raises as `weights` does.

        A checkpoint of a chain holds the samples since the checkpoint that its facts name as `after`.
        """
        parts = []
        while step > 0:
            part = self._unevicted(trajectory_id, step)
            parts.append(part.weights)
            step = part.facts["after"]
        return tuple(np.concatenate(arrays[::-1]) for arrays in zip(*parts, strict=True))

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
        except DamagedFileError as problem:
            print(f"store: {problem}; it is made again", flush=True)
            self._checkpoint(trajectory_id, step).unlink(missing_ok=True)
            return None

    def facts(self, trajectory_id: str, step: int) -> dict[str, Any]:
        """The facts of a checkpoint, read without its weights. Raises FileNotFoundError or DamagedFileError."""
        identity = {"trajectory": trajectory_id, "step": str(step)}
        path = self._checkpoint(trajectory_id, step)
        with _opened(path) as file:
            return _facts(file, path, identity)

    def has(self, trajectory_id: str, step: int) -> bool:
        """Whether a checkpoint is there, if only its facts (its content is not checked)."""
        return self._checkpoint(trajectory_id, step).exists()

    def evict(self, trajectory_id: str) -> None:
        """Let the weights of all of a trajectory's checkpoints go, and keep their facts."""
        for step in self.steps(trajectory_id):
            facts = self.facts(trajectory_id, step)
            if facts["status"] != DIVERGED and not facts.get("evicted"):
                self.save(trajectory_id, step, Checkpoint((), {}, {**facts, "evicted": True}))

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

    def save_outcomes(self, trajectory_id: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Add outcomes of a trajectory's networks, each float32 [points] under its key.

        What is there stays: every call adds a file named after its keys and lengths, so jobs that measure different
        things at once cannot lose each other's outcomes.
        """
        content = sorted(f"{key} {len(values)}" for key, values in outcomes.items())
        name = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
        path = self._folder(trajectory_id) / f"outcomes-{name}.safetensors"
        _write(path, dict(outcomes), {"outcomes": trajectory_id})

    def find_outcomes(self, trajectory_id: str) -> dict[str, np.ndarray]:
        """All outcomes kept for a trajectory, of each key the longest. A damaged file is named, removed, and none."""
        found: dict[str, np.ndarray] = {}
        for path in sorted(self._folder(trajectory_id).glob("outcomes-*.safetensors")):
            try:
                added = _read(path, {"outcomes": trajectory_id})[0]
            except FileNotFoundError:  # another job has just removed it as damaged
                continue
            except DamagedFileError as problem:
                print(f"store: {problem}; it is made again", flush=True)
                path.unlink(missing_ok=True)
                continue
            found |= {key: values for key, values in added.items() if len(values) > len(found.get(key, ()))}
        return found

    def _dataset(self, facts: DatasetFacts) -> Path:
        return self.folder / "datasets" / f"{facts.name}-{facts.fingerprint[:16]}.safetensors"

    def _folder(self, trajectory_id: str) -> Path:
        return self.folder / "trajectories" / trajectory_id[:2] / trajectory_id

    def _checkpoint(self, trajectory_id: str, step: int) -> Path:
        return self._folder(trajectory_id) / f"{step:05d}.safetensors"


def _digest(tensors: Mapping[str, np.ndarray], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _write(
    path: Path, tensors: dict[str, np.ndarray], identity: dict[str, str], facts: Mapping[str, Any] | None = None
) -> None:
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(dict(facts or {}), sort_keys=True)
    # Two checksums, so that the facts can be trusted without reading the tensors.
    metadata = {**identity, "facts": text, "facts_sha256": _digest({}, text), "sha256": _digest(tensors, text)}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (SafetensorError, UnicodeDecodeError) as problem:
        raise DamagedFileError(f"{path} is damaged ({problem})") from None


def _facts(file: Any, path: Path, identity: dict[str, str]) -> dict[str, Any]:
    metadata = file.metadata() or {}
    for name, value in identity.items():
        if metadata.get(name) != value:
            raise DamagedFileError(f"{path} holds {name} {metadata.get(name)} instead of {value}")
    text = metadata.get("facts", "")
    if metadata.get("facts_sha256") != _digest({}, text):
        raise DamagedFileError(f"{path} is damaged (the checksum of its facts does not fit)")
    return json.loads(text)


def _read(path: Path, identity: dict[str, str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with _opened(path) as file:
        facts = _facts(file, path, identity)
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if metadata.get("sha256") != _digest(tensors, metadata["facts"]):
        raise DamagedFileError(f"{path} is damaged (its checksum does not fit)")
    return tensors, facts
