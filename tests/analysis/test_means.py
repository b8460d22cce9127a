"""Means over trainings that share their test points: what their differences cover, and what is known of no points."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaball.analysis.means import AT_POINTS, combined, difference, joined_points, mean, with_points


def trained(outcomes: Sequence[np.ndarray], cut: float = 1.0) -> pd.DataFrame:
    """A row per network of a training, each a trajectory of its own, of its outcomes [N]."""
    rows = {"cluster": range(len(outcomes)), "robust": [cut * values.mean() for values in outcomes]}
    points = pd.Series([cut * values.astype(np.float32) for values in outcomes], dtype=object)
    return pd.DataFrame({**rows, "samples": len(outcomes[0]), AT_POINTS: points})


def share(rows: pd.DataFrame) -> object:
    return mean(rows, "robust", "samples", at=AT_POINTS)


def drawn(generator: np.random.Generator, level: float, seeds: int, hard: np.ndarray) -> list[np.ndarray]:
    """Outcomes of networks whose levels scatter, and which err at the same hard points but for some of their own."""
    levels = np.clip(level + 0.03 * generator.normal(size=seeds), 0, 1)
    own = generator.uniform(size=(seeds, len(hard)))
    return [(np.where(mine < 0.2, mine / 0.2, hard) < one).astype(float) for one, mine in zip(levels, own, strict=True)]


@pytest.mark.parametrize(
    # Of two trainings the scatter is known so badly that less error of points gains nothing.
    ("levels", "seeds", "points", "gain"),
    [((0.7, 0.6), 3, 185, 0.2), ((0.95, 0.9), 5, 50, 0.2), ((0.1, 0.1), 2, 300, -0.4)],
)
def test_differences_are_covered_and_known_better_than_with_points_drawn_anew(
    levels: tuple[float, float], seeds: int, points: int, gain: float
) -> None:
    generator = np.random.default_rng(0)
    repeats, inside, lengths = 400, 0, []
    for _ in range(repeats):
        hard = generator.uniform(size=points)
        sides = [share(trained(drawn(generator, level, seeds, hard))) for level in levels]
        apart = [dataclasses.replace(one, at_points=None) for one in sides]
        ends = combined(sides, [1, -1]).interval(0.95)
        # Where a level nears 0 or 1 the scatter is cut, which moves its mean by less than 0.002.
        inside += ends[0] - 0.002 <= levels[0] - levels[1] <= ends[1] + 0.002
        lengths.append([np.ptp(one) for one in (ends, combined(apart, [1, -1]).interval(0.95))])
    assert inside / repeats > 0.93
    shared, anew = np.median(lengths, axis=0)
    assert 1 - shared / anew > gain


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=60),
    st.sampled_from([1.0, 3.0]),
)
def test_of_networks_without_scatter_the_error_is_agresti_and_mins(pairs: list[tuple[bool, bool]], cut: float) -> None:
    first, second = np.asarray(pairs, float).T
    sides = [trained([values, values], cut) for values in (first, second)]
    means = [mean(rows, "robust", at=AT_POINTS, highest=cut) for rows in sides]
    found = combined(means, [1, -1])
    won, lost, count = (first > second).sum() + 0.5, (first < second).sum() + 0.5, len(pairs) + 2
    variance = (won + lost - (won - lost) ** 2 / count) / count**2
    assert found.estimate == pytest.approx(cut * (first.mean() - second.mean()), abs=1e-6)
    assert found.error == pytest.approx(cut * np.sqrt(variance), rel=1e-6)
    assert found.error > 0


def test_trunks_that_both_have_are_paired() -> None:
    generator = np.random.default_rng(1)
    before = [generator.uniform(size=200) < level for level in (0.2, 0.5, 0.8)]
    after = [values | (generator.uniform(size=200) < 0.1) for values in before]
    sides = [trained([one.astype(float) for one in values]) for values in (after, before)]
    by_trunk = [rows.set_index("cluster")["robust"] for rows in sides]
    paired = difference(*map(share, sides), by_trunk)
    assert paired.error < 0.3 * combined(list(map(share, sides)), [1, -1]).error
    others = by_trunk[1].rename({0: 10})
    assert difference(*map(share, sides), [by_trunk[0], others]) == combined(list(map(share, sides)), [1, -1])


@pytest.mark.parametrize("missing", ["a network's", "as many", "the same number"])
def test_points_that_are_not_known_count_as_drawn_anew(missing: str) -> None:
    generator = np.random.default_rng(2)
    hard = generator.uniform(size=100)
    first, second = (trained(drawn(generator, level, 3, hard)) for level in (0.6, 0.5))
    if missing == "a network's":
        second.at[1, AT_POINTS] = None
    elif missing == "as many":
        second[AT_POINTS] = [values[:50].repeat(2)[:99] for values in second[AT_POINTS]]
    else:
        second["robust"] -= 0.01
    anew = combined([mean(rows, "robust", "samples") for rows in (first, second)], [1, -1])
    assert combined([share(first), share(second)], [1, -1]) == anew


def test_outcomes_are_of_the_rows_that_name_them() -> None:
    measured = pd.DataFrame({"network_id": ["a", "b", "a"], "measure": ["m", "m", "n"], "samples": [2, 2, 3]})
    outcomes = pd.DataFrame({"network_id": ["a", "a"], "measure": ["n", "m"], "values": [[1, 0, np.nan], [0, 1, 1, 1]]})
    known = with_points(measured, outcomes)[AT_POINTS]
    assert [None if one is None else one.tolist() for one in known] == [[0, 1], None, [1, 0, 0]]
    rows = pd.DataFrame({"network_id": ["b", "a"], "by": ["m", "n"]}, index=[7, 3])
    found = joined_points(rows, with_points(measured, outcomes), "by")
    assert found[7] is None
    assert found[3].tolist() == [1, 0, 0]
