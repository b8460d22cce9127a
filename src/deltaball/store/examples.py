"""Adversarial examples of training images on disk, in the folder of the network that they were found against."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaball.base.files import remove
from deltaball.store import tensors


@dataclass(frozen=True)
class Examples:
    """What was found for some training images."""

    images: np.ndarray  # uint8 [m, h, w, c], 256 levels
    points: np.ndarray  # int64 [m]: of which training images they are
    sought: int  # of how many images examples were sought
    lost: int  # found, and no examples any more once rounded to 256 levels

    def __add__(self, other: "Examples") -> "Examples":
        images, points = np.concatenate([self.images, other.images]), np.concatenate([self.points, other.points])
        return Examples(images, points, self.sought + other.sought, self.lost + other.lost)


@dataclass(frozen=True)
class Place:
    """Where examples are kept: those that one search found against one network for some of the images in its order."""

    network: tuple[str, int]  # a checkpoint of a trajectory
    search: str  # what tells searches apart
    images: range

    @property
    def name(self) -> str:
        """The name of the file."""
        after = self.network[1]
        return f"examples-{after:05d}-{self.search}-{self.images.start:06d}-{self.images.stop:06d}.safetensors"

    @property
    def identity(self) -> dict[str, str]:
        """What the file says of itself."""
        return {"trajectory": self.network[0], "examples": self.name}


def save(folder: Path, place: Place, examples: Examples) -> None:
    """Keep examples in the folder of a trajectory."""
    arrays = {"images": examples.images, "points": examples.points}
    tensors.write(folder / place.name, arrays, place.identity, {"sought": examples.sought, "lost": examples.lost})


def find(folder: Path, place: Place) -> Examples | None:
    """The examples of a place; None where nobody has looked for them. A damaged file is named, removed, and is none."""
    path = folder / place.name
    try:
        arrays, facts = tensors.read(path, place.identity)
    except FileNotFoundError:
        return None
    except tensors.DamagedFileError as problem:
        print(f"store: {problem}; it is made again", flush=True)
        remove(path)
        return None
    return Examples(arrays["images"], arrays["points"], facts["sought"], facts["lost"])
