"""The attack by one linearisation against values worked out by hand and the exact distances of linear networks."""

import numpy as np
import pytest
import torch
from attack_cases import LARGEST, NORMS, SHAPE, hand_pack, images, linear_pack, one_found, scores

from deltaball.local.attacks.bg import Bg
from deltaball.local.attacks.closest import NearestViolation
from deltaball.local.attacks.ensemble import Ensemble
from deltaball.local.balls import GEOMETRY, Ball
from deltaball.local.notions import Margin
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack


def two_pixels(*rows: tuple[float, float], bias: tuple[float, ...]) -> Pack:
    """A linear network of two pixels: each class's row, and the biases."""
    weights = [np.float32(rows).T.copy(), np.float32(bias)]
    return Pack.of(Layers((1, 2, 1), (Flatten(), Dense(len(rows)))), [weights])


@pytest.mark.parametrize(
    ("norm", "gain", "moved"),
    [
        # From (0.9, 0.5) along (3, 1) the first pixel has room for 0.1. Free, 0.32 is gained by …
        ("l2", 0.32, (0.096, 0.032)),
        ("linf", 0.32, (0.08, 0.08)),
        ("l1", 0.32, (0.1, 0.02)),
        # … but of 0.5 the first pixel can give 0.3 at most, and the second gives the rest.
        ("l2", 0.5, (0.1, 0.2)),
        ("linf", 0.5, (0.1, 0.2)),
        ("l1", 0.5, (0.1, 0.2)),
        # In [0, 1] no image gains more than 0.8: the corner gains most.
        *((norm, 0.9, (0.1, 0.5)) for norm in NORMS),
        *((norm, 0.0, (0.0, 0.0)) for norm in NORMS),
    ],
)
def test_the_closest_image_that_gains_so_much_by_hand(norm: str, gain: float, moved: tuple[float, float]):
    x, slope = torch.tensor([0.9, 0.5]).view(1, 1, 2, 1), torch.tensor([3.0, 1.0]).view(1, 1, 2, 1)
    around = Ball(norm, 0.01).around(x)
    level = around.level(slope, torch.tensor([gain]))
    assert level.isinf().item() == (gain == 0.9)
    torch.testing.assert_close((around.along(slope, level) - x).flatten(), torch.tensor(moved), atol=1e-6, rtol=0)
    if gain not in (0.0, 0.9):
        # Down instead of up: the mirror image.
        mirrored = Ball(norm, 0.01).around(1 - x)
        down = mirrored.along(-slope, mirrored.level(-slope, torch.tensor([gain])))
        torch.testing.assert_close(down, 1 - around.along(slope, level), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("norm", "distance"), [("l2", (0.096**2 + 0.032**2) ** 0.5), ("linf", 0.08), ("l1", 0.12)])
def test_a_linear_network_of_two_pixels_by_hand(norm: str, distance: float):
    """At (0.9, 0.5) class 0 leads class 1, of row (3, 1), by 0.32; class 2 is the runner-up but cannot be reached."""
    pack = two_pixels((0, 0), (3, 1), (0, 0.01), bias=(3.52, 0, 3.5))
    found = one_found(Bg(), pack, torch.tensor([0.9, 0.5]).view(1, 1, 2, 1), Ball(norm, LARGEST[norm]), Margin(1.0))
    assert found.outcome.item() == pytest.approx(distance, abs=3e-5)


@pytest.mark.parametrize("attack", [Bg(), Ensemble(4, 4)], ids=["bg", "ensemble"])
@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_network_the_distance_is_exact(attack: NearestViolation, norm: str):
    """The smallest radius at which another class's lead can be 0 in the ball, by bisection."""
    pack, x, most = linear_pack(4, 2), images(64), LARGEST[norm]
    found = one_found(attack, pack, x, Ball(norm, most), Margin(most)).outcome
    for k in range(2):
        kernel, logits = pack.weights[0][k].numpy().astype(np.float64), scores(pack, k)(x.flatten(1).double().numpy())
        own = logits.argmax(1)
        rows = kernel[:, own].T[:, None] - kernel.T[None]  # of the own class's lead over each, by point
        leads = np.take_along_axis(logits, own[:, None], 1) - logits
        leads[np.arange(64), own] = np.inf
        near, far = np.zeros(64), np.full(64, most)
        for _ in range(50):
            middle = (near + far) / 2
            around = GEOMETRY[norm](x, torch.from_numpy(middle))
            least = (leads + around.minimum(torch.from_numpy(rows)).numpy()).min(1)
            near, far = np.where(least > 0, middle, near), np.where(least > 0, far, middle)
        np.testing.assert_allclose(found[k].numpy(), far, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_a_net_of_one_hidden_unit_by_hand(norm: str):
    """relu(4 x - 1) > 1 exactly for x > ½. Where the unit is off, at x < ¼, no way leads anywhere."""
    x = torch.tensor([0.2, 0.3, 0.49, 0.6, 1.0]).reshape(-1, 1, 1, 1)
    found = one_found(Bg(), hand_pack(4.0, -1.0), x, Ball(norm, 1.0), Margin(1.0))
    torch.testing.assert_close(found.outcome[0], torch.tensor([1.0, 0.2, 0.01, 0.1, 0.5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("slopes", "border", "distance"),
    [
        ((2.0, -1.0), 1.45, 0.2),  # slope 2 up to 0.65, then 1: the linear network's 0.125 is too short
        ((1.0, 3.0), 1.0, 0.1375),  # slope 1, then 4: its 0.4 is too far
        ((1.0, -1.0), 1.0, 1.0),  # flat from 0.65 on: there is no way
        ((1.0, -2.0), 0.64, 0.04),  # up to 0.65, then down: the first border counts, and not the second, at 0.66
    ],
)
def test_the_way_is_followed_to_where_the_class_changes(slopes: tuple[float, float], border: float, distance: float):
    """Logits (border, a x + b relu(x - 0.65)), from x = 0.6."""
    a, b = slopes
    weights = [[[1.0, 1.0]], [0.0, -0.65], [[0.0, a], [0.0, b]], [border, 0.0]]
    network = Layers((1, 1, 1), (Flatten(), Dense(2), Activation("relu"), Dense(2)))
    pack, x = Pack.of(network, [[np.float32(one) for one in weights]]), torch.tensor([0.6]).view(1, 1, 1, 1)
    found = one_found(Bg(), pack, x, Ball("linf", 1.0), Margin(1.0))
    assert found.outcome.item() == pytest.approx(distance, abs=1e-5)


def test_images_have_the_shape_of_the_points():
    found = one_found(Bg(), linear_pack(3, 2), images(32), Ball("l2", 1.0), Margin(1.0))
    assert found.perturbed.shape == (2, 32, *SHAPE)
