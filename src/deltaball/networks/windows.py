"""Windows that slide over images: where they lie, how many there are, and how much of an image each sees. Light."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple


class Sides(NamedTuple):
    """Pixels added around an image."""

    top: int
    bottom: int
    left: int
    right: int


# "same": as many windows as strides begin in the image, padded evenly and if need be by one more after it than before
# (TensorFlow, Keras). "valid": nothing is added.
Padding = Literal["same", "valid"] | tuple[int, int, int, int]  # or the Sides


class Windows(NamedTuple):
    """The windows along one side of an image."""

    pixels: int  # of the image
    before: int  # pixels added
    after: int
    size: int  # pixels of a window
    stride: int
    count: int

    @property
    def reach(self) -> int:
        """Pixels after the image up to the end of the last window, or of what is added."""
        end = (self.count - 1) * self.stride + self.size - self.before - self.pixels
        return max(end, self.after)

    @property
    def seen(self) -> list[int]:
        """How many of the image's own pixels are in each window."""
        return [len(pixels) for pixels in self.pixels_seen]

    @property
    def pixels_seen(self) -> list[list[int]]:
        """Which of the image's own pixels are in each window."""
        starts = (number * self.stride - self.before for number in range(self.count))
        return [[*range(max(start, 0), min(start + self.size, self.pixels))] for start in starts]

    @property
    def covered(self) -> list[int]:
        """How many pixels are in each window, of the image and of what is added, but not beyond."""
        starts = (number * self.stride for number in range(self.count))
        return [min(self.size, self.before + self.pixels + self.after - start) for start in starts]


def windows(shape: Sequence[int], size: int, stride: int, padding: Padding, ceil: bool) -> tuple[Windows, Windows]:
    """The windows along the height and along the width of images of `shape` (height, width, ...).

    With `ceil` a last window may end outside, if it begins inside or in what is added before (torch). There may be
    none, or windows that see nothing: whoever asks decides.
    """
    given = (0, 0, 0, 0) if isinstance(padding, str) else padding
    height, width = zip(shape[:2], (given[:2], given[2:]), strict=True)
    return tuple(_along(*side, size, stride, padding == "same", ceil) for side in (height, width))  # type: ignore[return-value]


def _along(pixels: int, added: tuple[int, int], size: int, stride: int, same: bool, ceil: bool) -> Windows:
    if same:
        count = -(-pixels // stride)
        total = max((count - 1) * stride + size - pixels, 0)
        return Windows(pixels, total // 2, total - total // 2, size, stride, count)
    before, after = added
    left = pixels + before + after - size
    count = (-(-left // stride) if ceil else left // stride) + 1
    if ceil and (count - 1) * stride >= pixels + before:
        count -= 1
    return Windows(pixels, before, after, size, stride, max(count, 0))


def counted(rows: Sequence[int], columns: Sequence[int]) -> list[int]:
    """Pixels of each window, row by row, from those along each side."""
    return [height * width for height, width in product(rows, columns)]


class Round(NamedTuple):
    """One round of a tournament: it leaves the maximum of each pair, and then whoever stood alone."""

    pairs: list[tuple[int, int]]
    alone: list[int]

    @property
    def going_on(self) -> list[int]:
        """The first of each pair, and who stands alone; each once."""
        return [*dict.fromkeys([*(first for first, _ in self.pairs), *self.alone])]


def tournament(groups: Sequence[Sequence[int]]) -> tuple[list[Round], list[int]]:
    """Rounds after which the maximum of each group of numbers is known, and its place among what the last round leaves.

    What several groups have in common is compared once.
    """
    rounds, groups = [], [tuple(group) for group in groups]
    while any(len(group) > 1 for group in groups):
        pairs, alone = dict[tuple[int, int], None](), dict[int, None]()
        for group in groups:
            pairs.update(dict.fromkeys(zip(group[::2], group[1::2], strict=False)))
            alone.update(dict.fromkeys(group[-1:] if len(group) % 2 else ()))
        rounds.append(Round([*pairs], [*alone]))
        place = {who: number for number, who in enumerate([*pairs, *alone])}
        groups = [
            tuple(place[who] for who in [*zip(group[::2], group[1::2], strict=False), *group[len(group) // 2 * 2 :]])
            for group in groups
        ]
    return rounds, [group[0] for group in groups]
