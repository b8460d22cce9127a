"""CR, SCR, SR and LR by hand, what implies what, and certified ≤ true ≤ attacked."""

import math

import numpy as np
import pytest
import torch
from attack_cases import digits, linear_pack
from certificate_cases import drawn_pack
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.local.balls import Ball
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import logit_bounds
from deltaball.local.judges import judge
from deltaball.local.label_notions import Classification, StrongClassification
from deltaball.local.notions import ClassChange, Notion
from deltaball.local.output_notions import LipschitzRobustness, StandardRobustness
from deltaball.local.points import references
from deltaball.local.references import Reference
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers
from deltaball.study.notions import NEAREST

INF, NAN = math.inf, math.nan
NOWHERE = torch.zeros(1)


def outcome(kind: Notion, point: list[float], perturbed: list[float], label: int, distance: float = 0.1) -> float:
    logits = torch.tensor([point])
    reference = references(logits, torch.tensor([label]))(kind)
    (found,) = kind.outcome(reference, torch.tensor([perturbed]), torch.tensor([distance])).tolist()
    return found


@pytest.mark.parametrize(
    ("point", "perturbed", "label", "robust"),
    [
        ([2.0, 1.0, 0.0], [1.1, 1.0, 0.0], 0, 1),
        ([2.0, 1.0, 0.0], [1.0, 2.0, 0.0], 0, 0),
        ([2.0, 1.0, 0.0], [2.0, 1.0, 0.0], 1, 0),  # the class stays, and is not the label
        ([2.0, 1.0, 0.0], [0.0, 1.0, 0.0], 1, 0),  # right where it is perturbed, wrong at the point
        ([2.0, 1.0, 0.0], [1.0, 1.0, 0.0], 0, 0),  # a tie
        ([2.0, 2.0, 0.0], [2.0, 1.0, 0.0], 0, 0),  # a tie at the point
        ([2.0, 1.0, 0.0], [NAN, 1.0, 0.0], 0, 0),
    ],
)
def test_cr_is_the_label_in_both_places(point: list[float], perturbed: list[float], label: int, robust: int):
    assert outcome(Classification(), point, perturbed, label) == robust


@pytest.mark.parametrize(
    ("eta", "point", "perturbed", "label", "robust"),
    [
        # softmax of (ln 3, 0) is (3/4, 1/4); of (0, 0) it is (1/2, 1/2).
        (0.74, [math.log(3), 0.0], [math.log(3), 0.0], 0, 1),
        (0.76, [math.log(3), 0.0], [math.log(3), 0.0], 0, 0),
        (0.5, [0.0, 0.0], [0.0, 0.0], 0, 1),  # at eta itself
        (0.5, [0.0, 0.0], [0.0, 0.1], 0, 0),
        (0.3, [0.0, math.log(3)], [1.0, 0.0], 0, 0),  # 1/4 at the point
        (0.2, [0.0, math.log(3)], [1.0, 0.0], 0, 1),
        (0.5, [200.0, 0.0], [-200.0, 0.0], 0, 0),
        (0.5, [200.0, 0.0], [NAN, 0.0], 0, 0),
    ],
)
def test_scr_is_the_softmax_of_the_label(
    eta: float, point: list[float], perturbed: list[float], label: int, robust: int
):
    assert outcome(StrongClassification(eta), point, perturbed, label) == robust


def test_scr_of_the_predicted_class_and_of_logits():
    point, low = [0.0, 1.0], math.log(0.3)
    assert outcome(StrongClassification(0.52), point, point, 0) == 0
    assert outcome(StrongClassification(0.52, reference="predicted"), point, point, 0) == 1
    # The authors': the logit of the label must reach log 0.3 = -1.204, whatever the others are.
    by_logit = StrongClassification(0.3, of="logit")
    assert outcome(by_logit, [5.0, 9.0], [low + 1e-6, 9.0], 0) == 1
    assert outcome(by_logit, [5.0, 9.0], [low - 1e-6, 9.0], 0) == 0
    assert outcome(by_logit, [low - 1e-6, 9.0], [5.0, 9.0], 0) == 0


@pytest.mark.parametrize(
    ("kind", "perturbed", "robust"),
    [
        (StandardRobustness(1.5), [1.5, 3.0, -1.5], 1),  # moved by (1.5, 1, -1.5)
        (StandardRobustness(1.4), [1.5, 3.0, -1.5], 0),
        (StandardRobustness(1.5), [1.5, 3.0, -1.51], 0),
        (StandardRobustness(2.4, distance="l2"), [1.5, 3.0, -1.5], 1),  # √5.5 = 2.345
        (StandardRobustness(2.3, distance="l2"), [1.5, 3.0, -1.5], 0),
        (StandardRobustness(1e9), [INF, 0.0, 0.0], 0),
        (StandardRobustness(1e9), [NAN, 0.0, 0.0], 0),
        # From the vector (0, 1, 0) of the label 1, which (0, 2, 0) is 1 away from.
        (StandardRobustness(1.0, reference="label"), [1.0, 1.5, -1.0], 1),
        (StandardRobustness(1.0, reference="label"), [1.1, 1.5, -1.0], 0),
        (StandardRobustness(0.9, reference="label"), [0.0, 1.0, 0.0], 0),  # so is the point itself
        (StandardRobustness(1.5, reference="label", distance="l2"), [1.0, 1.5, -1.0], 1),
        (StandardRobustness(1.49, reference="label", distance="l2"), [1.0, 1.5, -1.0], 0),
        (LipschitzRobustness(15.0), [1.5, 3.0, -1.5], 1),  # 1.5 ≤ 15 · 0.1
        (LipschitzRobustness(14.9), [1.5, 3.0, -1.5], 0),
        (LipschitzRobustness(23.5, distance="l2"), [1.5, 3.0, -1.5], 1),
        (LipschitzRobustness(23.4, distance="l2"), [1.5, 3.0, -1.5], 0),
    ],
)
def test_sr_and_lr_bound_how_far_logits_move(kind: Notion, perturbed: list[float], robust: int):
    assert outcome(kind, [0.0, 2.0, 0.0], perturbed, 1, np.nextafter(0.1, 1)) == robust


def test_lr_holds_at_the_point_itself():
    assert outcome(LipschitzRobustness(1e-9), [0.0, 2.0], [0.0, 2.0], 0, 0.0) == 1
    assert outcome(LipschitzRobustness(1e-9), [0.0, 2.0], [0.0, np.nextafter(np.float32(2), 3)], 0, 0.0) == 1
    assert outcome(LipschitzRobustness(1e9), [0.0, NAN], [0.0, NAN], 0, 0.0) == 0


def test_logits_beyond_100_count():
    """The authors cut at ±100, so that they would see no change from 200 to 150."""
    assert outcome(StandardRobustness(10.0), [200.0, 0.0], [150.0, 0.0], 0) == 0


@given(st.integers(0, 2**32), st.integers(2, 6), st.floats(0.01, 1), st.floats(0.1, 20), st.floats(0.501, 0.999))
@settings(max_examples=200)
def test_what_implies_what(seed: int, classes: int, radius: float, constant: float, eta: float):
    random = np.random.default_rng(seed)
    logits, perturbed = torch.from_numpy(random.normal(0, 3, (2, 40, classes)).astype(np.float32))
    perturbed = torch.lerp(logits, perturbed, torch.from_numpy(random.uniform(0, 1, (40, 1)).astype(np.float32)))
    distance = torch.from_numpy(random.uniform(NEAREST, radius, 40))
    labels = torch.from_numpy(random.integers(0, classes, 40))

    def holds(kind: Notion) -> torch.Tensor:
        return kind.outcome(references(logits, labels)(kind), perturbed, distance) == 1

    for norm in ("linf", "l2"):
        lipschitz = LipschitzRobustness(constant, distance=norm)
        assert (holds(lipschitz) <= holds(StandardRobustness(constant * radius, distance=norm))).all()
    assert (holds(StrongClassification(eta)) <= holds(Classification())).all()
    assert (holds(StrongClassification(eta, "predicted")) <= holds(ClassChange())).all()
    correct = logits.argmax(-1) == labels
    assert torch.equal(holds(Classification()), holds(ClassChange()) & correct)
    assert (holds(StandardRobustness(constant, distance="l2")) <= holds(StandardRobustness(constant))).all()


@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([0.0, 0.1, 1.0, 5.0]))
@settings(max_examples=100)
def test_what_is_certified_holds_for_every_logit_within_the_bounds(seed: int, classes: int, scale: float):
    random = np.random.default_rng(seed)
    point = torch.from_numpy(random.normal(0, 3, (6, classes)).astype(np.float32))
    perturbed = point + torch.from_numpy(random.normal(0, scale, (50, 6, classes)).astype(np.float32))
    perturbed[0] = point
    pairs = perturbed.double()[..., :, None] - perturbed.double()[..., None, :]
    bounds = LogitBounds(pairs.amin(0), perturbed.double().amin(0), perturbed.double().amax(0))
    labels = torch.from_numpy(random.integers(0, classes, 6))
    for kind in PROVABLE:
        reference = references(point, labels)(kind)
        worst = kind.outcome(reference.expand_as(perturbed), perturbed, NOWHERE).amin(0)
        certified = kind.certified(reference, bounds)
        assert (certified <= worst).all(), kind
        if kind in EXACT_IN_A_BOX:
            assert torch.equal(certified, worst), kind


# What one logit, or one difference, decides: bounds that are attained are exact.
EXACT_IN_A_BOX = [
    Classification(),
    StrongClassification(0.3, of="logit"),
    StandardRobustness(2.0),
    StandardRobustness(4.0, reference="label"),
]
PROVABLE = [
    *EXACT_IN_A_BOX,
    StrongClassification(0.52),
    StrongClassification(0.3, "predicted"),
    StandardRobustness(2.0, distance="l2"),
    StandardRobustness(5.0, "label", "l2"),
]


def test_what_is_unknown_is_not_certified():
    point = torch.tensor([[2.0, 1.0, 0.0]])
    for unknown in (NAN, -INF):
        bounds = LogitBounds(
            torch.full((1, 3, 3), unknown, dtype=torch.float64),
            torch.full((1, 3), unknown, dtype=torch.float64),
            torch.full((1, 3), -unknown, dtype=torch.float64),
        )
        for kind in PROVABLE:
            reference = references(point, torch.tensor([0]))(kind)
            assert kind.certified(reference, bounds).tolist() == [0], kind


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_of_a_linear_network_bounds_are_attained(norm: str):
    """Each logit and each difference is smallest at the image that lies furthest against its weights."""
    pack, x = linear_pack(4, 2), torch.rand(5, 4, 3, 1, generator=torch.Generator().manual_seed(0))
    ball = Ball(norm, {"linf": 0.05, "l2": 0.2, "l1": 0.4}[norm])
    kernels = torch.from_numpy(np.stack([np.asarray(weights) for weights in pack.weights[0]])).double()
    bounds = logit_bounds(pack, x, ball, "crown", None, logits=True)
    around, logits = ball.around(x), pack(x).double()
    for j in range(4):
        slope = kernels[:, :, j][:, None, None].expand(2, 5, 1, -1)
        torch.testing.assert_close(bounds.lower[..., j], logits[..., j] + around.minimum(slope)[..., 0], **NEAR)
        torch.testing.assert_close(bounds.upper[..., j], logits[..., j] - around.minimum(-slope)[..., 0], **NEAR)
    own = torch.arange(4)
    assert (bounds.differences[..., own, own] == 0).all()
    # Bounds of the logits ride along in larger products, which some processors round another way.
    alone = logit_bounds(pack, x, ball, "crown", None).differences
    torch.testing.assert_close(alone, bounds.differences, atol=1e-12, rtol=0)


NEAR = {"atol": 1e-4, "rtol": 0}


FOUND = {"depth": 2, "width": 10, "activation": "relu"}


def test_certified_is_below_the_truth_and_attacks_above():
    """On 3 pixels, where a grid in the ball comes close to the truth; and a larger ball is never more robust."""
    shape, random = (1, 3, 1), np.random.default_rng(1)
    pack = drawn_pack(layers("fcn", FOUND, shape, 3), seed=1, gain=2.0)
    x = torch.from_numpy(random.uniform(0.2, 0.8, (32, *shape)).astype(np.float32))
    labels = pack(x)[0].argmax(-1)
    labels[::5] = (labels[::5] + 1) % 3
    kinds = [*PROVABLE, LipschitzRobustness(4.0), LipschitzRobustness(6.0, "l2"), ClassChange()]
    smaller = dict.fromkeys(kinds, torch.ones(2, 32))
    for delta in (0.05, 0.2):
        ball = Ball("linf", delta)
        truth = on_a_grid(pack, x, ball, kinds, labels)
        attacked = said("pgd", pack, x, ball, kinds, labels, restarts=6)
        for kind in kinds:
            assert (attacked[kind] > truth[kind]).float().mean() <= 0.05, kind
            smaller[kind] = torch.minimum(smaller[kind], torch.minimum(attacked[kind], truth[kind]))
        certified = {by: said(by, pack, x, ball, kinds, labels) for by in ("ibp", "crown")}
        for by, proven in certified.items():
            assert all((proven[kind] <= smaller[kind]).all() for kind in proven), by
        assert all((certified["crown"][kind] >= certified["ibp"][kind]).all() for kind in kinds)


def on_a_grid(
    pack: Pack, x: torch.Tensor, ball: Ball, kinds: list[Notion], labels: torch.Tensor
) -> dict[Notion, torch.Tensor]:
    """The worst outcomes [K, n] at 9 × 9 × 9 images of each ball."""
    steps = torch.cartesian_prod(*(torch.linspace(-ball.delta, ball.delta, 9, dtype=torch.float64),) * 3)
    images = (x.double() + steps.view(-1, 1, *x.shape[1:])).float().clamp(*ball.around(x).bounds)
    logits = pack(images.flatten(0, 1)).unflatten(1, images.shape[:2])
    worst = {}
    for kind in kinds:
        known = references(pack(x), labels)(kind)
        reference = Reference(*(part[:, None].expand_as(logits) for part in (known.logits, known.target)))
        worst[kind] = kind.outcome(reference, logits, ball.around(x).distance(images)).amin(1)
    return worst


def said(
    name: str, pack: Pack, x: torch.Tensor, ball: Ball, kinds: list[Notion], labels: torch.Tensor, **settings: float
) -> dict[Notion, torch.Tensor]:
    verdicts = judge(name, **settings)(pack, x, {ball: kinds}, range(len(x)), labels)
    return {kind: verdict.outcome for _, kind, verdict in verdicts}


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_exact_answer_to_cr_is_that_to_g_where_the_label_is_predicted(norm: str):
    pack = drawn_pack(layers("fcn", FOUND, (8, 8, 1), 10), networks=1, gain=2.0)
    x, ball = digits(12), Ball(norm, {"linf": 0.02, "l1": 0.3}[norm])
    predicted = pack(x)[0].argmax(-1)
    labels = torch.where(torch.arange(12) % 4 == 0, (predicted + 1) % 10, predicted)
    exact = said("exact", pack, x, ball, [ClassChange(), Classification()], labels)
    expected = exact[ClassChange()] * (labels == predicted)
    assert torch.equal(exact[Classification()], expected)
    assert 0 < expected.sum() < 9


def test_an_attack_of_the_label_leaves_the_label():
    """At a point that the network gets wrong an attack of the prediction may lead to the label."""
    pack, x = linear_pack(3, 1), torch.full((32, 4, 3, 1), 0.5)
    logits = pack(x)
    labels = logits[0].argsort(-1)[:, -2]
    for name in ("fgsm", "pgd", "fmn"):
        ball = Ball("linf", 0.3)
        of_prediction, of_label = (
            next(iter(judge(name)(pack, x, {ball: [kind]}, range(32), labels)))[2]
            for kind in (ClassChange(), Classification())
        )
        assert (of_label.outcome == 0).all()
        if name != "fmn":  # which has nothing to look for
            led = pack(of_label.perturbed).gather(-1, labels.expand(1, 32)[..., None])
            assert (led < pack(of_prediction.perturbed).gather(-1, labels.expand(1, 32)[..., None])).all()


def test_lr_is_attacked_on_the_way_back_too():
    """A kink at the point: the network jumps at once and is flat beyond, so that only near images violate."""
    pack = Pack.of(
        layers("fcn", {"depth": 1, "width": 1, "activation": "tanh"}, (1, 1, 1), 2),
        [[np.float32([[400.0]]), np.float32([-200.0]), np.float32([[1.0, -1.0]]), np.float32([0, 0])]],
    )
    x, ball, labels = torch.full((32, 1, 1, 1), 0.5), Ball("linf", 0.5), torch.zeros(32, dtype=torch.int64)
    kind = LipschitzRobustness(30.0)  # 1 over 0.5 is 2; over less than 1/30 it is more than 30
    assert (said("fgsm", pack, x, ball, [kind], labels)[kind] == 1).all()
    assert (said("pgd", pack, x, ball, [kind], labels)[kind] == 0).all()


def test_labels_are_asked_for_where_they_are_missing():
    pack, x = linear_pack(3, 1), torch.full((32, 4, 3, 1), 0.5)
    with pytest.raises(ValueError, match="labels"):
        list(judge("fgsm")(pack, x, {Ball("linf", 0.1): [Classification()]}, range(32)))


def test_references_of_points():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 4.5]])
    assert Reference.output(logits).classes.tolist() == [[1], [0]]
    of_label = Reference.label(logits, torch.tensor([2, 0]))
    assert of_label.classes.tolist() == [[2], [0]]
    assert of_label.target.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert of_label.logits is logits
