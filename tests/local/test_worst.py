"""The worst case of what is drawn: R1 of a linear classifier, and images whose label has changed do not count."""

import numpy as np
import pytest
import torch

from deltaball.local.kernels.known import Known
from deltaball.local.kernels.uniform import Uniform, UniformClipped
from deltaball.local.notions import ClassChange, Margin
from deltaball.local.worst import Worst
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack


def split(*borders: float) -> Pack:
    """Networks of one pixel, whose class is 0 below a border and 1 above."""
    weights = [[np.float32([[-50, 50]]), np.float32([50 * one, -50 * one])] for one in borders]
    return Pack.of(Layers((1, 1, 1), (Flatten(), Dense(2))), weights)


@pytest.mark.parametrize("kernel", [UniformClipped(1.0, norm="l2", around="cube"), Uniform(1.0, around="cube")])
def test_the_mean_margin_of_uniform_images_is_r1(kernel: UniformClipped | Uniform) -> None:
    count = 512
    x = torch.full((count, 1, 1, 1), 0.9)  # where the test images are has no say
    drawn = kernel.points(x, range(count)).flatten()
    ((around, _, found),) = Worst()(split(0.5, 0.75), x, {kernel: [Margin(1.0)]}, range(count))
    assert around is kernel
    for own, border in zip(found.outcome, (0.5, 0.75), strict=True):
        torch.testing.assert_close(own, (drawn - border).abs(), rtol=0, atol=1e-3)
    # ∫ |x - b| dx over [0, 1]
    assert found.outcome.mean(1).tolist() == pytest.approx([0.25, 0.3125], abs=0.02)


def test_a_violation_of_another_label_does_not_count() -> None:
    """Of one pixel, the label changes at 0.5, between the training images 0.1 and 0.9; the class at 0.6."""
    x = torch.tensor([0.55, 0.25, 0.45]).view(3, 1, 1, 1).repeat_interleave(32, 0)
    labels = np.repeat([1, 0, 0], 32)
    known = Known(np.float32([0.1, 0.9]).reshape(2, 1, 1, 1), np.array([0, 1]), labels)
    kept = UniformClipped(0.5, labels="kept", norm="l2", known=known)
    asked = {UniformClipped(0.5, norm="l2"): [Margin(0.5)], kept: [Margin(0.5), ClassChange()]}
    found = [verdict.outcome[0, ::32].tolist() for _, _, verdict in Worst()(split(0.6), x, asked, range(96))]
    assert found[0] == pytest.approx([0.05, 0.35, 0.15], abs=1e-3)
    # 0.6 is nearer to 0.9 than to 0.25; to 0.45, which has label 0, it is nearer still.
    assert found[1] == pytest.approx([0.05, 0.5, 0.15], abs=1e-3)
    assert found[2] == [0, 1, 0]
