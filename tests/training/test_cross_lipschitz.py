"""Ω against its definition, and of a linear network by hand."""

import numpy as np
import pytest
import torch
from step_cases import SHAPE, SHAPES, made, trained

from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.training import draws
from deltaball.training.objectives.cross_entropy import cross_entropy
from deltaball.training.objectives.objective import Batch, objective_of

# Logits W x with the rows (1, 0), (0, 2) and (1, 2): pairs of rows differ by 1 + 4, 0 + 4 and 1 + 0 in square.
ROWS = [[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]]
OMEGA = 2 * (5 + 4 + 1) / 9


def batch(images: torch.Tensor, beta: float, step: int = 0) -> Batch:
    networks, count = images.shape[:2]
    drawn = draws.Draws(
        draws.keys([f"network {k}" for k in range(networks)], "cpu"), torch.tensor([0]), torch.tensor([step])
    )
    labels = torch.arange(count).remainder(3).expand(networks, count)
    return Batch(images, labels, {"beta": torch.full((networks,), beta)}, drawn)


def penalty(pack: Pack, images: torch.Tensor, slopes: str, step: int = 0) -> torch.Tensor:
    """Ω, as the difference that beta makes."""
    objective = objective_of({"objective": "cross_lipschitz", "slopes": slopes})
    one, none = (objective(pack, batch(images, beta, step)) for beta in (2.0, 0.0))
    torch.testing.assert_close(none, cross_entropy(pack(images), batch(images, 0.0).labels))
    return (one - none).detach() / 2


def test_of_a_linear_network_by_hand():
    weights = [np.float32(ROWS).T.copy(), np.zeros(3, np.float32)]
    pack = Pack.of(Layers((1, 2, 1), (Flatten(), Dense(3))), [weights, [2 * weights[0], weights[1]]])
    images = torch.rand(2, 7, 1, 2, 1, generator=torch.manual_seed(0))
    torch.testing.assert_close(penalty(pack, images, "all"), torch.tensor([OMEGA, 4 * OMEGA]))
    # One image's random combination takes ±(one row less the two others), or 0: a mean over eight signs.
    signs = torch.tensor([[a, b, c] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1)])
    combined = (signs - signs.mean(1, keepdim=True)) @ torch.tensor(ROWS)
    assert 2 / 3 * combined.square().sum(1).mean().item() == pytest.approx(OMEGA)
    seen = penalty(pack, torch.rand(2, 1, 1, 2, 1), "random")[0]
    assert (2 / 3 * combined.square().sum(1) - seen).abs().min() < 1e-5
    found = torch.stack([penalty(pack, images, "random", step) for step in range(300)])
    error = found.std(0) / 300**0.5
    assert ((found.mean(0) - torch.tensor([OMEGA, 4 * OMEGA])).abs() < 4 * error).all()
    assert (error > 0).all()


def test_is_the_definition():
    """1 / (n C²) Σᵢ Σ_{l,m} ‖∇f_l - ∇f_m‖², by the whole Jacobian."""
    network = Layers((3, 2, 1), (Flatten(), Dense(8), Activation("tanh"), Dense(4)))
    pack = Pack.of(network, [initial_weights(network, np.random.default_rng(k)) for k in range(2)])
    images = torch.rand(2, 5, 3, 2, 1, generator=torch.manual_seed(1))
    found = penalty(pack, images, "all")
    for k in range(2):
        total = 0.0
        for image in images[k]:
            jacobian = torch.autograd.functional.jacobian(lambda x, k=k: pack.one(k)(x[None])[0, 0], image).flatten(1)
            total += (jacobian[:, None] - jacobian[None]).square().sum().item()
        assert found[k].item() == pytest.approx(total / (5 * 16), rel=1e-5)


@pytest.mark.parametrize("slopes", ["all", "random"])
def test_training_makes_it_small(slopes: str):
    objective = objective_of({"objective": "cross_lipschitz", "slopes": slopes})
    penalised, rates = made(objective=objective, axes={"beta": [0.0, 0.1, 1.0]})
    plain, _ = made()
    for steps in (penalised, plain):
        trained(steps, rates, 8)
    images = torch.rand(3, 32, *SHAPE, generator=torch.manual_seed(2))
    after = penalty(Pack(SHAPES["fcn"], tuple(penalised.members.weights)), images, "all")
    without = penalty(Pack(SHAPES["fcn"], tuple(plain.members.weights)), images, "all")
    assert after[0].item() == pytest.approx(without[0].item(), rel=1e-4)
    assert (after[1:] < without[1:]).all()
