"""Notions by hand, and what they take from bounds on differences of logits."""

import math
from inspect import isabstract

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from deltaball.base.implementations import implementation, is_implemented
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.label_notions import Classification, StrongClassification
from deltaball.local.losses import cross_entropy, margin, margin_loss, tempered_cross_entropy, variation
from deltaball.local.notions import ClassChange, Margin, Notion, SoftmaxVariation, VariationAbove, notion
from deltaball.local.output_notions import LipschitzRobustness, StandardRobustness
from deltaball.local.references import Reference
from deltaball.study.notions import NOTIONS

own = Reference.output  # the predicted class and the logits at the point

NOWHERE = torch.zeros(1)


@pytest.mark.parametrize(
    ("point", "perturbed", "robust"),
    [
        ([2.0, 1.0, 0.0], [2.0, 1.0, 0.0], 1),
        ([2.0, 1.0, 0.0], [1.1, 1.0, 0.0], 1),
        ([2.0, 1.0, 0.0], [1.0, 2.0, 0.0], 0),
        ([2.0, 2.0, 0.0], [9.0, 1.0, 0.0], 0),  # a tie at the point
        ([2.0, 1.0, 0.0], [1.0, 1.0, 0.0], 0),  # a tie at the perturbed point
        ([2.0, 1.0, 0.0], [1.0, 0.0, 1.0], 0),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0),
        ([2.0, 1.0, 0.0], [math.nan, 1.0, 0.0], 0),
        ([2.0, 1.0, 0.0], [2.0, math.nan, 0.0], 0),
        ([2.0, 1.0, math.nan], [2.0, 1.0, 0.0], 0),
        ([math.nan] * 3, [2.0, 1.0, 0.0], 0),
        ([math.inf, 1.0, 0.0], [math.inf, math.inf, 0.0], 0),
        ([math.inf, math.inf, 0.0], [math.inf, 1.0, 0.0], 0),
        ([-math.inf, -math.inf, -math.inf], [2.0, 1.0, 0.0], 0),
    ],
)
def test_a_class_change_is_anything_but_a_clear_stay(point: list[float], perturbed: list[float], robust: int):
    found = ClassChange().outcome(own(torch.tensor([point])), torch.tensor([perturbed]), NOWHERE)
    assert found.tolist() == [robust]
    assert found.dtype == torch.float32


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=5), st.data())
@settings(max_examples=200)
def test_margin_is_the_lead_over_the_best_other(logits: list[float], data: st.DataObject):
    reference = data.draw(st.integers(0, len(logits) - 1))
    others = [value for index, value in enumerate(logits) if index != reference]
    found = margin(torch.tensor(logits), torch.tensor([reference])).item()
    assert found == np.float32(logits[reference]) - np.float32(max(others))


@given(st.integers(0, 2**32), st.integers(2, 10))
@settings(max_examples=100)
def test_variation_is_the_largest_change_of_any_softmax(seed: int, classes: int):
    point, perturbed = np.random.default_rng(seed).normal(0, 5, (2, 7, classes)).astype(np.float32)

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    found = SoftmaxVariation().outcome(own(torch.from_numpy(point)), torch.from_numpy(perturbed), NOWHERE).numpy()
    np.testing.assert_allclose(found, np.abs(softmax(point) - softmax(perturbed)).max(1), atol=1e-6)
    assert (0 <= found).all()
    assert (found <= 1).all()


def test_variation_that_is_no_number_counts_as_the_largest():
    point, perturbed = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.nan, 0.0]])
    for one, other in ((point, perturbed), (perturbed, point), (perturbed, perturbed)):
        assert SoftmaxVariation().outcome(own(one), other, NOWHERE).tolist() == [1]
        assert VariationAbove(0.999).outcome(own(one), other, NOWHERE).tolist() == [0]
    infinite = torch.tensor([[math.inf, 0.0]])
    assert SoftmaxVariation().outcome(own(point), infinite, NOWHERE).tolist() == [1]


def test_variation_at_gamma_is_robust_and_above_it_is_not():
    # Softmax of [0, 0] is exactly (½, ½), of [∞-like, 0] exactly (1, 0): a variation of exactly ½.
    point, perturbed = torch.tensor([[0.0, 0.0]]), torch.tensor([[200.0, 0.0]])
    assert SoftmaxVariation().outcome(own(point), perturbed, NOWHERE).tolist() == [0.5]
    assert VariationAbove(0.5).outcome(own(point), perturbed, NOWHERE).tolist() == [1]
    assert VariationAbove(math.nextafter(0.5, 0)).outcome(own(point), perturbed, NOWHERE).tolist() == [
        1
    ]  # the same in float32
    assert VariationAbove(float(np.nextafter(np.float32(0.5), np.float32(0)))).outcome(
        own(point), perturbed, NOWHERE
    ).tolist() == [0]
    assert VariationAbove(0.49).outcome(own(point), perturbed, NOWHERE).tolist() == [0]
    assert VariationAbove(0.51).outcome(own(point), perturbed, NOWHERE).tolist() == [1]


@pytest.mark.parametrize(
    ("point", "perturbed", "distance", "outcome"),
    [
        ([2.0, 1.0], [2.0, 1.0], 0.1, 0.5),  # another class was not found: at least `most`
        ([2.0, 1.0], [1.0, 2.0], 0.1, 0.1),
        ([2.0, 1.0], [1.0, 1.0], 0.2, 0.2),  # a tie is another class
        ([2.0, 1.0], [1.0, 2.0], 0.7, 0.5),
        ([2.0, 1.0], [math.nan, 2.0], 0.2, 0.2),
        ([2.0, 2.0], [2.0, 1.0], 0.2, 0.0),  # ambiguous at the point itself
        ([math.nan, 2.0], [2.0, 1.0], 0.2, 0.0),
    ],
)
def test_a_margin_is_the_distance_of_another_class(
    point: list[float], perturbed: list[float], distance: float, outcome: float
):
    at = torch.tensor([distance], dtype=torch.float64)
    found = Margin(0.5).outcome(own(torch.tensor([point])), torch.tensor([perturbed]), at)
    assert found.tolist() == [pytest.approx(outcome)]
    assert found.dtype == torch.float32


def test_worse_is_smaller_where_an_attack_bounds_from_above():
    one, other = torch.tensor([0.2, 0.7]), torch.tensor([0.6, 0.1])
    for kind in (ClassChange(), VariationAbove(0.5), Margin(1.0)):
        assert torch.equal(kind.worst(one, other), torch.tensor([0.2, 0.1]))
        assert kind.settled(torch.tensor([0.0, 0.1, 1.0])).tolist() == [True, False, False]
    assert torch.equal(SoftmaxVariation().worst(one, other), torch.tensor([0.6, 0.7]))
    assert SoftmaxVariation().settled(torch.tensor([0.0, 0.9, 1.0])).tolist() == [False, False, True]


def test_losses_by_hand():
    point, perturbed = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.5, 0.0]])
    assert margin_loss(own(point), perturbed).item() == 0.5
    powers = np.exp([1.0, 1.5, 0.0])
    assert cross_entropy(own(point), perturbed).item() == pytest.approx(-math.log(powers[0] / powers.sum()), rel=1e-6)
    before = np.exp([3.0, 1.0, 0.0])
    change = np.abs(powers / powers.sum() - before / before.sum()).max()
    assert variation(own(point), perturbed).item() == pytest.approx(change, rel=1e-6)


@given(st.integers(0, 2**32), st.integers(2, 10), st.floats(0.1, 10))
@settings(max_examples=50)
def test_cross_entropy_is_that_of_torch(seed: int, classes: int, scale: float):
    point, drawn = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (2, 3, 7, classes)))
    perturbed = drawn.requires_grad_()
    expected = functional.cross_entropy(perturbed.flatten(0, 1), point.argmax(-1).flatten(), reduction="none")
    found = cross_entropy(own(point), perturbed)
    torch.testing.assert_close(found, expected.view(3, 7))
    gradients = [torch.autograd.grad(one.sum(), perturbed, retain_graph=True)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("lead", [10.0, 30.0, 60.0])
def test_a_saturated_cross_entropy_still_pulls_the_predicted_class_down(lead: float):
    # In float32 the predicted class's softmax is 1 here, but the gradient's parts must still sum to 0.
    logits = torch.tensor([[lead, 0.0, -1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(own(logits.detach()), logits).sum(), logits)
    assert gradient[0, 0] < 0
    assert gradient[0, 0].item() == pytest.approx(-gradient[0, 1:].sum().item(), rel=1e-5)


@pytest.mark.parametrize("lead", [1.0, 5.0, 30.0, 1e4])
def test_a_tempered_cross_entropy_does_not_saturate(lead: float):
    point = torch.tensor([[0.0, lead, -lead]])
    logits = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tempered_cross_entropy(own(point), logits).sum(), logits)
    (plain,) = torch.autograd.grad(cross_entropy(own(point), logits).sum(), logits)
    if lead <= 5:
        assert torch.equal(gradient, plain)
    else:
        assert plain.abs().max() < 1e-12 < gradient.abs().max() * lead
    assert gradient[0, 1] < 0 < gradient[0, 0]


def sampled(seed: int, classes: int, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits at 6 points and at 50 perturbed ones each, of which the first is the point; and bounds that hold there."""
    random = np.random.default_rng(seed)
    point = torch.from_numpy(random.normal(0, 3, (6, classes)).astype(np.float32))
    perturbed = point + torch.from_numpy(random.normal(0, scale, (50, 6, classes)).astype(np.float32))
    perturbed[0] = point
    pairs = perturbed.double()[..., :, None] - perturbed.double()[..., None, :]
    return point, perturbed, pairs.amin(0)


@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([0.0, 0.1, 1.0, 5.0]))
@settings(max_examples=200)
def test_what_is_certified_holds_for_every_sampled_logit(seed: int, classes: int, scale: float):
    point, perturbed, differences = sampled(seed, classes, scale)
    distance = torch.full((50, 6), 0.1)
    for kind in (ClassChange(), VariationAbove(0.2), Margin(0.5)):
        worst = kind.outcome(own(point.expand_as(perturbed)), perturbed, distance).amin(0)
        assert (kind.certified(own(point), LogitBounds(differences)) <= worst).all()
    varied = SoftmaxVariation().outcome(own(point.expand_as(perturbed)), perturbed, distance).amax(0)
    assert (SoftmaxVariation().certified(own(point), LogitBounds(differences)) >= varied - 1e-6).all()


@given(st.integers(0, 2**32), st.sampled_from([0.1, 1.0]))
@settings(max_examples=50)
def test_what_is_certified_of_two_classes_is_exact(seed: int, scale: float):
    """With two classes the one difference decides everything."""
    point, perturbed, differences = sampled(seed, 2, scale)
    distance = torch.zeros(50, 6)
    both = point.expand_as(perturbed)
    robust = ClassChange().outcome(own(both), perturbed, distance).amin(0)
    assert torch.equal(ClassChange().certified(own(point), LogitBounds(differences)), robust)
    varied = SoftmaxVariation().outcome(own(both), perturbed, distance).amax(0)
    torch.testing.assert_close(
        SoftmaxVariation().certified(own(point), LogitBounds(differences)), varied, atol=1e-5, rtol=0
    )


def test_what_is_unknown_is_not_certified():
    point = torch.tensor([[2.0, 1.0, 0.0]])
    unknown = torch.full((1, 3, 3), -torch.inf, dtype=torch.float64)
    assert ClassChange().certified(own(point), LogitBounds(unknown)).tolist() == [0]
    assert Margin(0.5).certified(own(point), LogitBounds(unknown)).tolist() == [0]
    # Any class may end at 0 or at 1: the least likely has the longest way.
    longest = 1 - 1 / (math.exp(2) + math.exp(1) + 1)
    assert SoftmaxVariation().certified(own(point), LogitBounds(unknown)).item() == pytest.approx(longest, rel=1e-6)
    assert VariationAbove(0.5).certified(own(point), LogitBounds(unknown)).tolist() == [0]


def test_a_bound_of_0_does_not_exclude_a_tie():
    point, differences = torch.tensor([[2.0, 1.0]]), torch.tensor([[[0.0, 0.0], [-3.0, 0.0]]], dtype=torch.float64)
    assert ClassChange().certified(own(point), LogitBounds(differences)).tolist() == [0]
    differences[0, 0, 1] = 1e-300
    assert ClassChange().certified(own(point), LogitBounds(differences)).tolist() == [1]


def test_names_of_a_study_become_notions():
    assert notion("class_change") == ClassChange()
    assert notion("softmax_variation") == SoftmaxVariation()
    assert notion("variation_above", gamma=0.3) == VariationAbove(0.3)
    assert notion("margin", delta=0.5) == Margin(0.5)
    assert notion("classification") == Classification()
    assert notion("strong_classification", 0.52) == StrongClassification(0.52)
    assert notion("strong_classification-predicted-logit", 0.3) == StrongClassification(0.3, "predicted", "logit")
    assert notion("standard_robustness-label-l2", 10) == StandardRobustness(10, "label", "l2")
    assert notion("lipschitz_robustness", 10) == LipschitzRobustness(10)
    raised = {name for name in NOTIONS if notion(name, 0.5, 1.0).entry.violations_raise}
    assert raised == {"softmax_variation"}
    assert all(notion(name, 0.5, 1.0).entry is entry for name, entry in NOTIONS.items())


def test_the_table_and_the_classes_know_the_same_notions():
    def below(kind: type[Notion]) -> set[type[Notion]]:
        return {kind, *(one for child in kind.__subclasses__() for one in below(child))}

    classes = {kind for kind in below(Notion) if kind.__module__.startswith("deltaball.") and not isabstract(kind)}
    table = {entry.family: implementation(entry.implementation) for entry in NOTIONS.values()}
    assert {kind.name for kind in classes} == set(table)
    assert set(table.values()) <= classes
    # Any other one is a stricter form of the table's.
    assert all(issubclass(kind, table[kind.name]) for kind in classes)
    assert all(kind.name == name for name, kind in table.items())
    assert all(is_implemented(entry.implementation) for entry in NOTIONS.values())


def test_an_outcome_lies_in_the_range_that_the_table_says():
    point, perturbed, differences = sampled(0, 4, 1.0)
    lower, upper = perturbed.double().amin(0), perturbed.double().amax(0)
    bounds = LogitBounds(differences, lower, upper, (upper - lower) / 0.5)
    for name, entry in NOTIONS.items():
        kind, most = notion(name, 0.2, 0.5), entry.highest(0.5)
        outcome = kind.outcome(own(point.expand_as(perturbed)), perturbed, torch.full((50, 6), 0.1))
        for values in (outcome, kind.certified(own(point), bounds)):
            assert ((0 <= values) & (values <= most)).all()
            assert not entry.is_share or set(values.flatten().tolist()) <= {0.0, 1.0}
        worst = kind.worst(torch.tensor(0.0), torch.tensor(most))
        assert worst == (most if entry.violations_raise else 0)
        assert kind.settled(worst)
