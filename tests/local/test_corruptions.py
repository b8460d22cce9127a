"""Each corruption against values worked out by hand from its rule; the same images in any batch and any run."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson
from skimage.transform import warp

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.local.corruptions.drawings import line
from deltaball.local.corruptions.warps import warped
from deltaball.local.corruptions.weather import plasma
from deltaball.study.corruptions import CORRUPTIONS, VERSION

DIGESTS = {
    "identity": "0089d41b281a",
    "shot_noise": "65e72bb7c8fc",
    "impulse_noise": "2efe69aece4d",
    "glass_blur": "00e16cde3e9a",
    "motion_blur": "039d44029b6d",
    "shear": "bb0b1c3afda5",
    "scale": "b4f0a86f81c8",
    "rotate": "465cb743e4e2",
    "brightness": "b539b799253b",
    "translate": "b49d1ce5348d",
    "stripe": "d516162d1c91",
    "fog": "3922269d0df5",
    "spatter": "9fb8dd746646",
    "dotted_line": "c6ad41e80e4f",
    "zigzag": "0cb70d493bfc",
    "canny_edges": "24521b3e9436",
}


def plain(value: int, count: int = 1, channels: int = 1, side: int = 28) -> np.ndarray:
    return np.full((count, side, side, channels), value, np.uint8)


def pixel(side: int = 28, at: int = 14) -> np.ndarray:
    image = plain(0, side=side)
    image[0, at, at] = 255
    return image


def drawn(count: int, channels: int = 1, side: int = 28) -> np.ndarray:
    return generator("images", channels, side).integers(0, 256, (count, side, side, channels), np.uint8)


def ramp() -> np.ndarray:
    """Nine per column, from left to right."""
    return np.tile((9 * np.arange(28)).astype(np.uint8), (1, 28, 1))[..., None]


def one(name: str, image: np.ndarray, key: object = 0, severity: int | None = None) -> np.ndarray:
    """The corrupted image [h, w, c] of one image [1, h, w, c]."""
    return corrupted(name, image, [key], severity)[0]


def shown(name: str, image: np.ndarray, key: object = 0, severity: int | None = None) -> np.ndarray:
    """The first channel [h, w]."""
    return one(name, image, key, severity)[..., 0]


def test_identity_and_rounding():
    images = drawn(3, 3, 32)
    np.testing.assert_array_equal(corrupted("identity", images, range(3)), images)
    np.testing.assert_array_equal(as_bytes(np.float32(images) / np.float32(255)), images)
    np.testing.assert_array_equal(as_bytes(np.array([-1, 0.5 / 255, 0.4 / 255, 127.5 / 255, 1.7])), [0, 1, 0, 128, 255])


def test_shot_noise_is_of_three_photons():
    noisy = corrupted("shot_noise", plain(255, 40), range(40))
    counts = np.array([(noisy == value).mean() for value in (0, 85, 170)])
    expected = poisson.pmf([0, 1, 2], 3)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected / noisy.size)).all()
    assert set(np.unique(noisy)) == {0, 85, 170, 255}  # of three and more photons: white
    assert not one("shot_noise", plain(0)).any()
    # Of 60 photons: 50.2 of 51 on the average, where the pixel is 51/255.
    assert corrupted("shot_noise", plain(51, 40), range(40), 1).mean() == pytest.approx(51, abs=0.5)


@pytest.mark.parametrize(("severity", "share"), [(None, 0.17), (1, 0.03), (5, 0.27)])
def test_impulse_noise_is_half_salt_half_pepper(severity: int | None, share: float):
    noisy = corrupted("impulse_noise", plain(100, 40, 3), range(40), severity)
    assert set(np.unique(noisy)) == {0, 100, 255}
    for value in (0, 255):
        assert (noisy == value).mean() == pytest.approx(share / 2, abs=5 * (share / 2 / noisy.size) ** 0.5)
    assert (noisy[..., 0] != noisy[..., 1]).any()


def glass_by_loops(image: np.ndarray, key: object, deviation: float, reach: int, passes: int) -> np.ndarray:
    """MNIST-C's loops over one image [h, w], which is blurred along columns."""
    radius = int(4 * deviation + 0.5)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * deviation**2))

    def blur(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
        rows = [w * padded[i : i + len(values)] for i, w in enumerate(weights / weights.sum())]
        return np.sum(rows, 0)

    values = np.floor(blur(image.astype(float)) + 1e-6)
    size, (height, width) = len(range(28 - reach, reach, -1)), image.shape
    draw = generator("corruption", "glass_blur", key)
    swaps = draw.random((passes, size, size)) < 0.5
    offsets = draw.integers(-reach, reach, (passes, size, size, 2))
    for turn in range(passes):
        for i, row in enumerate(range(height - reach, reach, -1)):
            for j, column in enumerate(range(width - reach, reach, -1)):
                if swaps[turn, i, j]:
                    dx, dy = offsets[turn, i, j]
                    other = values[row + dy, column + dx]
                    values[row + dy, column + dx], values[row, column] = values[row, column], other
    return np.floor(np.clip(blur(values), 0, 255) + 0.5 + 1e-6)


@pytest.mark.parametrize(("severity", "settings"), [(1, (0.7, 1, 2)), (4, (1.1, 3, 2))])
def test_glass_blur_is_what_loops_give(severity: int, settings: tuple[float, int, int]):
    images = drawn(3)
    found = corrupted("glass_blur", images, ["a", "b", "c"], severity)
    for image, key, corrupt in zip(images, "abc", found, strict=True):
        np.testing.assert_array_equal(corrupt[..., 0], glass_by_loops(image[..., 0], key, *settings))


def test_glass_blur_of_colours_blurs_rows_too_and_leaves_a_plain_image():
    first = plain(0, 1, 3)
    first[:, :, 0] = 255
    assert one("glass_blur", first)[:, 1].min() > 0
    # In column 0 nothing is swapped: of one channel it stays what it is.
    assert (one("glass_blur", first[..., :1])[:, 0] == 255).all()
    np.testing.assert_array_equal(one("glass_blur", plain(200, 1, 3)), plain(200, 1, 3)[0])


def test_motion_blur_smears_to_the_left_by_one_sided_weights():
    weights = np.exp(-(np.arange(21) ** 2) / 18)
    weights /= weights.sum()
    assert 255 * weights[0] == pytest.approx(59.86, abs=0.01)
    for key in range(5):
        angle = np.deg2rad(generator("corruption", "motion_blur", key).uniform(-45, 45))
        expected = np.zeros((28, 28))
        for j, weight in enumerate(weights):
            row = 14 - int(np.ceil(j * np.sin(angle) - 0.5))
            column = 14 - int(np.ceil(j * np.cos(angle) - 0.5))
            if min(row, column) >= 0 and max(row, column) < 28:
                expected[row, column] += 255 * weight
        blurred = shown("motion_blur", pixel(), key)
        np.testing.assert_array_equal(blurred, np.floor(expected + 0.5))
        assert blurred[14, 14] == 60
        assert not blurred[:, 15:].any()
    np.testing.assert_array_equal(one("motion_blur", plain(77)), plain(77)[0])  # edges are repeated


@pytest.mark.parametrize("name", ["shear", "rotate"])
def test_a_ramp_is_read_along_the_map(name: str):
    x, y = np.meshgrid(np.arange(28) - 13.5, np.arange(28) - 13.5)
    seen = set()
    for key in range(8):
        found = shown(name, ramp(), key).astype(float)
        for sign in (-1, 1):
            angle = 0.4 * sign
            column = (x if name == "shear" else np.cos(angle) * x) - np.sin(angle) * y + 13.5
            row = np.cos(angle) * y + (0 if name == "shear" else np.sin(angle) * x) + 13.5
            inside = (column >= 0) & (column <= 27) & (row >= 0) & (row <= 27)
            if (np.abs(found - 9 * column)[inside] <= 0.51).all():
                seen.add(sign)
    assert seen == {-1, 1}


def test_a_map_is_that_of_scikit_image_with_0_outside():
    images = drawn(2, 3, 9) / 255
    for matrix, shift in (([[0.9, -0.4], [0.3, 1.2]], (1.3, -2.0)), (np.eye(2), (3, -12)), (np.eye(2) * 2, (-5, -5))):
        whole = np.vstack([np.column_stack([matrix, shift]), [0, 0, 1]])
        ours = warped(images, np.array(matrix), np.array(shift))
        for image, found in zip(images, ours, strict=True):
            np.testing.assert_allclose(found, warp(image, whole, order=1, mode="constant", cval=0), atol=1e-12)


def test_scale_shrinks_a_white_image():
    half = plain(0)
    half[0, 7:21, 7:21] = 255  # 2 x - 13.5 lies in [0, 27] for 7 … 20
    np.testing.assert_array_equal(corrupted("scale", plain(255), [0], 5), half)
    by_default = shown("scale", plain(255))  # by 1/0.7: column 4 is read at -1/14
    assert list(by_default[13, :6]) == [0, 0, 0, 0, round(255 * 13 / 14), 255]
    assert by_default[4, 4] == by_default[23, 23] == round(255 * (13 / 14) ** 2)


def test_translate_goes_to_all_four_corners_by_three_pixels():
    found = {tuple(np.argwhere(shown("translate", pixel(), key))[0]) for key in range(40)}
    assert found == {(row, column) for row in (11, 17) for column in (11, 17)}
    for severity in range(1, 6):  # the severities of one image go one way
        moved = np.argwhere(shown("translate", pixel(), 0, severity))[0] - 14
        assert list(moved) == list(severity * np.sign(np.argwhere(shown("translate", pixel()))[0] - 14))


def test_brightness_moves_the_value_and_keeps_hue_and_saturation():
    greys = plain(0)
    greys[0, 0, :3, 0] = 0, 100, 200
    assert list(shown("brightness", greys)[0, :3]) == [128, 228, 255]
    colours = plain(0, 1, 3)
    colours[0, 0, :2] = (100, 50, 0), (200, 100, 20)
    light = one("brightness", colours, severity=1)  # by 25.5
    assert light[0, :3].tolist() == [[126, 63, 0], [226, 113, 23], [26, 26, 26]]


def test_stripe_inverts_the_outer_quarters():
    striped = shown("stripe", plain(50))
    assert (striped[:, [*range(7), *range(21, 28)]] == 205).all()
    assert (striped[:, 7:21] == 50).all()
    wide = shown("stripe", plain(50, 1, 3, 32))
    assert list(np.flatnonzero(wide[0] == 205)) == [*range(8), *range(24, 32)]


def test_plasma_by_hand_and_in_its_range():
    (centre,), (above,), (left,) = (generator("fog").random((3, 1, 1), np.float32)[..., 0] - 0.5) * 2
    values = np.array([[0, above + centre / 2], [left + centre / 2, centre]])
    expected = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(plasma(generator("fog"), 2, 1.4), expected, atol=1e-6)
    whole = plasma(generator("fog"), 256, 1.4)
    assert (whole.shape, whole.min(), whole.max()) == ((256, 256), 0, 1)
    # Where the map is repeated its neighbours are as close as elsewhere.
    assert np.abs(whole[0] - whole[-1]).mean() < 2 * np.abs(np.diff(whole, axis=0)).mean()


def test_fog_lightens_and_is_bounded_by_the_brightest_pixel():
    assert not one("fog", plain(0)).any()
    for severity, amount in enumerate((1.5, 2, 2.5, 2.5, 3), 1):
        foggy = one("fog", plain(255, 1, 3), severity=severity)
        assert foggy.min() >= np.floor(255 / (1 + amount) + 0.5)
        np.testing.assert_array_equal(foggy[..., 0], foggy[..., 2])
        decay = (2, 2, 1.7, 1.5, 1.4)[severity - 1]
        cloud = plasma(generator("corruption", "fog", 0), 256, decay)[:28, :28].astype(float)
        np.testing.assert_array_equal(foggy[..., 0], np.floor(255 * (1 + amount * cloud) / (1 + amount) + 0.5))


def test_spatter_is_mud_of_at_least_four_fifths():
    dark = corrupted("spatter", plain(0, 20), range(20))
    light = corrupted("spatter", plain(255, 20), range(20))
    drops = dark > 0
    assert 0.01 < drops.mean() < 0.6
    assert dark[drops].min() >= round(0.8 * 63)
    assert dark.max() <= 63
    assert (light[~drops] == 255).all()
    assert light[drops].max() <= 255 - 0.8 * (255 - 63) + 0.5
    brown = one("spatter", plain(0, 1, 3)).reshape(-1, 3) / [63, 42, 20]
    assert brown.max() > 0.8
    assert np.ptp(brown, axis=1).max() < 0.5 / 20 + 0.5 / 42


def test_a_line_fades_with_its_distance():
    drawn_line = line((0, 5), (27, 5), 28, 28)
    assert drawn_line[5, 0] == 1
    assert drawn_line[[4, 6], 13] == pytest.approx(1 + np.log(1 - 1 / 2.3))
    assert not drawn_line[[3, 7]].any()
    assert not drawn_line[:, 27].any()
    steep = line((2, 0), (6, 8), 28, 28)
    assert [int(steep[:, column].argmax()) for column in range(2, 6)] == [0, 2, 4, 6]


@pytest.mark.parametrize("side", [28, 32])
def test_a_dotted_line_has_every_other_pair_of_columns(side: int):
    for key in range(5):
        lined = shown("dotted_line", plain(0, side=side), key)
        first, last = generator("corruption", "dotted_line", key).integers(0, side - 1, 2)
        kept = [column for column in range(side - 1) if column % 4 in (2, 3)]
        assert list(np.flatnonzero(lined.any(0))) == kept
        rows = first + (last - first) / (side - 1) * np.array(kept)
        nearest = np.abs(lined[:, kept].argmax(0) - rows)
        assert nearest.max() <= 0.5 + 1e-9


def test_a_level_zigzag_by_hand():
    rises = {}
    for key in range(200):
        draw = generator("corruption", "zigzag", key)
        rises[key] = (int(draw.integers(0, 27)), int(draw.integers(-5, 5)))
    assert {rise for _, rise in rises.values()} == set(range(-5, 5))
    key, start = next((key, start) for key, (start, rise) in rises.items() if rise == 0 and 3 <= start <= 24)
    zigzag = shown("zigzag", plain(0), key)
    # Up and down by two: at columns 4, 12, 20 two rows below, at 8, 16, 24 two rows above.
    for column, row in {2: 0, 3: 1, 4: 2, 6: 0, 8: -2, 10: 0, 12: 2, 16: -2, 20: 2, 22: 0, 24: -2}.items():
        assert zigzag[start + row, column] == 255
        assert zigzag[start + row - 1, column] == round(255 * (1 + np.log(1 - 1 / 2.3)))
    assert not zigzag[:, [0, 1, 25, 26, 27]].any()


def test_canny_finds_the_edge_and_nothing_else():
    halves = plain(0, 1, 3)
    halves[0, :, 14:] = 255
    edges = one("canny_edges", halves)
    assert set(np.unique(edges)) == {0, 255}
    assert set(np.flatnonzero(edges[..., 0].any(0))) <= {13, 14}
    assert (edges[5:23].max((1, 2)) == 255).all()
    np.testing.assert_array_equal(edges[..., 0], edges[..., 2])
    assert not one("canny_edges", plain(90)).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_an_image_is_corrupted_alike_in_any_company(name: str, channels: int, side: int):
    images = drawn(5, channels, side)
    whole = corrupted(name, images, range(5))
    assert (whole.shape, whole.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(corrupted(name, images[[3, 1]], [3, 1]), whole[[3, 1]])
    if name not in ("identity", "stripe", "scale", "brightness", "canny_edges"):
        others = corrupted(name, images[[0] * 9], [f"another {i}" for i in range(9)])
        assert (others != whole[0]).any()
    if name != "identity":
        assert (whole != images).any()


def test_images_that_change_are_of_another_version():
    """Kept images and outcomes are those of a version: where a digest changes, so must that of its corruption."""
    images = np.concatenate([ramp(), ramp().transpose(0, 2, 1, 3), pixel()])
    digests = {
        name: hashlib.sha256(corrupted(name, images, range(3)).tobytes()).hexdigest()[:12] for name in CORRUPTIONS
    }
    assert digests == DIGESTS
    assert {VERSION, *(entry.version for entry in CORRUPTIONS.values())} == {1}


def test_kept_images_are_read_and_damaged_ones_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = drawn(3)
    made = corrupted("fog", images, range(3), folder=tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(corrupted("fog", images, range(3), folder=tmp_path), made)
    assert path.stat().st_mtime_ns == written
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(corrupted("fog", images, range(3), folder=tmp_path), made)
    assert "made again" in capsys.readouterr().out
    # Other images, keys and severities are other files.
    corrupted("fog", images[::-1], range(3), folder=tmp_path)
    corrupted("fog", images, range(1, 4), folder=tmp_path)
    corrupted("fog", images, range(3), 4, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_images_that_are_too_small_are_refused():
    with pytest.raises(InputError, match=r"^corruption zigzag: images are 7×7; it takes 8×8 or more$"):
        corrupted("zigzag", plain(0, side=7), [0])
    for name in CORRUPTIONS:
        assert one(name, plain(9, 1, 4, 8)).shape == (8, 8, 4)
