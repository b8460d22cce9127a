"""Training under attack: closed forms of linear networks, and what is left when nothing may move."""

import numpy as np
import pytest
import torch
from scipy import stats

from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.study.objectives import OBJECTIVES
from deltaball.training import draws
from deltaball.training.objectives.cross_entropy import CrossEntropy, cross_entropy
from deltaball.training.objectives.inner import ascended, gaussian, noisy
from deltaball.training.objectives.objective import Batch, objective_of

LINEAR = Layers((2, 3, 1), (Flatten(), Dense(3)))
NETWORKS, IMAGES = 2, 20
IN_A_BALL = [name for name, entry in OBJECTIVES.items() if "radius" in entry.axis_names()]
ATTACKING = [name for name in IN_A_BALL if name != "augmented"]
AXES = {
    "noise": "uniform",
    "copies": 2,
    "against": "label",
    "attack_steps": 5,
    "constraint": "standard_robustness",
    "logic": "dl2",
}


def pack() -> Pack:
    random = np.random.default_rng(0)
    weights = [[random.normal(size=(6, 3)).astype(np.float32), np.zeros(3, np.float32)] for _ in range(NETWORKS)]
    return Pack.of(LINEAR, weights)


def batch(radius: float = 0.2, beta: float = 2.0, step: int = 0) -> Batch:
    random = np.random.default_rng(1)
    images = torch.from_numpy(random.random((NETWORKS, IMAGES, 2, 3, 1), dtype=np.float32))
    labels = torch.from_numpy(random.integers(0, 3, (NETWORKS, IMAGES)))
    axes = {"radius": radius, "alpha": 1.0, "beta": beta, "natural_epochs": 0, "ramp_epochs": 0, "kappa": 0.5}
    axes["crown_share"] = 0.0
    taken = torch.tensor([step])
    drawn = draws.Draws(draws.keys(["one", "other"], "cpu"), torch.tensor([0]), taken)
    return Batch(images, labels, {name: torch.full((NETWORKS,), value) for name, value in axes.items()}, drawn)


def loss(name: str, of: Batch, **axes: object) -> torch.Tensor:
    return objective_of({"objective": name, **AXES, **axes})(pack(), of)


def test_an_attack_on_a_linear_network_ends_in_the_corner_that_is_worst() -> None:
    given, radius, networks = batch(), torch.full((NETWORKS,), 0.2), pack()
    # Class 1 less class 0 rises most where each pixel goes along its weight, as far as the ball and [0, 1] let it.
    slope = (networks.weights[0][:, :, 1] - networks.weights[0][:, :, 0]).view(NETWORKS, 1, 2, 3, 1)
    corner = (given.images + 0.2 * slope.sign()).clamp(0, 1)
    found = ascended(
        networks, given, radius, 5, lambda logits, images: logits[..., 1] - logits[..., 0], noisy(given, radius)
    )
    torch.testing.assert_close(found, corner)


def test_noise_stays_in_the_ball_and_is_another_in_every_step() -> None:
    radius = torch.tensor([0.1, 0.3])
    one, other = (noisy(batch(step=step), radius) for step in (0, 1))
    for noise in (one, other):
        apart = (noise - batch().images).abs()
        assert (apart.flatten(1).amax(1) <= radius + 1e-6).all()
        assert (apart.flatten(1).amax(1) > 0.9 * radius).all()
        assert noise.min() >= 0
        assert noise.max() <= 1
    assert (one != other).any()


def test_gaussian_noise_is_normal_and_clipped() -> None:
    drawn = draws.Draws(draws.keys(["one", "other"], "cpu"), torch.tensor([0]), torch.tensor([3]))
    numbers = drawn.normal((40_000,)).numpy()
    assert stats.kstest(numbers[0], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(numbers)[0, 1]) < 0.025
    assert np.isfinite(numbers).all()
    moved = gaussian(batch(), torch.tensor([0.0, 0.1]))
    assert torch.equal(moved[0], batch().images[0])
    inside = (batch().images[1] > 0.4) & (batch().images[1] < 0.6)
    assert (moved[1] - batch().images[1])[inside].std().item() == pytest.approx(0.1, abs=0.05)
    for size in (0.1, 5.0):
        far = gaussian(batch(), torch.full((NETWORKS,), size))
        assert far.min() >= 0
        assert far.max() <= 1
    assert (loss("augmented", batch(radius=0.3), noise="gaussian") != CrossEntropy()(pack(), batch())).all()


@pytest.mark.parametrize("name", IN_A_BALL)
def test_where_nothing_may_move_only_the_loss_at_the_images_is_left(name: str) -> None:
    still = batch(radius=0.0)
    networks = pack()
    plain = cross_entropy(networks(still.images), still.labels)
    if name == "mart":
        softmax = networks(still.images).softmax(-1)
        own = softmax.gather(-1, still.labels[..., None])
        others = softmax.scatter(-1, still.labels[..., None], 0).amax(-1)
        plain = plain - (1 - others).log().mean(1)
        assert own.shape == (NETWORKS, IMAGES, 1)
    torch.testing.assert_close(loss(name, still), plain)


@pytest.mark.parametrize("name", ["constrained", "trades"])
def test_beta_weighs_what_is_added(name: str) -> None:
    none, one, two = (loss(name, batch(beta=beta), constraint="linf(f(x) - f(x0)) <= 0.01") for beta in (0.0, 1.0, 2.0))
    torch.testing.assert_close(none, cross_entropy(pack()(batch().images), batch().labels))
    assert (one > none).all()
    torch.testing.assert_close(two - one, one - none)


def test_an_attack_raises_the_loss_and_a_longer_one_in_a_larger_ball_more() -> None:
    plain = CrossEntropy()(pack(), batch())
    small, large = (loss("adversarial", batch(radius=radius)) for radius in (0.1, 0.3))
    assert (plain < small).all()
    assert (small < large).all()
    # A linear network's loss is worst in a corner, where noise is never.
    assert (loss("augmented", batch(), noise="uniform") < loss("augmented", batch(), noise="fgsm")).all()


def test_against_a_constraint_an_attack_violates_it_and_leaves_the_label_alone() -> None:
    assert (loss("adversarial", batch(), against="standard_robustness") < loss("adversarial", batch())).all()


@pytest.mark.parametrize("name", ATTACKING)
def test_gradients_reach_every_weight(name: str) -> None:
    networks = pack()
    weights = tuple(weight.requires_grad_() for weight in networks.weights)
    objective = objective_of({"objective": name, **AXES, "constraint": "linf(f(x) - f(x0)) <= 0.01"})
    total = objective(Pack(LINEAR, weights), batch())
    for gradient in torch.autograd.grad(total.sum(), weights):
        assert gradient.isfinite().all()
        assert (gradient != 0).any(-1).all()
