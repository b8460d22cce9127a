"""Networks measured on a GPU: a pretended one everywhere, and the real one where there is one."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import planned
from pretended_gpu import pretended

from deltaball.estimation.outcomes import outcomes
from deltaball.networks.initial import initial_weights
from deltaball.networks.models import Model
from deltaball.networks.packs import Pack
from deltaball.networks.posteriors import Posterior
from deltaball.study.architectures import layers

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
SHAPE, CLASSES, NETWORKS, SAMPLES = (6, 5, 2), 4, 2, 20
ALL_NORMS = ["linf", "l2", "l1"]
ATTACKS = [
    {"notion": "class_change", "norm": ALL_NORMS, "attack": ["fgsm", "pgd"], "steps": 3},
    {"notion": "softmax_variation", "norm": ALL_NORMS, "attack": ["fgsm", "pgd"], "steps": 3},
    {"notion": "margin", "norm": ALL_NORMS, "attack": ["fmn"], "steps": 3},
]
CERTIFICATES = [
    {"notion": "class_change", "norm": ALL_NORMS, "certificate": ["ibp", "crown"]},
    {"notion": "softmax_variation", "norm": ["linf"], "certificate": ["crown"]},
]
EXACT = [{"notion": "class_change", "norm": ["linf", "l1"], "certificate": ["exact"], "seconds": 60}]


@pytest.fixture(params=["pretended", pytest.param("real", marks=[ON_A_GPU, pytest.mark.gpu])])
def gpu(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractContextManager]:
    """Makes the machine one with a GPU."""
    return pretended if request.param == "pretended" else contextlib.nullcontext


def model(kind: str, activation: str, device: str) -> Model:
    axes = {"fc_depth": 1, "fc_width": 8, "filters": 3, "kernel": 3, "conv_depth": 1, "depth": 2, "width": 7}
    found = layers("cnn" if kind == "cnn" else "fcn", {**axes, "activation": activation}, SHAPE, CLASSES)
    drawn = [initial_weights(found, np.random.default_rng(k)) for k in range(SAMPLES if kind == "mean" else NETWORKS)]
    if kind == "mean":
        return Posterior.of(found, [np.stack(arrays) for arrays in zip(*drawn, strict=True)], device)
    return Pack.of(found, drawn, device)


@pytest.mark.parametrize(
    ("kind", "activation", "measures", "points"),
    [
        ("fcn", "relu", ATTACKS, 40),
        ("cnn", "tanh", ATTACKS, 32),
        ("mean", "relu", ATTACKS, 32),
        ("fcn", "sigmoid", CERTIFICATES, 4),
        ("cnn", "relu", CERTIFICATES, 4),
        ("fcn", "relu", EXACT, 3),
        ("cnn", "relu", EXACT, 1),
    ],
    ids=["attacks-fcn", "attacks-cnn", "attacks-mean", "proofs-fcn", "proofs-cnn", "exact-fcn", "exact-cnn"],
)
def test_a_gpu_finds_what_a_cpu_finds(
    kind: str,
    activation: str,
    measures: list[dict[str, Any]],
    points: int,
    gpu: Callable[[], contextlib.AbstractContextManager],
) -> None:
    asked = planned(measures=[{"delta": 0.1, **one} for one in measures]).measures
    images = np.random.default_rng(0).random((points, *SHAPE), dtype=np.float32)
    expected = outcomes(model(kind, activation, "cpu"), images, asked, "cpu")
    with gpu():
        found = outcomes(model(kind, activation, "cuda"), images, asked, "cuda")
    assert found.keys() == expected.keys()
    for one in asked:
        pair = found[one].outcomes, expected[one].outcomes
        if gpu is pretended:
            np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6, err_msg=one.name)
        else:  # where a gradient is about 0, another rounding is another sign, and another way for a search
            assert (np.abs(pair[0] - pair[1]) > 0.01).mean() <= 0.1, one.name
