"""Networks of files ready to be judged: their weights, once it is checked that they compute what the file does."""

import numpy as np
import torch

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.exchange.files import NetworkFile
from deltaball.exchange.opaque import Opaque
from deltaball.exchange.reading import naming
from deltaball.networks.models import Model
from deltaball.networks.packs import Pack

# Training images on which it is tried whether pixels from 0 to 255 are meant, and the gain in accuracy that tells it.
TRIED, TELLING = 500, 0.1

# Random images on which a network is compared with the file's own runtime, and how far logits may differ: as a share of
# the largest one, if that is above 1.
COMPARED, TOLERANCE = 4, 1e-4


def weights(file: NetworkFile) -> list[np.ndarray]:
    """The weights of a file's layers, float32, once it is checked that these compute what the file does.

    Raises InputError where a weight is not a number, or where they differ on random images.
    """
    with naming(file.path):
        found = [np.ascontiguousarray(array, np.float32) for array in file.arrays()]
        for weight, array in zip(file.layers.weights, found, strict=True):
            if array.shape != weight.shape:
                raise InputError(f"a {weight.name} has the shape {[*array.shape]}; it should be {[*weight.shape]}")
            if not np.isfinite(array).all():
                raise InputError(f"has a {weight.name} with weights that are no finite numbers; it cannot be judged")
        _compare(file, Pack.of(file.layers, [found]))
    return found


def model(file: NetworkFile, device: str) -> Model:
    """A file's network as a model, checked as `weights` does: of layers where it has them, else as torch runs it."""
    if file.layers is not None:
        return Pack.of(file.layers, [weights(file)], device)
    with naming(file.path):
        found = Opaque(file.forward(device), file.lacking, file.shape)
        _compare(file, found, device)
    return found


def _compare(file: NetworkFile, network: Model, device: str = "cpu") -> None:
    if file.runtime is None:
        return
    images = generator("images that are compared").random((COMPARED, *file.shape), np.float32)
    theirs = file.runtime(images)
    with torch.no_grad():
        ours = network(torch.from_numpy(images).to(device))[0].cpu().numpy()
    if not np.isfinite(theirs).all():
        raise InputError("gives logits that are no finite numbers; it cannot be judged")
    if ours.shape != theirs.shape:
        raise InputError(
            f"gives {[*theirs.shape[1:]]} numbers for an image by its own runtime, and {[*ours.shape[1:]]} here"
        )
    apart = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
    if not apart <= TOLERANCE:
        raise InputError(
            f"its own runtime and deltaball differ by {apart:.2g} on random images, and {TOLERANCE:g} is allowed; "
            "please report it, with the file"
        )


@torch.no_grad()
def check_range(file: NetworkFile, network: Model, images: np.ndarray, labels: np.ndarray, device: str) -> None:
    """Raise InputError where nothing says which pixels a network takes and those from 0 to 255 suit it better.

    `images` [n, height, width, channels] in [0, 1] and `labels` [n] are those of a training split.
    """
    if file.convention.pixels is not None:
        return
    x, y = torch.from_numpy(images[:TRIED]).to(device), torch.from_numpy(labels[:TRIED]).to(device)
    unit, whole = ((network(scale * x)[0].argmax(1) == y).double().mean().item() for scale in (1.0, 255.0))
    if whole > unit + TELLING:
        raise InputError(
            f"{file.path}: knows {unit:.0%} of {len(x)} training images with pixels from 0 to 1, and {whole:.0%} with "
            f"pixels from 0 to 255; say which it takes: --input-range 0..255, or `input: {{range: 0..255}}` in "
            f"{file.path.with_suffix('.yaml')}"
        )
