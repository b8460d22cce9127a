"""Affine maps of the plane (MNIST-C's ``shear``, ``scale``, ``rotate`` and ``translate``).

A pixel (x, y), column and row, of the new image is read from M (x, y) of the old one; between pixels values are
interpolated linearly, and outside the image all is 0. The image's centre stays where it is, but for translations.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

# radians
ANGLES = (0.2, 0.4, 0.6, 0.8, 1.0)


def shear(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """M = [[1, -sin a], [0, cos a]] with a to either side; MNIST-C's scikit-image so defined a shear."""
    angle, signs = ANGLES[severity - 1], _signs(draws)
    return _centred(images, signs, lambda sign: [[1, -np.sin(sign * angle)], [0, np.cos(sign * angle)]])


def rotate(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """M is the rotation by an angle a to either side."""
    angle, signs = ANGLES[severity - 1], _signs(draws)
    cosine, sine = np.cos(angle), np.sin(angle)
    return _centred(images, signs, lambda sign: [[cosine, -sign * sine], [sign * sine, cosine]])


def scale(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """The image shrunk to .9 … .5 of its size, on black."""
    size = (0.9, 0.8, 0.7, 0.6, 0.5)[severity - 1]
    return _centred(images, np.ones(len(images)), lambda sign: [[1 / size, 0], [0, 1 / size]])


def translate(images: np.ndarray, draws: Sequence[Generator], severity: int) -> np.ndarray:
    """The image moved by `severity` pixels to the left or right, and as many up or down."""
    shifts = severity * np.stack([one.choice([-1, 1], 2) for one in draws])
    moved = np.empty_like(images)
    for shift in np.unique(shifts, axis=0):
        of_it = (shifts == shift).all(1)
        moved[of_it] = warped(images[of_it], np.eye(2), shift)
    return moved


def warped(images: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Images [n, h, w, c], whose pixel (x, y) is that of the old ones at matrix (x, y) + shift."""
    height, width = images.shape[1:3]
    y, x = np.mgrid[:height, :width]
    x, y = (row[0] * x + row[1] * y + move for row, move in zip(np.asarray(matrix), shift, strict=True))
    # One pixel of 0 around the image is enough: what lies further outside is read there too.
    x, y = np.clip(x, -1, width), np.clip(y, -1, height)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, lower_share = ((x - left)[..., None], (y - top)[..., None])
    around = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)))

    def row(down: int) -> np.ndarray:
        pixels = around[:, top + 1 + down, left + 1] * (1 - right_share)
        return pixels + around[:, top + 1 + down, left + 2] * right_share

    return row(0) * (1 - lower_share) + row(1) * lower_share


def _signs(draws: Sequence[Generator]) -> np.ndarray:
    return np.array([one.choice([-1, 1]) for one in draws])


def _centred(images: np.ndarray, signs: np.ndarray, matrix_of: Callable[[float], list]) -> np.ndarray:
    centre = (np.array(images.shape[2:0:-1]) - 1) / 2
    new = np.empty_like(images)
    for sign in np.unique(signs):
        matrix = np.array(matrix_of(sign), dtype=float)
        new[signs == sign] = warped(images[signs == sign], matrix, centre - matrix @ centre)
    return new
