"""Branch and bound of softmaxes: above everything that is seen in the ball, below CROWN, and close to a fine grid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.branched import WITHIN, Branched, exponents
from deltaball.local.branching import FEW
from deltaball.local.certificates.certificate import Crown
from deltaball.local.notions import Notion, SoftmaxVariation, VariationAbove
from deltaball.local.references import Reference
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

FLOAT32 = 1e-6
SHAPE, CLASSES = (1, 2, 1), 3


def drawn(seed: int, activation: str, gain: float = 1.0, architecture: str = "fcn", width: int = 6) -> Pack:
    random = np.random.default_rng(seed)
    sizes = {"fcn": {"depth": 2, "width": width}, "cnn": {"filters": 2, "kernel": 3, "conv_depth": 1, "fc_depth": 1}}
    axes = {**sizes[architecture], "activation": activation}
    shape = SHAPE
    if architecture == "cnn":
        axes, shape = {**axes, "fc_width": 5}, (4, 4, 1)
    found, weights = layers(architecture, axes, shape, CLASSES), []
    for weight in found.weights:
        scale = {"kernel": 2 / math.sqrt(math.prod(weight.shape[:-1])), "bias": 0.3}[weight.role]
        weights.append(random.normal(0, scale, weight.shape).astype(np.float32))
    weights[-2:] = [gain * weight for weight in weights[-2:]]
    return Pack.of(found, [weights])


def images(pack: Pack, count: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(-0.2, 1.2, (count, *pack.layers.shape)).clip(0, 1)
    return torch.from_numpy(values.astype(np.float32))


def said(judge: object, pack: Pack, x: torch.Tensor, ball: Ball, notion: Notion) -> torch.Tensor:
    ((_, _, verdict),) = judge(pack, x, {ball: [notion]}, range(len(x)))
    return verdict.outcome[0]


def grid(pack: Pack, x: torch.Tensor, ball: Ball, notion: Notion) -> torch.Tensor:
    """The worst outcomes [n] over a fine grid of two pixels."""
    ticks = torch.linspace(-ball.delta, ball.delta, 101)
    steps = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1).view(-1, 1, 1, 2, 1)
    found = ball.around(x).project(x + steps)
    logits = pack(found.flatten(0, 1))[0].unflatten(0, found.shape[:2])
    reference = Reference.output(pack(x)[0].expand_as(logits))
    outcomes = notion.outcome(reference, logits, torch.zeros(()))
    return outcomes.amax(0) if notion.entry.violations_raise else outcomes.amin(0)


@given(
    st.integers(0, 10**6),
    st.sampled_from(["relu", "tanh", "sigmoid"]),
    st.sampled_from([1.0, 3.0, 300.0]),
    st.sampled_from([("linf", 0.05), ("linf", 0.3), ("l1", 0.2)]),
    st.sampled_from([6, FEW]),  # in each of two layers
)
@settings(max_examples=16)
def test_it_is_above_a_grid_and_below_crown(
    seed: int, activation: str, gain: float, around: tuple[str, float], width: int
):
    pack, ball = drawn(seed, activation, gain, width=width), Ball(*around)
    x = images(pack, 3, seed)
    for notion in (SoftmaxVariation(), VariationAbove(0.3)):
        worst = grid(pack, x, ball, notion)
        found, loose = (said(judge, pack, x, ball, notion) for judge in (Branched(0.2), Crown()))
        above, below = (found, loose) if notion.entry.violations_raise else (-found, -loose)
        assert (above >= (worst if notion.entry.violations_raise else -worst) - FLOAT32).all()
        assert (above <= below).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_it_comes_close_to_a_grid_where_crown_does_not(activation: str):
    gaps, before, proven = [], [], []
    for seed in range(6 if activation == "relu" else 2):
        pack, ball = drawn(seed, activation, 2.0), Ball("linf", 0.2)
        x = images(pack, 3, seed)
        worst = grid(pack, x, ball, SoftmaxVariation())
        gaps.append(said(Branched(0.5), pack, x, ball, SoftmaxVariation()) - worst)
        before.append(said(Crown(), pack, x, ball, SoftmaxVariation()) - worst)
        clear = (grid(pack, x, ball, VariationAbove(0.4)) == 1) & (worst < 0.25)
        proven.append(said(Branched(0.5), pack, x, ball, VariationAbove(0.5))[clear])
    gaps, before = torch.cat(gaps), torch.cat(before)
    assert gaps.median() < 3 * WITHIN
    assert gaps.mean() < before.mean() / 3
    assert torch.cat(proven).mean() == 1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_of_many_units_it_comes_closer_than_crown(activation: str):
    gaps, before = [], []
    for seed in range(4):
        pack, ball = drawn(seed, activation, 2.0, width=FEW), Ball("linf", 0.2)
        x = images(pack, 4, seed)
        worst = grid(pack, x, ball, SoftmaxVariation())
        gaps.append(said(Branched(0.5), pack, x, ball, SoftmaxVariation()) - worst)
        before.append(said(Crown(), pack, x, ball, SoftmaxVariation()) - worst)
    assert torch.cat(gaps).mean() < 0.8 * torch.cat(before).mean()


@pytest.mark.parametrize("architecture", ["fcn", "cnn"])
def test_without_time_it_is_crown(architecture: str):
    pack = drawn(1, "relu", 2.0, architecture)
    x, ball = images(pack, 5, 1), Ball("linf", 0.2)
    for notion in (SoftmaxVariation(), VariationAbove(0.3)):
        assert torch.equal(said(Branched(0.0), pack, x, ball, notion), said(Crown(), pack, x, ball, notion))


def test_max_pools_are_enclosed_too():
    pack = drawn(2, "relu", 2.0, "cnn")
    x, ball = images(pack, 6, 1), Ball("linf", 0.1)
    found, loose = (said(judge, pack, x, ball, SoftmaxVariation()) for judge in (Branched(1.0), Crown()))
    attacked = said(Pgd(steps=20, restarts=1), pack, x, ball, SoftmaxVariation())
    assert (attacked <= found).all()
    assert (found <= loose).all()
    assert (found < loose - 0.01).any()


def test_ties_dead_units_and_what_is_no_number():
    pack = drawn(3, "relu", 1.0)
    for weight, value in zip(pack.weights[2:4], (0.0, -1.0), strict=True):  # all units of the second layer are off
        weight.fill_(value)
    pack.weights[-1].fill_(0.0)  # all logits are equal
    x = images(pack, 4, 0)
    assert said(Branched(0.5), pack, x, Ball("linf", 0.3), SoftmaxVariation()).max() < 1e-5
    assert said(Branched(0.5), pack, x, Ball("linf", 0.3), VariationAbove(0.1)).tolist() == [1.0] * 4
    pack.weights[-1][0, 0] = torch.nan
    assert said(Branched(0.5), pack, x, Ball("linf", 0.3), SoftmaxVariation()).tolist() == [1.0] * 4


def test_exponents_add_up_to_no_more_than_they_may():
    random = torch.Generator().manual_seed(0)
    reached = torch.randn(20, 4, 4, generator=random, dtype=torch.float64) * 3 - 4
    proven = reached + torch.rand(20, 4, 4, generator=random, dtype=torch.float64) * 5
    own = torch.eye(4, dtype=torch.bool)
    least = reached.masked_fill(own, -torch.inf).logsumexp(-1)
    found = exponents(reached, proven, least + 1)
    assert (found.masked_fill(own, -torch.inf).logsumexp(-1) <= least + 1 + 1e-9).all()
    assert (found <= proven).all()
    # Where what is proven adds up to no more, it is left as it is.
    assert torch.equal(exponents(reached, proven, least + 100), proven)
