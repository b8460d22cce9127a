"""Mixed and joint models, importances, replicates, diagnostics and finite test points, on studies of known truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from simulations import simulated
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.outliers_influence import OLSInfluence, variance_inflation_factor

from deltaball.analysis.clustered import slope
from deltaball.analysis.designs import Designs, inflations
from deltaball.analysis.diagnostics import diagnostics, residuals
from deltaball.analysis.groups import Groups
from deltaball.analysis.importances import importances
from deltaball.analysis.learned import learned
from deltaball.analysis.mixed import mixed, random_intercept
from deltaball.analysis.partial import partial_correlations
from deltaball.analysis.points import SharedPoints, corrected
from deltaball.analysis.regressions import regressions
from deltaball.analysis.replicates import replicates


def everyone(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["networks_of"] == "all"]


# ---- all hyper-parameters at once


def test_what_accuracy_owes_to_capacity_is_taken_out() -> None:
    """Width lowers R and raises accuracy; accuracy itself does nothing. Alone it seems to; beside width it does not."""
    table = simulated(trajectories=120, capacity=-0.1, noise=0.01, duration=0.0)
    table["test_accuracy"] += 0.03 * np.log2(table["width"].astype(float) / 128)
    found = everyone(regressions(Groups(table))).set_index(["model", "term"])
    assert found.loc[("simple", "test_accuracy"), "upper"] < -1
    adjusted = found.loc[("accuracy_adjusted", "test_accuracy")]
    assert adjusted["lower"] < 0 < adjusted["upper"]
    assert adjusted["vif"] > 1.5
    assert found.loc[("accuracy_adjusted", "width"), "slope"] == pytest.approx(-0.1, abs=0.01)
    partial = everyone(partial_correlations(Groups(table))).set_index("term").loc["test_accuracy"]
    assert partial["correlation"] < -0.5
    assert partial["lower"] < 0 < partial["upper"]


def test_interactions_are_differences_of_slopes() -> None:
    table = simulated(trajectories=120, noise=0.01)
    apart = table["test_accuracy"] - table["test_accuracy"].mean()
    doublings = np.log2(table["width"].astype(float)) - 7
    table["estimate"] += apart * (1 + 2 * doublings - 3 * (table["activation"] == "tanh"))
    found = everyone(regressions(Groups(table))).query("model == 'interactions'").set_index("term")["slope"]
    assert found["test_accuracy × width"] == pytest.approx(2, abs=0.2)
    assert found["test_accuracy × activation: tanh"] == pytest.approx(-3, abs=0.3)
    assert found["test_accuracy × epochs"] == pytest.approx(0, abs=0.2)


def test_an_axis_that_others_determine_is_left_out() -> None:
    table = simulated().assign(batch_size=lambda one: 2 * one["width"])
    design, units = Designs().joint(table)
    assert [*design] == ["width", "activation: tanh", "epochs"]
    assert units["width"] == "per doubling"
    assert np.linalg.matrix_rank(sm.add_constant(design.to_numpy())) == 4


def test_variance_inflation_is_statsmodels() -> None:
    generator = np.random.default_rng(0)
    design = pd.DataFrame(generator.normal(size=(50, 3)) @ generator.normal(size=(3, 3)) + 5)
    values = sm.add_constant(design.to_numpy())
    assert inflations(design) == pytest.approx([variance_inflation_factor(values, one) for one in (1, 2, 3)])
    assert inflations(design[[0]]) == pytest.approx([1])


# ---- finitely many test points


def test_attenuation_is_put_right() -> None:
    """Accuracies measured on 500 points; the slope on what they would be on infinitely many is known."""
    generator, points, truth, slopes = np.random.default_rng(0), 500, -2.0, []
    for _ in range(200):
        real = generator.uniform(0.85, 0.9, 400)
        seen = generator.binomial(points, real) / points
        robust = 0.5 + truth * (real - 0.87)
        fitted = np.polyfit(seen, robust, 1)[0]
        slopes.append((fitted, corrected(seen, robust, (fitted, fitted, fitted), points)["slope_corrected"]))
    naive, right = np.mean(slopes, axis=0)
    assert naive > 0.75 * truth
    assert right == pytest.approx(truth, rel=0.03)


def test_accuracies_of_nothing_but_error_are_not_corrected() -> None:
    seen = np.random.default_rng(0).binomial(100, 0.9, 50) / 100
    assert np.isnan(corrected(seen - seen.mean() + 0.9, seen, (1, 0, 2), 50)["slope_corrected"])
    assert np.isnan(corrected(np.full(5, 0.9), seen[:5], (1, 0, 2), 50)["reliability"])


def test_the_bound_of_correlated_errors_widens_the_interval() -> None:
    found = corrected(np.linspace(0.8, 0.9, 50), np.full(50, 0.5), (1.0, 0.5, 1.5), 1000)
    assert found["corrected_lower"] < 0.5 / found["reliability"] < 1.5 / found["reliability"] < found["corrected_upper"]


def with_outcomes(table: pd.DataFrame, hard: float, seed: int, points: int = 200) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table measured on points that are more or less hard, for accurate networks more so."""
    generator = np.random.default_rng(seed)
    apart = (table["test_accuracy"] - table["test_accuracy"].mean()).to_numpy() / table["test_accuracy"].std()
    shared = hard * generator.normal(size=points)
    chance = table["estimate"].to_numpy()[:, None] + shared * (1 + apart[:, None])
    values = (generator.random(chance.shape) < chance).astype(np.float32)
    measured = table.assign(estimate=values.mean(1), samples=points)
    return measured, measured[["network_id", "measure"]].assign(values=list(values))


def test_the_two_way_bootstrap_sees_what_the_shared_points_do() -> None:
    """Over many test sets the slope scatters as far as it says, where clustering by trajectory alone falls short."""
    slopes, errors, sandwiches = [], [], []
    for seed in range(40):
        fresh = simulated(trajectories=60, slope=0.0, noise=0.02, spread=0.03, seed=seed)
        measured, outcomes = with_outcomes(fresh, 0.15, seed)
        found = SharedPoints(outcomes, resamples=200).two_way(measured, 5, 0.95)
        one = slope(
            *(measured[name].to_numpy() for name in ("estimate", "test_accuracy")), None, measured["cluster"], few=2
        )
        slopes.append(one.estimate)
        errors.append(found["two_way_error"])
        sandwiches.append(one.error)
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.3)
    assert np.mean(sandwiches) < 0.7 * np.std(slopes)


def test_the_two_way_error_is_the_closed_form_where_points_alone_vary() -> None:
    """With the trajectories' part taken off, the variance is that of the mean over points of Σ w (outcome)."""
    measured, outcomes = with_outcomes(simulated(noise=0.0, spread=0.03), 0.2, 0)
    values = np.stack(outcomes["values"])
    drawn = SharedPoints(outcomes, resamples=4000).resampled(measured)
    centred = measured["test_accuracy"].to_numpy() - measured["test_accuracy"].mean()
    weights = centred / (centred @ centred)
    assert np.std(weights @ drawn) == pytest.approx(np.std(weights @ values) / np.sqrt(values.shape[1]), rel=0.05)
    assert np.mean(weights @ drawn) == pytest.approx(weights @ measured["estimate"].to_numpy(), abs=0.05)


def test_outcomes_that_are_missing_are_not_made_up() -> None:
    measured, outcomes = with_outcomes(simulated(), 0.1, 0)
    shared = SharedPoints(outcomes[5:])
    assert shared.resampled(measured) is None
    assert shared.resampled(measured[5:]) is not None
    assert np.isnan(shared.two_way(measured, 5, 0.95)["two_way_error"])


# ---- networks that did not learn


def test_a_trend_that_the_untrained_make_is_laid_at_their_door() -> None:
    """Constant classifiers are robust; among networks that learned, accuracy does nothing."""
    table = simulated(trajectories=80, slope=0.0, spread=0.02, noise=0.01)
    idle = table["trajectory_id"].isin(table["trajectory_id"].unique()[:20])
    accuracy = np.where(idle, 0.12 + 0.1 * (table["test_accuracy"] - 0.9), table["test_accuracy"])
    table = table.assign(test_accuracy=accuracy, estimate=table["estimate"] + 0.4 * idle)
    found = learned(Groups(table)).set_index("networks_of")
    assert found.loc["all", "upper"] < -0.3
    assert found.loc["learned", "lower"] < 0 < found.loc["learned", "upper"]
    shares = found.loc["learned", ["carried_within_learned", "carried_within_others", "carried_between"]].astype(float)
    assert shares.sum() == pytest.approx(1)
    assert shares["carried_between"] > 0.95
    bands = found[found.index.str.startswith("quarter")]
    assert bands["networks"].sum() == len(table)
    assert bands["accuracy_to"].tolist() == sorted(bands["accuracy_to"])


# ---- random effects


@pytest.mark.parametrize("between", [0.0, 0.3, 2.0])
def test_the_random_intercept_is_statsmodels(between: float) -> None:
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(14), generator.integers(2, 7, 14))
    term = generator.normal(size=len(groups)) + generator.normal(size=14)[groups]
    response = 1 + 0.5 * term + between * generator.normal(size=14)[groups] + generator.normal(size=len(groups))
    reference = MixedLM(response, sm.add_constant(term), groups=groups).fit(method=["powell"])
    found, error, share = random_intercept(response, term, groups)
    variance = float(np.asarray(reference.cov_re)[0, 0])
    assert found == pytest.approx(reference.fe_params[1], rel=1e-4)
    assert error == pytest.approx(reference.bse_fe[1], rel=0.01)
    assert share == pytest.approx(variance / (variance + reference.scale), abs=1e-3)


def test_architectures_do_not_pass_for_accuracy() -> None:
    """Wider networks are more accurate and less robust; within a shape accuracy does nothing."""
    table = simulated(trajectories=180, slope=0.0, noise=0.01, spread=0.01)
    generator = np.random.default_rng(0)
    table = table.assign(width=np.repeat(2 ** (np.arange(180) % 9), 3), epochs=5)
    own = dict(zip(2 ** np.arange(9), generator.normal(size=9), strict=True))
    effect = table["width"].map(own)
    table = table.assign(
        test_accuracy=table["test_accuracy"] + 0.01 * effect, estimate=table["estimate"] - 0.1 * effect
    )
    row = everyone(mixed(Groups(table))).iloc[0]
    assert row["shapes"] == 18  # times two activations
    assert row["lower"] < 0 < row["upper"]
    assert row["architecture_share"] > 0.9
    assert (
        everyone(regressions(Groups(table))).query("model == 'simple'").set_index("term").loc["test_accuracy", "upper"]
        < -1
    )


def test_few_shapes_have_no_random_effect() -> None:
    assert everyone(mixed(Groups(simulated(activation="relu")))).iloc[0][["slope", "p"]].isna().all()


# ---- which hyper-parameters matter


def test_what_matters_is_found_and_what_does_not_is_not() -> None:
    table = simulated(trajectories=120, slope=0.0, noise=0.02)
    table["estimate"] += 0.3 * (table["activation"] == "tanh") + 0.05 * np.log2(table["epochs"].astype(float))
    found = importances(Groups(table)).set_index("hyper_parameter")
    assert found["importance"].idxmax() == "activation"
    assert found.loc["activation", "lower"] > 1
    assert found.loc["epochs", "lower"] > 0
    assert found.loc["width", "lower"] < 0.02
    assert (found["r_squared"] > 0.8).all()
    assert found.loc["activation", "effect_term"] == "activation: tanh"
    assert found.loc["activation", "effect_lower"] > 0.5
    assert found.loc["width", "effect_lower"] < 0 < found.loc["width", "effect_upper"]


def test_importance_is_judged_on_trajectories_that_were_not_seen() -> None:
    """R is each trajectory's own whim, and the learning rate its name: trees that saw it would predict it."""
    table = simulated(trajectories=40, noise=0.0, spread=0.0)
    whim = np.random.default_rng(0).normal(size=40)
    rates = np.repeat(np.linspace(0.01, 0.05, 40)[np.random.default_rng(1).permutation(40)], 3)
    table = table.assign(estimate=np.repeat(whim, 3), learning_rate=rates)
    found = importances(Groups(table)).set_index("hyper_parameter")
    assert (found["r_squared"] < 0.2).all()


# ---- seeds


def test_the_seeds_spread_is_found() -> None:
    generator = np.random.default_rng(0)
    table = simulated(trajectories=240, capacity=-0.1, noise=0.0)
    seeds = np.repeat(np.arange(240) % 4, 3)
    setting = np.repeat(np.arange(240) // 4, 3)
    width, activation = 2 ** (setting % 10), np.where(setting // 10 % 2, "relu", "tanh")
    table = table.assign(seed=seeds, width=width, activation=activation, depth=1 + setting // 20, epochs=5)
    table = table.drop_duplicates("trajectory_id")
    table = table.assign(estimate=0.01 * table["width"] ** 0.5 + 0.02 * generator.normal(size=len(table)))
    row = replicates(table).set_index("measure").loc["class_change_linf_0.1_fgsm"]
    assert (row["settings"], row["seeds"], row["networks"]) == (60, 4, 240)
    assert row["lower"] < 0.02 < row["upper"]
    assert row["upper"] - row["lower"] < 0.006
    assert row["share_of_variance"] == pytest.approx(row["sd"] ** 2 / table["estimate"].var())


def test_one_seed_says_nothing_of_seeds() -> None:
    assert replicates(simulated(seed=0)).empty


# ---- diagnostics


def test_the_odd_network_and_the_collinear_term_are_named() -> None:
    table = simulated(trajectories=60, noise=0.01)
    table.loc[7, "estimate"] += 1.0
    table.loc[11, "test_accuracy"] = 0.75
    row = everyone(diagnostics(Groups(table))).iloc[0]
    assert row["cook_network"] == table.loc[7, "network_id"]
    assert row["leverage_network"] == table.loc[11, "network_id"]
    assert row["leverage_mean"] == pytest.approx((row["terms"] + 1) / len(table))
    assert row["excess_kurtosis"] > 10
    assert 1 < row["effective_clusters"] <= 60


def test_residuals_are_statsmodels() -> None:
    table = simulated(trajectories=20)
    names, points = next(residuals(Groups(table)))
    design = pd.concat([table[["test_accuracy"]], Designs().joint(table)[0]], axis=1)
    fit = sm.OLS(table["estimate"], sm.add_constant(design)).fit()
    assert names["networks"] == len(points)
    assert points["residual"].to_numpy() == pytest.approx(fit.resid.to_numpy())
    assert points["leverage"].to_numpy() == pytest.approx(OLSInfluence(fit).hat_matrix_diag)


def test_the_figure_shows_the_residuals_of_the_middle_delta(tmp_path: Path) -> None:
    from deltaball.figures import style

    style.use()
    from deltaball.figures import diagnostics as figure

    levels = [simulated(trajectories=20, delta=delta, measure=f"at {delta}") for delta in (0.1, 0.03, 0.06)]
    bound = simulated(trajectories=20, delta=0.03, measure="crown", attack=None, certificate="crown")
    measured = pd.concat([*levels, bound], ignore_index=True)
    figure.draw("diagnostics_mnist", measured.drop_duplicates("network_id"), measured, tmp_path)
    shown = pd.read_csv(tmp_path / "diagnostics_mnist.csv")
    assert set(shown["measure"]) == {"at 0.06"}
    assert shown["residual"].tolist() == pytest.approx(next(residuals(Groups(levels[2])))[1]["residual"].tolist())
    assert (tmp_path / "diagnostics_mnist.png").stat().st_size > 20_000
    figure.draw("diagnostics_mnist", measured[:0], measured[:0], tmp_path)
    assert pd.read_csv(tmp_path / "diagnostics_mnist.csv").empty


@pytest.mark.parametrize(
    "make",
    [regressions, mixed, partial_correlations, learned, importances, replicates, diagnostics],
    ids=lambda one: one.__name__,
)
def test_nothing_measured_makes_empty_tables_with_their_columns(make: object) -> None:
    table, full = (make(one if make is replicates else Groups(one)) for one in (simulated()[:0], simulated()))
    assert table.empty
    assert [*table] == [*full]


@pytest.mark.parametrize(
    "make", [regressions, mixed, partial_correlations, learned, importances], ids=lambda one: one.__name__
)
def test_p_values_are_corrected_over_the_table(make: object) -> None:
    found = make(Groups(simulated(slope=-1, trajectories=60)))
    corrected_values = found[["p_holm", "p_bh"]].dropna()
    assert len(corrected_values)
    assert (corrected_values["p_bh"] <= corrected_values["p_holm"] + 1e-12).all()
