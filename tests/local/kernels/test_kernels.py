"""Images drawn from kernels: their distributions, and that they belong to the point alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import deep_pack, digits
from scipy import stats

from deltaball.base.draws import generator
from deltaball.local.balls import Ball
from deltaball.local.judges import judge
from deltaball.local.kernels.gaussian import Gaussian, GaussianClipped
from deltaball.local.kernels.kernel import Kernel, Sized, kernel
from deltaball.local.kernels.known import Known
from deltaball.local.kernels.near import Near
from deltaball.local.kernels.on_manifold import OnManifold
from deltaball.local.kernels.uniform import Uniform, UniformClipped
from deltaball.local.notions import ClassChange
from deltaball.networks.autoencoders import AutoEncoder, drawn_weights
from deltaball.networks.coders import Coders
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.study.kernels import KERNELS, ChosenKernel

EACH: dict[str, Kernel] = {
    "uniform": Uniform(0.3),
    "gaussian": Gaussian(0.3),
    "gaussian_clipped": GaussianClipped(0.3),
    **{f"uniform_clipped in {norm}": UniformClipped(0.3, norm=norm) for norm in ("linf", "l2", "l1")},
    "reciprocal": Gaussian(0.3, "reciprocal", 0.01),
    "evenly": UniformClipped(0.3, "uniform", norm="l2"),
}


class Pixels:
    """An auto-encoder that loses nothing: an image's code is its pixels."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.unflatten(1, self.shape)


NOTHING = np.empty(0)
ON_MANIFOLD = OnManifold(2.0, known=Known(NOTHING, NOTHING, autoencoders={"own": Pixels(1, 1, 1)}), autoencoder="own")
PIXEL = torch.full((2000, 1, 1, 1), 0.5)  # a point of one pixel, many times: each has draws of its own


def drawn(one: Kernel, x: torch.Tensor, count: int = 1) -> np.ndarray:
    return one.sample(x, range(len(x)), count).numpy().astype(np.float64)


@pytest.mark.parametrize("one", EACH.values(), ids=EACH)
def test_draws_belong_to_the_point_whatever_stands_beside_it(one: Kernel):
    x = digits(5)
    whole = one.sample(x, range(5), 4)
    assert whole.shape == (5, 4, *x.shape[1:])
    assert whole.dtype == torch.float32
    assert torch.equal(one.sample(x[3:4], [3], 2)[0], whole[3, :2])
    assert not torch.equal(whole[0, 0] - x[0], whole[0, 1] - x[0])
    # The same image under another number is moved otherwise.
    assert not torch.equal(one.sample(x[:1], [7], 1), one.sample(x[:1], [0], 1))


def test_draws_are_the_same_on_every_machine():
    x = torch.full((1, 1, 2, 1), 0.5)
    for one, expected in (
        (Uniform(0.25), [0.3899, 0.3960]),
        (Gaussian(0.25), [-0.2147, 0.9577]),
        (UniformClipped(0.25, norm="l2"), [0.6592, 0.3494]),
    ):
        assert one.sample(x, [0], 1).flatten().tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("one", "law"),
    [
        (Uniform(0.2), stats.uniform(0.3, 0.4)),
        (Uniform(0.8), stats.uniform(0, 1)),  # [-0.3, 1.3] is cut
        (Gaussian(2.0), stats.norm(0.5, 2.0)),
        (ON_MANIFOLD, stats.norm(0.5, 2.0)),  # of codes
        (UniformClipped(0.2, norm="l1"), stats.uniform(0.3, 0.4)),
        (UniformClipped(0.2, norm="l2"), stats.uniform(0.3, 0.4)),
    ],
)
def test_a_pixel_is_distributed_as_it_is_said(one: Kernel, law: stats.rv_continuous):
    assert stats.kstest(drawn(one, PIXEL).ravel(), law.cdf).pvalue > 1e-3


def test_clipping_piles_up_where_the_ball_is_cut():
    for one, share in ((UniformClipped(0.8), 0.375), (GaussianClipped(0.5), 2 * stats.norm.cdf(-1))):
        found = drawn(one, PIXEL)
        assert np.isin(found, (0, 1)).mean() == pytest.approx(share, abs=0.05)
        assert ((found >= 0) & (found <= 1)).all()
    assert not np.isin(drawn(Uniform(0.8), PIXEL), (0, 1)).any()


@pytest.mark.parametrize(("norm", "power"), [("linf", 12), ("l2", 12), ("l1", 12)])
def test_a_whole_ball_is_filled_evenly(norm: str, power: int):
    x = torch.full((1500, 2, 3, 2), 0.5)
    distance = Ball(norm, 0.4).around(x).distance(torch.from_numpy(drawn(UniformClipped(0.4, norm=norm), x)[:, 0]))
    # Of a ball in 12 dimensions the share (r / δ)¹² lies within r.
    assert stats.kstest((distance.numpy() / 0.4) ** power, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("one", "law"),
    [
        (UniformClipped(0.4, "uniform", 0.1), stats.uniform(0.1, 0.3)),
        (UniformClipped(0.4, "reciprocal", 0.1), stats.loguniform(0.1, 0.4)),
    ],
)
def test_a_family_draws_its_size(one: Sized, law: stats.rv_continuous):
    x, whole = PIXEL, UniformClipped(0.4)
    sizes = 0.4 * (drawn(one, x) - 0.5) / (drawn(whole, x) - 0.5)
    assert stats.kstest(sizes.ravel(), law.cdf).pvalue > 1e-3


def test_on_the_manifold_images_are_decoded_codes_with_noise():
    coders = Coders((8, 8, 1), latent=3, filters=2)
    model = AutoEncoder.of(coders, drawn_weights(coders, np.random.default_rng(0)))
    known, x = Known(np.empty(0), np.empty(0), autoencoders={"own": model}), digits(32)
    near, far = (OnManifold(size, known=known, autoencoder="own").sample(x, range(32), 2) for size in (1e-6, 1.0))
    reconstructed = model.decode(model.encode(x))
    torch.testing.assert_close(near[:, 0], reconstructed, atol=1e-5, rtol=0)
    noise = np.stack([generator("on manifold", key).standard_normal((2, 3), dtype=np.float32) for key in range(32)])
    for draw in range(2):
        torch.testing.assert_close(far[:, draw], model.decode(model.encode(x) + torch.from_numpy(noise[:, draw])))
    assert 0 < far.min() < far.max() < 1
    # The same beside others, as many as measuring looks at together.
    both, keys = torch.cat([digits(32, 1), x]), [*range(64, 96), *range(32)]
    whole = OnManifold(1.0, known=known, autoencoder="own").sample(both, keys, 2)
    torch.testing.assert_close(whole[32:], far, atol=1e-6, rtol=0)
    reciprocal = OnManifold(1.0, "reciprocal", 0.01, known=known, autoencoder="own").sample(x, range(32), 2)
    apart = [(one - reconstructed[:, None]).square().mean() for one in (reciprocal, far)]
    assert 0 < apart[0] < apart[1]


def test_of_another_size_images_are_the_same_but_for_how_far_they_are_moved():
    x = digits(2)
    near, far = (drawn(Gaussian(sigma), x) - x[:, None].numpy() for sigma in (0.1, 0.3))
    np.testing.assert_allclose(3 * near, far, atol=1e-5)


def test_a_kernel_of_the_table_is_what_it_says():
    sizes = {"delta": 0.1, "sigma": 0.2}
    for entry in (one for one in KERNELS.values() if one.size):
        own = [("autoencoder", "pixels")] if entry.of_codes else []
        chosen = ChosenKernel(entry.name, (*((key, sizes[key]) for key in [entry.size]), *own))
        found = kernel(chosen)
        assert found.size == chosen.size == sizes[entry.size]
        assert chosen.label == "_".join([entry.name, str(chosen.size), *(value for _, value in own)])
        if chosen.needs_images:
            coders = {"pixels": Pixels(8, 8, 1)}
            found = kernel(chosen, Known(digits(9).numpy(), np.arange(9), autoencoders=coders))
        x = digits(2)
        assert found.sample(x, range(2), 3).shape == (2, 3, *x.shape[1:])


def test_images_uniform_in_a_ball_are_those_that_sampling_uniform_looks_at():
    pack, x = deep_pack(2, "relu", "fcn", 2.0), digits(4)
    ((_, _, of_ball),) = judge("uniform", draws=20)(pack, x, {Ball("linf", 0.2): [ClassChange()]}, range(4))
    ((_, _, of_kernel),) = judge("mean", draws=20)(pack, x, {Uniform(0.2): [ClassChange()]}, range(4))
    assert torch.equal(of_ball.outcome, of_kernel.outcome)
    assert 0 < of_ball.outcome.mean() < 1


@pytest.mark.parametrize("one", EACH.values(), ids=EACH)
def test_a_constant_classifier_keeps_the_class_of_every_image(one: Kernel):
    x = digits(4)
    constant = [np.zeros((x[0].numel(), 3), np.float32), np.float32([0, 1, 0])]
    pack = Pack.of(Layers(tuple(x.shape[1:]), (Flatten(), Dense(3))), [constant])
    ((_, _, found),) = judge("mean", draws=5)(pack, x, {one: [ClassChange()]}, range(4))
    assert (found.outcome == 1).all()


def test_around_points_of_the_cube_the_class_is_that_of_the_point_drawn():
    # Class 0 from 0.5 on. Of x uniform in [0, 1] and x' uniform within 0.2 of it, the class changes with probability
    # 2 ∫₀^.2 (.2 - t) / .4 dt = 0.1, whatever the test images are.
    pixel = Pack.of(Layers((1, 1, 1), (Flatten(), Dense(2))), [[np.float32([[4, 0]]), np.float32([-2, 0])]])
    x, asked = torch.zeros(3000, 1, 1, 1), {Uniform(0.2, around="cube"): [ClassChange()]}
    ((_, _, found),) = judge("mean", draws=5)(pixel, x, asked, range(3000))
    # Within 0.2 of 0 and 1 intervals are cut, far from where classes change.
    assert found.outcome.mean().item() == pytest.approx(0.9, abs=0.015)
    points = Uniform(0.2, around="cube").points(x, range(3000))
    assert stats.kstest(points.flatten().numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(points, Gaussian(0.1, around="cube").points(x + 1, range(3000)))


# Training images of one pixel, and what they are.
SHADES = Known(np.float32([0.1, 0.3, 0.45, 0.7]).reshape(4, 1, 1, 1), np.array([0, 1, 0, 1]))


def near(x: float, label: int, **settings: float | str) -> np.ndarray:
    known = replace(SHADES, of_points=np.full(400, label))
    return drawn(Near(known=known, **settings), torch.full((400, 1, 1, 1), x), 5).ravel()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 0.16}, [0.3, 0.45]),
        ({"size": 1.0}, [0.1, 0.3, 0.45, 0.7]),
        ({"size": 0.16, "labels": "kept"}, [0.45]),
        ({"size": 0.02}, [0.4]),  # the point itself
        ({"size": 0.02, "empty": "nearest"}, [0.45]),
        ({"size": 0.02, "empty": "nearest", "labels": "kept"}, [0.45]),
    ],
)
def test_training_images_in_a_ball_are_equally_likely(settings: dict, expected: list[float]):
    found, counts = np.unique(near(0.4, 0, **settings), return_counts=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert stats.chisquare(counts).pvalue > 1e-3 or len(counts) == 1


def test_of_a_drawn_radius_the_nearest_are_drawn_most():
    found = near(0.4, 0, size=0.4, density="reciprocal", least=0.04)
    # Of ln 10, ln(.05 / .04) holds no image, ln(.1 / .05) one, ln 3 two, and ln(.4 / .3) all four.
    whole = np.log(10)
    shares = {
        0.4: np.log(1.25) / whole,
        0.45: (np.log(2) + np.log(3) / 2 + np.log(4 / 3) / 4) / whole,
        0.3: (np.log(3) / 2 + np.log(4 / 3) / 4) / whole,
        0.1: np.log(4 / 3) / 4 / whole,
        0.7: np.log(4 / 3) / 4 / whole,
    }
    assert sum(shares.values()) == pytest.approx(1)
    # Both 0.1 and 0.7 are 0.3 away.
    counts = [np.isclose(found, one).sum() for one in shares]
    assert sum(counts) == len(found)
    assert stats.chisquare(counts, [len(found) * one for one in shares.values()]).pvalue > 1e-3


def test_noise_that_keeps_the_label_stays_where_no_other_label_is_nearer():
    x = torch.full((400, 1, 1, 1), 0.4)
    known = replace(SHADES, of_points=np.zeros(400, np.int64))
    found = drawn(Uniform(0.4, labels="kept", known=known), x).ravel()
    # Nearer to .3 than to .1 and to .4, or to .7 than to .45: of label 1.
    assert stats.kstest(found, kept_law).pvalue > 1e-3
    free = drawn(Uniform(0.4), x).ravel()
    agreeing = ((free < 0.2) | ((free > 0.35) & (free < 0.575))).mean()
    assert agreeing == pytest.approx((0.2 + 0.225) / 0.8, abs=0.08)


def kept_law(one: np.ndarray) -> np.ndarray:
    """The distribution function of uniform numbers of [0, .2] and [.35, .575]."""
    return (np.clip(one, 0, 0.2) + np.clip(one - 0.35, 0, 0.225)) / 0.425


def test_labels_are_kept_of_images_too():
    x, known = digits(6), Known(digits(40).numpy(), np.arange(40) % 3, np.arange(6) % 3)
    kernel_ = Gaussian(0.5, labels="kept", known=known)
    images = kernel_.sample(x, range(6), 3)
    assert torch.equal(kernel_.sample(x, range(6), 2), images[:, :2])
    for drawn_ in images.transpose(0, 1).numpy():
        distances = np.linalg.norm(known.images.reshape(40, -1) - drawn_.reshape(6, 1, -1), axis=-1)
        others = known.labels != known.of_points[:, None]
        own = np.minimum(
            np.where(others, np.inf, distances).min(1), np.linalg.norm((drawn_ - x.numpy()).reshape(6, -1), axis=1)
        )
        assert (own <= np.where(others, distances, np.inf).min(1) + 1e-6).all()
