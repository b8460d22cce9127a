"""Steps and retractions in float32, and iterates that are brought back into balls."""

import pytest
import torch
from attack_cases import NORMS, SHAPE, images

from deltaball.local.balls import GEOMETRY, Ball


def test_an_l1_step_moves_the_steepest_pixels_that_can_move():
    x = torch.tensor([1.0] * 8 + [0.5, 0.5, 0.5, 0.0]).reshape(1, 1, *SHAPE)
    gradient = torch.tensor([9.0] * 8 + [4.0, -3.0, 2.0, -5.0]).reshape(x.shape)
    for length, moved in ((0.2, [0.7, 0.5, 0.5]), (0.8, [1.0, 0.2, 0.5]), (9.0, [1.0, 0.0, 1.0])):
        stepped = GEOMETRY["l1"].stepped(x, gradient.clone(), length).flatten()
        torch.testing.assert_close(stepped, torch.tensor([1.0] * 8 + [*moved, 0.0]))


@pytest.mark.parametrize("length", [0.3, torch.tensor([[0.3, 0.3]])])
def test_a_step_has_its_length(length: float | torch.Tensor):
    x, gradient = torch.full((1, 2, *SHAPE), 0.5), torch.randn(1, 2, *SHAPE, generator=torch.manual_seed(0))
    for norm in NORMS:
        for scale in (1.0, 1e-30, 1e30):
            moved = GEOMETRY[norm].stepped(x, scale * gradient, length) - x
            torch.testing.assert_close(GEOMETRY[norm].length(moved), torch.full((1, 2), 0.3))
            assert (moved * gradient >= 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.5, 3.0])
def test_a_retracted_image_is_inside_and_one_inside_stays(norm: str, radius: float):
    x = images(50)
    around = Ball(norm, radius).around(x)
    for scale in (0.01, 0.1, 1.0):
        beyond = x + scale * torch.randn(x.shape, generator=torch.manual_seed(0))
        found = GEOMETRY[norm].retracted(beyond[None].clone(), x[None], radius)[0]
        assert 0 <= found.min()
        assert found.max() <= 1
        assert (around.distance(found) <= radius * (1 + 1e-5) + 1e-6).all()
        inside = around.contains(beyond)
        torch.testing.assert_close(found[inside], beyond[inside], atol=1e-6, rtol=0)
        outside = around.distance(beyond.clamp(0, 1)) > radius
        assert (around.distance(found)[outside] >= 0.999 * radius - 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("radius", [1e-6, 0.01, 0.1, 2.0])
def test_an_iterate_is_brought_back_inside_and_some_points_are_all_points_alone(norm: str, radius: float):
    x = images(50)
    around = Ball(norm, radius).around(x)
    for scale in (0.01, 0.1, 1.0):
        beyond = x + scale * torch.randn(2, *x.shape, generator=torch.manual_seed(0))
        found = around.returned(beyond.clone())
        assert around.contains(found).all()
        chosen = torch.tensor([[3, 1, 40], [7, 7, 0]])
        some = torch.stack([each[rows] for each, rows in zip(beyond, chosen, strict=True)])
        expected = torch.stack([each[rows] for each, rows in zip(found, chosen, strict=True)])
        assert torch.equal(around.at(chosen).returned(some), expected)
