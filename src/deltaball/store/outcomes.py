"""Outcomes of a trajectory's networks on disk: any job may add to them at any time, and none loses another's."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deltaball.base.files import remove
from deltaball.store import tensors


def save(folder: Path, trajectory_id: str, added: Mapping[str, np.ndarray]) -> None:
    """Add outcomes, each float32 [points] under its key, to a trajectory's folder.

    What is there stays: every call adds a file named after its keys and lengths, so jobs that measure different
    things at once cannot lose each other's outcomes.
    """
    content = sorted(f"{key} {len(values)}" for key, values in added.items())
    name = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    tensors.write(folder / f"outcomes-{name}.safetensors", dict(added), {"outcomes": trajectory_id})


def find(folder: Path, trajectory_id: str) -> dict[str, np.ndarray]:
    """All outcomes of a trajectory's folder, of each key the longest. A damaged file is named, removed, and none."""
    longest: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("outcomes-*.safetensors")):
        try:
            added, _ = tensors.read(path, {"outcomes": trajectory_id})
        except FileNotFoundError:  # another job has just removed it as damaged
            continue
        except tensors.DamagedFileError as problem:
            print(f"store: {problem}; it is made again", flush=True)
            remove(path)
            continue
        longest |= {key: values for key, values in added.items() if len(values) > len(longest.get(key, ()))}
    return longest
