"""Margins that FMN finds, against the distance of a hyperplane."""

import numpy as np
import pytest
import torch
from attack_cases import LARGEST, NORMS, SHAPE, found_by, images, linear_pack, one_found, sides, through_the_middle

from deltaball.local.attacks.fmn import Fmn
from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange, ClearChange, Margin
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_network_the_margin_is_the_distance_of_a_hyperplane(norm: str):
    """margin / ‖w_p - w_o‖ in the dual norm, where [0, 1] is far enough."""
    pack, x = through_the_middle(linear_pack(2, 3)), images(100, beyond=-0.3)
    most = LARGEST[norm]
    found = one_found(Fmn(), pack, x, Ball(norm, most), Margin(most))
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    for k in range(3):
        before, row = sides(pack, k, x)
        exact = before / np.linalg.norm(row, dual, axis=1)
        # The nearest image of the other class moves a pixel by no more than 0.29, which [0, 1] allows all of them.
        share = {"linf": 1.0, "l1": 1.0, "l2": np.abs(row).max(1) / np.linalg.norm(row, axis=1)}[norm]
        far = exact * share < 0.29
        assert far.mean() > 0.5
        # In L1 a little may be left on pixels that are nearly the steepest. How much depends on rounding, so on the
        # make of the processor: where images move by 1e-7, one of these points is 1e-4 to .0056 too far.
        if norm == "l1":
            excess = found.outcome[k].numpy()[far] / exact[far] - 1
            assert excess.min() > -1e-4
            assert np.quantile(excess, 0.98) < 1e-3
            assert excess.max() < 0.01
            continue
        np.testing.assert_allclose(found.outcome[k].numpy()[far], exact[far], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_closest_image_whose_class_leads_by_so_much_is_found(classes: int):
    """(margin + lead) / ‖w_p - w_o‖₁ of two classes; of three, no class may come closer than the lead."""
    lead = 0.5
    pack, x = through_the_middle(linear_pack(classes, 1)), images(100, beyond=-0.3)
    found = one_found(Fmn(), pack, x, Ball("linf", 1.0), ClearChange(lead))
    logits, before = pack(found.perturbed)[0], pack(x)[0]
    ahead = logits.topk(2).values
    moved = (found.perturbed[0] - x).abs().flatten(1).amax(1).numpy()
    there = (found.outcome[0] == 0).numpy()
    assert there.mean() > 0.9
    own = before.argmax(-1)
    assert (logits.argmax(-1) != own).numpy()[there].all()
    np.testing.assert_allclose((ahead[:, 0] - ahead[:, 1]).numpy()[there], lead, atol=1e-3)
    if classes == 2:
        margins, row = sides(pack, 0, x)
        exact = (margins + lead) / np.abs(row).sum(1)
        far = exact < 0.29
        assert far.mean() > 0.5
        np.testing.assert_allclose(moved[far], exact[far], rtol=1e-4, atol=1e-5)
    # Without a lead it lies closer.
    nearest = one_found(Fmn(), pack, x, Ball("linf", 1.0), ClearChange(0.0)).perturbed
    assert ((nearest[0] - x).abs().flatten(1).amax(1).numpy() < moved)[there].all()


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_network_in_the_unit_cube_the_margin_is_nearly_exact(norm: str):
    """The smallest radius at which the exact minimum of the margin is negative, by bisection."""
    pack, x = linear_pack(2, 3), images(60)
    most = LARGEST[norm]
    found = one_found(Fmn(), pack, x, Ball(norm, most), Margin(most)).outcome
    for k in range(3):
        before, row = sides(pack, k, x)
        near, far = np.zeros(60), np.full(60, most)
        for _ in range(50):
            middle = (near + far) / 2
            around = type(Ball(norm, 0.0).around(x))(x, torch.from_numpy(middle))
            after = before + around.minimum(torch.from_numpy(row)[:, None])[:, 0].numpy()
            near, far = np.where(after > 0, middle, near), np.where(after > 0, far, middle)
        assert (found[k].numpy() >= far - 1e-5).all()
        assert np.median(found[k].numpy() / far) < 1.02
        assert np.quantile(found[k].numpy() / far, 0.95) < 1.15


@pytest.mark.parametrize("norm", NORMS)
def test_fmn_changes_the_class_within_a_radius_or_not(norm: str):
    pack, x, largest = linear_pack(2, 2), images(64), Ball(norm, LARGEST[norm])
    distance = one_found(Fmn(), pack, x, largest, Margin(largest.delta)).outcome
    balls = [Ball(norm, distance.quantile(share).item()) for share in (0.2, 0.5, 0.8)]
    found = found_by(Fmn(), pack, x, {ball: [ClassChange()] for ball in balls})
    for ball in balls:
        violated = found[ball, ClassChange()].outcome == 0
        clear = (distance - ball.delta).abs() > 1e-6
        assert torch.equal(violated[clear], (distance <= ball.delta)[clear])
        assert torch.equal(found[ball, ClassChange()].perturbed[~violated], x.expand(2, *x.shape)[~violated])


def test_what_cannot_be_changed_is_robust_and_as_far_as_asked():
    weights = [np.zeros((12, 2), np.float32), np.array([1, 0], np.float32)]
    constant = Pack.of(Layers(SHAPE, (Flatten(), Dense(2))), [weights])
    for norm in NORMS:
        found = found_by(Fmn(10), constant, images(8), {Ball(norm, 0.7): [ClassChange(), Margin(0.7)]})
        assert [one.outcome.unique().tolist() for one in found.values()] == [[1.0], [pytest.approx(0.7)]]


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_handed_back_is_a_violation_by_any_arithmetic(norm: str):
    """Half of the closest images in float32 are ties, which other arithmetic resolves either way."""
    random = np.random.default_rng(0)
    network = layers("fcn", {"depth": 2, "width": 32, "activation": "relu"}, SHAPE, 4)
    weights = [random.normal(0, 1.5 / shape[0] ** 0.5, shape).astype(np.float32) for shape in network.weight_shapes]
    pack, x = Pack.of(network, [weights]), images(256)
    found = one_found(Fmn(), pack, x, Ball(norm, LARGEST[norm]), ClassChange())
    violated = found.outcome[0] == 0
    assert violated.float().mean() > 0.9
    exact = Pack(network, tuple(weight.double() for weight in pack.weights))(found.perturbed[0].double())[0]
    predicted = pack(x)[0].argmax(-1)
    assert (exact.argmax(-1) != predicted)[violated].all()
    turned = pack(found.perturbed[0].flip(0))[0].flip(0)  # in another place of the batch
    assert (turned.argmax(-1) != predicted)[violated].all()
