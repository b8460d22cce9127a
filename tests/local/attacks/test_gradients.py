"""Where gradients vanish: saturated and dead networks, flat losses."""

import numpy as np
import pytest
import torch
from attack_cases import NORMS, SHAPE, SHORT, deep_pack, digits, found_by, images, linear_pack, one_found

from deltaball.data.datasets import Dataset
from deltaball.local.attacks import gradients
from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import GEOMETRY, Ball
from deltaball.local.losses import cross_entropy, margin_loss, variation
from deltaball.local.notions import ClassChange, Margin, SoftmaxVariation
from deltaball.local.references import Reference
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers
from deltaball.training.objectives.cross_entropy import cross_entropy as training_loss
from deltaball.training.optimizers import sgd_step

own = Reference.output  # the predicted class and the logits at the point


def test_a_slope_that_would_vanish_on_its_way_is_scaled():
    """Logits lead by 60 and weights are 1e-20: the product of e⁻⁶⁰ and 1e-20 is below float32."""
    weights = [np.full((12, 2), [1e-20, 0], np.float32), np.float32([60, 0])]
    pack = Pack.of(Layers(SHAPE, (Flatten(), Dense(2))), [weights])
    x = images(4)[None]
    _, gradient = gradients.differentiated(pack, x, own(pack(x)), cross_entropy)
    assert (gradient < 0).all()
    assert one_found(Fgsm(), pack, x[0], Ball("linf", 0.1), ClassChange()).no_gradient.all()


@pytest.mark.parametrize("norm", NORMS)
def test_where_a_loss_is_flat_the_margin_takes_its_place(norm: str):
    # The variation has no slope at the point itself, where logits are not changed.
    pack, x = deep_pack(2), digits(32).expand(2, 32, 8, 8, 1)
    found, expected = (gradients.differentiated(pack, x, own(pack(x)), loss)[1] for loss in (variation, margin_loss))
    assert found.flatten(2).abs().amax(-1).min() > 0
    torch.testing.assert_close(*(GEOMETRY[norm].stepped(x, gradient, 0.1) for gradient in (found, expected)))


@pytest.fixture(scope="module")
def digits_pack(few: Dataset) -> tuple[Pack, torch.Tensor]:
    """Four FCNs trained on small digits, and 64 of the digits that they were trained on."""
    found = layers("fcn", {"depth": 1, "width": 32, "activation": "relu"}, few.x_train.shape[1:], 10)
    weights = Pack.of(found, [initial_weights(found, np.random.default_rng(k)) for k in range(4)]).weights
    x, y = torch.from_numpy(few.x_train), torch.from_numpy(few.y_train)
    for _ in range(150):
        weights = tuple(weight.requires_grad_() for weight in weights)
        gradients = torch.autograd.grad(training_loss(logits(found, weights, x), y).sum(), weights)
        with torch.no_grad():
            sgd_step(weights, gradients, torch.full((4,), 0.2))
    return Pack(found, tuple(weight.detach() for weight in weights)), x[:96]


def scaled(pack: Pack, factor: float) -> Pack:
    """The same network with its logits multiplied."""
    return Pack(pack.layers, (*pack.weights[:-2], *(factor * weight for weight in pack.weights[-2:])))


@pytest.mark.parametrize("norm", NORMS)
def test_a_saturated_network_looks_no_more_robust(digits_pack: tuple[Pack, torch.Tensor], norm: str):
    pack, x = digits_pack
    ball = Ball(norm, {"linf": 0.06, "l2": 0.5, "l1": 3.0}[norm])
    robust = {
        factor: one_found(Pgd(), scaled(pack, factor), x, ball, ClassChange()).outcome.mean(1)
        for factor in (1, 30, 1000)
    }
    assert 0.1 < robust[1].mean() < 0.9
    for factor in (30, 1000):
        change = (robust[factor] - robust[1]).mean()
        assert change <= 0.02
        assert norm != "linf" or change >= -0.02
        fgsm = [
            one_found(Fgsm(), scaled(pack, one), x, ball, ClassChange()).outcome.mean().item() for one in (1, factor)
        ]
        assert fgsm[1] <= fgsm[0] + 0.05
    plain, saturated = (
        one_found(Fmn(50), scaled(pack, factor), x, Ball(norm, 5.0), Margin(5.0)).outcome for factor in (1, 1000)
    )
    assert (saturated / plain).quantile(0.8) < 1.02


def test_vanished_gradients_are_counted(digits_pack: tuple[Pack, torch.Tensor]):
    pack, x = digits_pack
    asked = {Ball("linf", 0.05): [ClassChange()]}
    shares = {}
    for factor in (1, 1000):
        for method in (Fgsm(), Pgd(3), Fmn(3)):
            (found,) = found_by(method, scaled(pack, factor), x, asked).values()
            shares.setdefault(factor, []).append(found.no_gradient.float().mean().item())
    assert shares[1] == [0, 0, 0]
    assert min(shares[1000]) > 0.9
    assert len(set(shares[1000])) == 1


def test_the_variation_is_raised_from_where_it_has_no_slope(digits_pack: tuple[Pack, torch.Tensor]):
    """At ×1000 the softmax is flat almost everywhere; the margin's slope leads to where it falls."""
    pack, x = digits_pack
    ball, ascent = Ball("linf", 0.06), Pgd(20, restarts=1)
    changed = one_found(ascent, scaled(pack, 1000), x, ball, ClassChange()).outcome == 0
    varied = one_found(ascent, scaled(pack, 1000), x, ball, SoftmaxVariation()).outcome
    assert (varied[changed] > 0.4).float().mean() > 0.95
    assert (varied > 0.5).float().mean() > 0.1


@pytest.mark.parametrize("method", [Fgsm(), SHORT, Fmn(5)], ids=["fgsm", "pgd", "fmn"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_without_gradients_keeps_its_points(method: Attack, norm: str):
    dead = linear_pack(2, 2)
    dead.weights[0].zero_()
    (found,) = found_by(method, dead, images(32), {Ball(norm, 0.1): [ClassChange()]}).values()
    assert found.no_gradient.all()
    assert found.outcome.all()
    assert not found.perturbed.isnan().any()
