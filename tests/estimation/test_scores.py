"""Robustness scores: worked out by hand, maximal for a constant classifier, and intervals that cover."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import planned_few
from estimation_cases import GRID, SEED
from scipy import stats

from deltaball.base.guarantees import epsilon_reached
from deltaball.data.datasets import Dataset
from deltaball.estimation.estimates import estimates
from deltaball.estimation.measuring import measure
from deltaball.estimation.scores import AtLeast, Statistic, Unanimous, WorstMean
from deltaball.estimation.statistics import Mean
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Store

HALF = np.float32([1, 0.95, 0.9, 0.5])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Mean(), 0.8375),
        (AtLeast(20, 0.05), 0.5),
        (AtLeast(20, 0.1), 0.75),
        (AtLeast(20, 0.5), 1.0),
        (WorstMean(20, 0.1), (1 + 0.5 + 0 + 0) / 4),
        (WorstMean(20, 0.5), (1 + 0.9 + 0.8 + 0) / 4),
        (Unanimous(), 0.25),
    ],
)
def test_by_hand(asked: Statistic, expected: float):
    assert asked.estimate(HALF) == pytest.approx(expected)


def test_what_two_draws_hide():
    # Of a point on the edge, ρ = 3/4, both of two draws agree with probability 9/16, one or both with 15/16.
    both = np.float32([1] * 8 + [0.5] * 2)
    assert AtLeast(2, 0.25).interval(both, 0.1) == pytest.approx(((0.7 - 9 / 16) / (7 / 16), 1))
    few = np.float32([1] * 2 + [0] * 8)
    assert AtLeast(2, 0.25).interval(few, 0.1) == pytest.approx((0, 0.3 / (15 / 16)))
    # The worst quarter of two draws: H(1) = 1, H(1/2) = H(0) = 0, so it is overstated by 9/16.
    assert WorstMean(2, 0.25).overstated == pytest.approx(9 / 16)
    assert WorstMean(2, 0.25).interval(both, 0.1) == pytest.approx((0.8 - 0.1 - 9 / 16, 0.9))


EACH = {
    "mean": Mean(),
    "share": AtLeast(50, 0.1),
    "cvar": WorstMean(50, 0.1),
    "unanimous": Unanimous(),
}


@pytest.mark.parametrize("asked", EACH.values(), ids=EACH)
def test_a_constant_classifier_is_maximal_and_every_score_rises_with_the_share(asked: Statistic):
    ones, random = np.ones(40, np.float32), np.random.default_rng(0)
    assert asked.estimate(ones) == 1
    assert asked.interval(ones, 0.1)[1] == asked.tight_interval(ones[None], 0.95)[1][0] == 1
    for _ in range(20):
        worse = (random.integers(0, 51, 40) / 50).astype(np.float32)
        better = np.minimum(worse + random.integers(0, 10, 40) / 50, 1).astype(np.float32)
        assert asked.estimate(worse) <= asked.estimate(better) <= 1
        for one, other in zip(asked.interval(worse, 0.1), asked.interval(better, 0.1), strict=True):
            assert one <= other + 1e-12


# Networks of which the distribution of ρ over points is known: its values, and how often each is met.
NETWORKS = {
    "half robust": ((1.0, 0.5), (0.5, 0.5)),
    "at the edge": ((0.9, 0.89), (0.5, 0.5)),
    "just below": ((0.895,), (1.0,)),
    "just above": ((0.9, 1.0), (0.3, 0.7)),
    "spread": (tuple(np.linspace(0.5, 1, 51)), (1 / 51,) * 51),
    "constant": ((1.0,), (1.0,)),
}
TRUTHS = {
    "mean": lambda rho: rho,
    "share": lambda rho: (rho >= 0.9 - 1e-12) * 1.0,
    "cvar": lambda rho: np.clip(1 - (1 - rho) / 0.1, 0, 1),
}
STUDIES, POINTS, CONFIDENCE = 400, 120, 0.9


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("score", TRUTHS)
def test_intervals_cover_as_often_as_they_say(score: str, network: str):
    values, weights = NETWORKS[network]
    random = np.random.default_rng([len(score), len(network)])
    rho = random.choice(values, (STUDIES, POINTS), p=weights)
    seen = (random.binomial(50, rho) / 50).astype(np.float32)
    truth = float(np.dot(TRUTHS[score](np.array(values)), weights))
    epsilon = epsilon_reached(POINTS, CONFIDENCE)
    wide = np.array([EACH[score].interval(one, epsilon) for one in seen])
    tight = np.stack(EACH[score].tight_interval(seen, CONFIDENCE), 1)
    for ends in (wide, tight):
        covered = int(((ends[:, 0] <= truth + 1e-9) & (truth <= ends[:, 1] + 1e-9)).sum())
        # Not significantly less often than nominal.
        assert stats.binom.cdf(covered, STUDIES, CONFIDENCE) > 1e-3
        assert (ends[:, 0] <= ends[:, 1] + 1e-12).all()


@pytest.mark.parametrize("score", TRUTHS)
def test_intervals_cover_where_draws_are_of_several_corruptions_in_turn(score: str):
    # Of 50 draws each fifth is of a corruption of its own: ρ is the mean over these, at and below the edge.
    random = np.random.default_rng([len(score), 5])
    kinds = np.array([[1, 1, 1, 1, 0.5], [1, 1, 1, 0.9, 0.55], [1, 1, 1, 1, 1]])
    points = kinds[random.integers(0, 3, (STUDIES, POINTS))]
    seen = (random.binomial(10, points).sum(-1) / 50).astype(np.float32)
    truth = TRUTHS[score](kinds.mean(1)).mean()
    wide = np.array([EACH[score].interval(one, epsilon_reached(POINTS, CONFIDENCE)) for one in seen])
    for ends in (wide, np.stack(EACH[score].tight_interval(seen, CONFIDENCE), 1)):
        covered = int(((ends[:, 0] <= truth + 1e-9) & (truth <= ends[:, 1] + 1e-9)).sum())
        assert stats.binom.cdf(covered, STUDIES, CONFIDENCE) > 1e-3


def test_what_all_draws_agree_on_is_no_less_than_what_all_images_do():
    random = np.random.default_rng(2)
    rho = random.choice([1.0, 0.99], (STUDIES, POINTS), p=[0.4, 0.6])
    seen = (random.binomial(50, rho) / 50).astype(np.float32)
    upper = np.array([Unanimous().interval(one, epsilon_reached(POINTS, CONFIDENCE))[1] for one in seen])
    assert (upper >= 0.4).mean() >= CONFIDENCE
    # It is of no use from below: more than half of the others have 50 draws that agree.
    assert np.mean([Unanimous().estimate(one) for one in seen]) == pytest.approx(0.4 + 0.6 * 0.99**50, abs=0.02)


def test_many_draws_of_few_points_are_no_more_points():
    random = np.random.default_rng(3)
    rho = random.choice([1.0, 0.0], (STUDIES, 30))
    for asked in (Mean(), AtLeast(1000, 0.1), WorstMean(1000, 0.1)):
        lower, upper = asked.tight_interval(rho.astype(np.float32), CONFIDENCE)
        assert ((lower <= 0.5) & (0.5 <= upper)).mean() >= CONFIDENCE
        assert (upper - lower).mean() > 0.2


def test_scores_of_the_same_draws_are_kept_once(
    data_folder: Path, few: Dataset, pack: list[Trajectory], points: np.ndarray, store: Store
):
    entry = {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.5, "draws": 20}
    fewer = {"guarantee": {"epsilon": 0.4}}
    asked = [{**entry, "sampling": ["mean", "cvar"]}, {**entry, "sampling": "share", "tau": 0.1, **fewer}]
    plan = planned_few(data_folder, GRID, measures=asked)
    wanted = {(one.id, step): {m: m.samples for m in plan.measures} for one in pack for step in one.checkpoints}
    layers = plan.layers(pack[0])
    computed = measure(wanted, layers, points, SEED, store, "cpu")
    assert computed == len(wanted) * max(one.samples for one in plan.measures)
    assert measure(wanted, layers, points, SEED, store, "cpu") == 0
    table, lists = estimates(plan, pack, store)
    for row, values in zip(table.itertuples(), lists["values"], strict=True):
        agreeing = np.asarray(values)[: row.samples]
        expected = {
            "mean-20": agreeing.mean(dtype=np.float64),
            "cvar-20x0.05": np.clip(1 - (1 - agreeing.astype(np.float64)) / 0.05, 0, 1).mean(),
            "share-20x0.1": (agreeing >= 0.9 - 1e-6).mean(),
        }[row.sampling]
        assert row.estimate == pytest.approx(expected)
        assert (row.perturbation, row.perturbation_size, row.side) == ("gaussian_0.5", 0.5, "exact")
        assert pd.isna(row.norm)
        assert pd.isna(row.delta)
    assert set(table["samples"]) == {one.samples for one in plan.measures}
    assert table["estimate"].nunique() > 5
