"""Slopes with clustered errors: against published values, against resampling by hand, and against known truths."""

from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltaball.analysis.clustered import MANY, WEBB, Scaled, Student, Wild, correlation_per_slope, slope

# NIST's certified values of the Longley data (StRD, computed with 500 digits), and what Stata's `vce(robust)` and
# `vce(hc3)` say of its standard errors: coefficient, error, HC1, HC3.
LONGLEY = {
    "GNPDEFL": (15.0618722713733, 84.9149257747669, 68.29380, 91.11939),
    "GNP": (-0.0358191792925910, 0.0334910077722432, 0.03277, 0.05562),
    "UNEMP": (-2.02022980381683, 0.488399681651699, 0.51099, 0.82213),
    "ARMED": (-1.03322686717359, 0.214274163161675, 0.19499, 0.29879),
    "POP": (-0.0511041056535807, 0.226073200069370, 0.21094, 0.32491),
    "YEAR": (1829.15146461355, 455.478499142212, 571.17917, 922.80784),
}
# Stata's `regress invest mvalue kstock, vce(cluster company)` of Grunfeld's ten companies: slope, error, p, 95 % ends.
GRUNFELD = {
    "value": (0.11556215606596, 0.01589433647768, 0.00004710548549, 0.07960666895505, 0.15151764317688),
    "capital": (0.23067848754982, 0.08496711097464, 0.02380515903536, 0.03846952885627, 0.42288744624337),
}


@pytest.mark.parametrize("term", LONGLEY)
def test_longleys_certified_values(term: str) -> None:
    data = sm.datasets.longley.load_pandas()
    rows = np.arange(len(data.endog))
    arguments = data.endog.to_numpy(), data.exog[term].to_numpy(), data.exog.drop(columns=term).to_numpy(), rows
    coefficient, _, hc1, hc3 = LONGLEY[term]
    # Each row its own cluster: CR1 is HC1, and the jackknife HC3 but for its (n - 1) / n.
    found = slope(*arguments, few=2)
    assert found.estimate == pytest.approx(coefficient, rel=1e-8)
    assert found.error == pytest.approx(hc1, rel=2e-4)
    jackknife = slope(*arguments, replicates=9).jackknife.error
    assert jackknife == pytest.approx(hc3 * np.sqrt(15 / 16), rel=2e-4)


@pytest.mark.parametrize("term", GRUNFELD)
def test_statas_clustered_errors_of_grunfelds_companies(term: str) -> None:
    data = sm.datasets.grunfeld.load_pandas().data[:200]
    other = next(name for name in GRUNFELD if name != term)
    found = slope(
        data["invest"].to_numpy(), data[term].to_numpy(), data[[other]].to_numpy(), data["firm"].to_numpy(), few=2
    )
    coefficient, error, p, lower, upper = GRUNFELD[term]
    assert (found.estimate, found.error) == pytest.approx((coefficient, error), rel=1e-7)
    assert found.p(0) == pytest.approx(p, rel=1e-6)
    assert found.interval(0.95) == pytest.approx((lower, upper), rel=1e-6)


def drawn(count: int = 8, others: int = 2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Response, term, others and clusters of unequal sizes."""
    generator = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(count), generator.integers(2, 9, count))
    rest = generator.normal(size=(len(clusters), others))
    term = generator.normal(size=count)[clusters] + 0.5 * generator.normal(size=len(clusters)) + rest[:, 0]
    noise = generator.normal(size=count)[clusters] + generator.normal(size=len(clusters))
    return 0.5 * term + rest.sum(1) + noise, term, rest, clusters


def with_a_level_of_one_cluster() -> tuple[np.ndarray, ...]:
    """As `drawn`, but without this cluster nothing tells the level's coefficient."""
    response, term, rest, clusters = drawn()
    return response, term, np.column_stack([rest[:, 0], clusters == 3]), clusters


@pytest.mark.parametrize("data", [drawn, with_a_level_of_one_cluster])
@pytest.mark.parametrize("null", [0.0, 0.4])
def test_the_bootstrap_is_what_fitting_every_replicate_would_say(data: Callable, null: float) -> None:
    """Residuals under the null, each cluster's with the rest of the design fitted without it; weights; CR1's t."""
    response, term, rest, clusters = data()
    replicates, seed, count = 200, 3, clusters.max() + 1
    whole, without = sm.add_constant(np.column_stack([rest, term])), sm.add_constant(rest)
    imposed = response - null * term
    fitted = without @ np.linalg.lstsq(without, imposed, rcond=None)[0]
    residuals = np.empty_like(response)
    for cluster in range(count):
        inside = clusters == cluster
        left = np.linalg.lstsq(without[~inside], imposed[~inside], rcond=None)[0]
        residuals[inside] = imposed[inside] - without[inside] @ left

    def t(values: np.ndarray) -> float:
        fit = sm.OLS(values, whole).fit(cov_type="cluster", cov_kwds={"groups": clusters})
        return (fit.params[-1] - null) / fit.bse[-1]

    weights = WEBB[np.random.default_rng(seed).integers(len(WEBB), size=(replicates, count))]
    extreme = [abs(t(fitted + null * term + one[clusters] * residuals)) >= abs(t(response)) for one in weights]
    found = slope(response, term, rest, clusters, replicates=replicates, seed=seed)
    squared = (found.estimate - null) ** 2 / found.error**2
    numerators = (found.numerator[0] - null * found.numerator[1]) ** 2
    variances = found.scale * (found.scores[0] - 2 * null * found.scores[1] + null**2 * found.scores[2])
    assert (numerators / variances >= squared).tolist() == extreme
    expected = max((1 + sum(extreme)) / (1 + replicates), found.jackknife.p(null))
    assert found.p(null) == pytest.approx(expected)


@pytest.mark.parametrize("data", [drawn, with_a_level_of_one_cluster])
def test_the_jackknife_leaves_clusters_out(data: Callable) -> None:
    response, term, rest, clusters = data()
    whole = sm.add_constant(np.column_stack([rest, term]))
    slopes = [
        np.linalg.lstsq(whole[clusters != one], response[clusters != one], rcond=None)[0][-1]
        for one in np.unique(clusters)
    ]
    found = slope(response, term, rest, clusters, replicates=9)
    count = len(slopes)
    expected = np.sqrt((count - 1) / count * np.sum((np.array(slopes) - found.estimate) ** 2))
    assert found.jackknife.error == pytest.approx(expected)
    assert found.jackknife.freedom == count - 1


@given(st.integers(0, 10_000), st.integers(5, 12))
@example(2156, 5)  # at the jackknife's end the bootstrap, which rejects nulls nearer, does not reject
@settings(max_examples=40, deadline=None)
def test_the_interval_holds_what_is_not_rejected(seed: int, count: int) -> None:
    found = slope(*drawn(count, 1, seed), replicates=199)
    lower, upper = found.interval(0.9)
    assert lower < found.estimate < upper
    for end, outwards in ((lower, -1), (upper, 1)):
        if np.isfinite(end):
            assert found.p(end - outwards * 1e-4 * found.error) > 0.1 - 1e-9
            assert found.p(end) <= 0.1 + 1e-9
    wider = found.interval(0.99)
    assert wider[0] <= lower
    assert upper <= wider[1]


def test_many_clusters_that_carry_the_term_are_students_and_few_are_bootstrapped() -> None:
    assert isinstance(slope(*drawn(200), replicates=9), Student)
    assert isinstance(slope(*drawn(MANY - 1), replicates=9), Wild)
    response, term, rest, clusters = drawn(200)
    # Four clusters alone have any size of the term worth the name.
    lopsided = np.where(clusters < 4, 100 * term, term)
    assert isinstance(slope(response, lopsided, rest, clusters, replicates=9), Wild)


def test_what_cannot_be_estimated_is_none() -> None:
    response, term, rest, clusters = drawn(8)
    assert slope(response, rest[:, 0], rest, clusters) is None
    assert slope(np.ones_like(response), term, rest, clusters) is None
    assert slope(response, np.ones_like(term), None, clusters) is None
    assert slope(*(one[clusters < 4] for one in (response, term)), None, clusters[clusters < 4]) is None
    assert slope(np.empty(0), np.empty(0), None, np.empty(0, int)) is None


def test_an_exact_line_has_no_error() -> None:
    _, term, _, clusters = drawn(8)
    found = slope(1 + 2 * term, term, None, clusters)
    assert found.estimate == pytest.approx(2)
    assert found.error == 0
    assert (found.p(0), found.p(found.estimate)) == (0, 1)


def test_a_slope_in_units_of_both_deviations_is_the_partial_correlation() -> None:
    response, term, rest, clusters = drawn(40)
    design = sm.add_constant(rest)
    residuals = [one - design @ np.linalg.lstsq(design, one, rcond=None)[0] for one in (response, term)]
    found = slope(response, term, rest, clusters)
    correlated = Scaled(found, correlation_per_slope(response, term, rest))
    assert correlated.estimate == pytest.approx(np.corrcoef(*residuals)[0, 1])
    other = slope(response * 3, term / 7, rest, clusters)
    assert correlated.interval(0.95) == pytest.approx(
        Scaled(other, correlation_per_slope(response * 3, term / 7, rest)).interval(0.95)
    )
    assert correlated.p(0) == other.p(0)


@pytest.mark.parametrize("count", [5, 6, 12, 29, 60])
@pytest.mark.parametrize("varies", ["between and within", "within", "two levels"])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int, varies: str) -> None:
    """1,000 simulations, errors correlated by a half within clusters of 1 to 12 rows. More: benchmarks/coverage.py."""
    runs, truth, covered, naive = 1000, 0.5, 0, 0
    generator = np.random.default_rng(count)
    for run in range(runs):
        clusters = np.repeat(np.arange(count), generator.integers(1, 13, count))
        own = generator.normal(size=len(clusters))
        term = {
            "between and within": generator.normal(size=count)[clusters] + 0.5 * own,
            "within": own,
            "two levels": (clusters < max(4, count // 5)).astype(float),
        }[varies]
        response = truth * term + generator.normal(size=count)[clusters] + generator.normal(size=len(clusters))
        found = slope(response, term, None, clusters, replicates=399, seed=run)
        covered += found.p(truth) > 0.05
        naive += Student(found.estimate, found.error, count - 1).p(truth) > 0.05
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert covered / runs >= least
    if count <= 12 and varies != "within":
        assert naive / runs < least  # which is why CR1 is not left alone with few clusters
