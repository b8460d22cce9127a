"""Support vector machines with an RBF kernel, one for each pair of classes; scikit-learn's SVC solves each pair.

The pairs are those of SVC on all classes at once (LIBSVM, Chang & Lin 2011), image by image in the same order, so what
comes out is the same up to its tolerance. One product of matrices per pair gives all values of the kernel, which LIBSVM
would compute one by one. A machine is kept as arrays (`SupportVectors.weights`), never pickled.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import sklearn
import torch
from sklearn.svm import SVC

import deltaball
from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.statuses import TRAINED
from deltaball.data.datasets import Dataset
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.networks.support_vectors import SupportVectors
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import evaluated, missing_steps, provenance, resident
from deltaball.training.progress import SILENT, Progress
from deltaball.training.splits import seen_points

CACHE_MB = 200  # of kernel values that SVC keeps; here they are at hand


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Train the machines that the store lacks, one after another; returns how many.

    Raises InputError where a class has no image among those that are seen.
    """
    lacking = [one for one in trajectories if missing_steps(one, store)]
    (machine,) = (layer for layer in layers if isinstance(layer, SupportVectors))
    x_train, y_train, x_test, y_test = resident(dataset, device)
    for one in lacking:
        store.note("began", one.id, 0)
        seen = seen_points(dataset.facts, one.axes)
        images, labels = dataset.x_train[seen].reshape(len(seen), -1), dataset.y_train[seen]
        if one.axes["noise_deviation"]:
            noisy = with_noise(images, one.axes["noise_deviation"], one.id)
            images, labels = np.concatenate([images, noisy]), np.concatenate([labels, labels])
        weights = fitted(images, labels, machine, one.axes["penalty"])
        network = Pack.of(layers, [weights], device)
        points = torch.from_numpy(seen).to(device)
        train_accuracy, _ = evaluated(layers, network.weights, x_train[points], y_train[points])
        test_accuracy, test_loss = evaluated(layers, network.weights, x_test, y_test)
        facts = {
            **provenance(dataset, device),
            "software": f"deltaball {deltaball.__version__}, scikit-learn {sklearn.__version__}, "
            f"torch {torch.__version__}, numpy {np.__version__}",
            "status": TRAINED,
            "train_accuracy": train_accuracy.item(),
            "test_accuracy": test_accuracy.item(),
            "test_loss": test_loss.item(),
        }
        store.save(one.id, 0, Checkpoint(weights, {}, facts))
        progress.finish(1)
    return len(lacking)


def with_noise(images: np.ndarray, deviation: float, key: str) -> np.ndarray:
    """Images float32 [n, d] with normal noise of a standard deviation in every pixel, then clipped to [0, 1]."""
    noise = generator(key, "noise of images").standard_normal(images.shape, np.float32)
    return (images + np.float32(deviation) * noise).clip(0, 1)


def fitted(
    images: np.ndarray, labels: np.ndarray, machine: SupportVectors, penalty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights of a machine that learned from images float32 [n, d] with labels [n]; `penalty` is C.

    Raises InputError where a class has no image.
    """
    members = [np.flatnonzero(labels == label) for label in range(machine.classes)]
    absent = next((label for label, own in enumerate(members) if not len(own)), None)
    if absent is not None:
        raise InputError(f"none of the {len(labels)} training images that are seen has class {absent}; train on more")
    coefficients = np.zeros((len(images), machine.pairs))
    intercepts = np.zeros(machine.pairs)
    for pair, (first, second) in enumerate(combinations(range(machine.classes), 2)):
        both = np.concatenate([members[first], members[second]])
        # SVC counts what is above 0 as the second of two classes.
        wanted = np.repeat([1, 0], [len(members[first]), len(members[second])])
        solved = SVC(C=penalty, kernel="precomputed", cache_size=CACHE_MB).fit(
            kernel(images[both], machine.gamma), wanted
        )
        coefficients[both[solved.support_], pair] = solved.dual_coef_[0]
        intercepts[pair] = solved.intercept_[0]
    used = np.flatnonzero(coefficients.any(1))
    return images[used], coefficients[used], intercepts


def kernel(images: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-γ |x - x′|²) between all images [n, d], float64 [n, n]."""
    lengths = np.einsum("ij,ij->i", images, images, dtype=np.float64)
    # In place, for there may be ten thousand images.
    distances = (images @ images.T).astype(np.float64)
    distances *= -2
    distances += lengths
    distances += lengths[:, None]
    distances.clip(min=0, out=distances)
    distances *= -gamma
    return np.exp(distances, out=distances)
