"""How low softmaxes fall: never above what a grid shows, nearer to it than bounds of single differences are."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deltaball.local.balls import Ball
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.falling import WEIGHT, Falls, excluded, lowest
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

BALL, CLASSES = Ball("linf", 0.2), 5


def drawn(seed: int, activation: str, classes: int = CLASSES) -> Pack:
    """Two layers of 20 units, of two pixels."""
    random = np.random.default_rng(seed)
    found = layers("fcn", {"depth": 2, "width": 20, "activation": activation}, (1, 2, 1), classes)
    weights = [random.normal(0, 1.5 / np.sqrt(one.shape[0]), one.shape).astype(np.float32) for one in found.weights]
    return Pack.of(found, [weights])


def cases(pack: Pack, x: torch.Tensor, floor: float) -> Falls:
    """Every softmax of every point."""
    differences = logit_bounds(pack, x, BALL, "crown", None).differences[0]
    classes = differences.shape[-1]
    point = torch.arange(len(x)).repeat_interleave(classes)
    label = torch.arange(classes).repeat(len(x))
    return Falls(point, label, torch.full(point.shape, floor, dtype=torch.float64), -differences[point, label])


def seen(pack: Pack, x: torch.Tensor) -> torch.Tensor:
    """The least softmaxes [n classes] on a fine grid."""
    ticks = torch.linspace(-BALL.delta, BALL.delta, 101)
    steps = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1).view(-1, 1, 1, 2, 1)
    images = BALL.around(x).project(x + steps)
    return pack(images.flatten(0, 1))[0].double().softmax(-1).unflatten(0, images.shape[:2]).amin(0).flatten()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_bounds_are_below_a_grid_and_above_those_of_crown(activation: str):
    found, single, least = [], [], []
    for seed in range(3):
        pack, random = drawn(seed, activation), np.random.default_rng(seed)
        x = torch.from_numpy(random.random((4, 1, 2, 1), np.float32))
        falls = cases(pack, x, 0.999)
        least.append(seen(pack, x))
        single.append(1 / falls.highest.exp().sum(-1))
        found.append(lowest(pack, pack, x, BALL, falls, time.process_time() + 20))
    found, single, least = (torch.cat(side) for side in (found, single, least))
    assert (found <= least + 1e-6).all()
    assert (found >= single).all()
    assert (least - found).mean() < (least - single).mean() / 2


def test_of_two_classes_there_is_one_difference():
    pack, x = drawn(2, "relu", 2), torch.full((3, 1, 2, 1), 0.5)
    falls = cases(pack, x, 0.999)
    found, least = lowest(pack, pack, x, BALL, falls, time.process_time() + 20), seen(pack, x)
    assert (found <= least + 1e-6).all()
    assert (found > 1 / falls.highest.exp().sum(-1)).any()


def test_what_is_low_enough_is_left_as_it_is():
    pack, x = drawn(1, "relu"), torch.full((3, 1, 2, 1), 0.5)
    falls = cases(pack, x, 1e-9)
    proven = 1 / falls.highest.exp().sum(-1)
    assert (proven > 1e-9).all()
    assert torch.equal(lowest(pack, pack, x, BALL, falls, time.process_time() + 20), proven)
    past = lowest(pack, pack, x, BALL, cases(pack, x, 0.999), time.process_time() - 1)
    assert torch.equal(past, proven)


numbers = st.floats(-20, 20)


@given(numbers, numbers, st.floats(0, 5), st.floats(0, 1), st.floats(0, 60))
def test_two_differences_below_a_common_bound(first: float, second: float, less: float, share: float, lower: float):
    """No pair of numbers that the three bounds allow has a larger sum; a vertex has the same."""
    alone = torch.tensor([first, second], dtype=torch.float64)
    weights = torch.tensor([WEIGHT, 1 - WEIGHT], dtype=torch.float64)
    both = (alone * weights).sum() - less
    largest = alone.exp().sum() - excluded(alone[None], both[None])[0]
    # From one vertex to the other, and down from there.
    ends = alone - torch.diag(less / weights)
    between = share * ends[0] + (1 - share) * ends[1] - torch.tensor([lower, lower / 2])
    assert between.exp().sum() <= largest * (1 + 1e-9)
    torch.testing.assert_close(ends.exp().sum(-1).amax(), largest)


def test_a_common_bound_that_excludes_nothing():
    alone = torch.tensor([[1.0, 0.0], [800.0, 0.0], [torch.inf, 0.0]], dtype=torch.float64)
    both = torch.tensor([2.0, torch.inf, 3.0], dtype=torch.float64)
    assert (excluded(alone, both)[:2] == 0).all()
    assert excluded(alone, both).isfinite().all()
