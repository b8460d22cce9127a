"""Trends among Bayesian networks, by convergence: against simulated truths; and the figure beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.bayes import ESS, RHAT, bayes, converged
from deltaball.analysis.groups import Groups
from deltaball.study.grids import all_axes
from deltaball.tables import columns


def measured(chains: int = 20, slope: float = 0.2, unconverged: float = 3.0, noise: float = 0.0) -> pd.DataFrame:
    """Four networks of each chain, odd chains converged; and as many deterministic networks, of no trend."""
    random, count = np.random.default_rng(0), 4 * chains
    chain = np.arange(count) // 4
    mixing = chain % 2 == 1
    accuracy = random.uniform(0.7, 0.95, count)
    estimate = np.where(mixing, 0.5 + slope * accuracy, unconverged * (accuracy - 0.7)) + noise * random.normal(
        size=count
    )
    table = pd.DataFrame(
        {
            **dict.fromkeys(columns.ROBUSTNESS),
            "dataset": "mnist",
            "architecture": "fcn",
            "measure": "class_change_linf_0.1_fgsm",
            "notion": "class_change",
            "norm": "linf",
            "attack": "fgsm",
            "delta": 0.1,
            "gamma": np.nan,
            "side": "upper",
            "epsilon": 0.05,
            "confidence": 0.95,
            "samples": 738,
            "grid": "hmc",
            "method": "hmc",
            "network_id": [f"h{index}" for index in range(count)],
            "trajectory_id": [f"h{one}" for one in chain],
            "cluster": [f"h{one}" for one in chain],
            "test_accuracy": accuracy,
            "estimate": estimate,
            "parameters": 1000 * (1 + chain % 3),
            "acceptance": 0.8,
            "divergences": 0,
            "ess_min": np.where(mixing, ESS, 5.0),
            "rhat_max": np.where(mixing, RHAT, 1.5),
            "status": "trained",
        }
    )
    dense = table.assign(
        method="sgd", acceptance=np.nan, ess_min=np.nan, rhat_max=np.nan, estimate=random.random(count)
    )
    dense = dense.assign(**{name: table[name].str.replace("h", "s") for name in ("network_id", "cluster")})
    both = pd.concat([table, dense], ignore_index=True)
    return both.assign(**dict.fromkeys(all_axes()))


def by_subset(table: pd.DataFrame) -> pd.DataFrame:
    assert table["measure"].nunique() == 1
    return table.set_index("networks_of")


def test_the_trend_of_each_stratum_is_found_and_their_difference() -> None:
    found = by_subset(bayes(Groups(measured())))
    assert found.loc["hmc, converged", "slope"] == pytest.approx(0.2)
    assert found.loc["hmc, not converged", "slope"] == pytest.approx(3.0)
    assert found.loc["hmc, difference", "slope"] == pytest.approx(-2.8)
    assert found["networks"].to_dict() == {
        "sgd": 80,
        "hmc": 80,
        "hmc, converged": 40,
        "hmc, not converged": 40,
        "hmc, difference": 80,
    }
    assert found.loc["hmc, converged", "trajectories"] == 10


def test_the_interval_of_the_difference_is_clustered_by_chain() -> None:
    """Copies of the same networks in the same chains say nothing new: CR1's interval hardly changes."""
    once = measured(noise=0.05)
    twice = pd.concat([once, once.assign(network_id=once["network_id"] + "b")], ignore_index=True)
    one, other = (by_subset(bayes(Groups(table))).loc["hmc, difference"] for table in (once, twice))
    assert one["slope"] == pytest.approx(other["slope"])
    assert one["standard_error"] == pytest.approx(other["standard_error"], rel=0.05)
    assert one["lower"] < -2.8 < one["upper"] < 0


def test_no_difference_is_seldom_found_where_there_is_none() -> None:
    found = by_subset(bayes(Groups(measured(slope=0.5, unconverged=0.5, noise=0.05)))).loc["hmc, difference"]
    assert found["lower"] < 0 < found["upper"]


def test_nothing_is_claimed_of_few_chains() -> None:
    found = by_subset(bayes(Groups(measured(chains=8))))
    assert found.loc["hmc", "slope"] == found.loc["hmc", "slope"]
    assert found.loc[["hmc, converged", "hmc, not converged", "hmc, difference"], "slope"].isna().all()


def test_a_stuck_chain_has_not_converged_whatever_its_r_hat() -> None:
    table = pd.DataFrame(
        {"status": ["trained", "stuck", "trained", "trained"], "rhat_max": [1.0, 0.997, np.nan, 1.2], "ess_min": 99.0}
    )
    assert converged(table).tolist() == [True, False, False, False]


def test_a_study_without_chains_has_an_empty_table() -> None:
    table = measured()
    assert bayes(Groups(table[table["method"] == "sgd"])).empty


@pytest.mark.parametrize("there", [["sgd", "hmc"], ["hmc"], ["sgd"]])
def test_the_figure_shows_what_there_is(there: list[str], tmp_path: Path) -> None:
    from deltaball.figures import style

    style.use()
    from deltaball.figures import bayes as figure

    table = measured()
    networks = table.drop_duplicates("network_id")
    figure.draw("bayes_mnist_class_change", networks, table[table["method"].isin(there)], tmp_path)
    shown = pd.read_csv(tmp_path / "bayes_mnist_class_change.csv")
    assert len(shown) == 80 * len(there)
    assert set(shown["kind"]) == {
        kind for one in there for kind in {"sgd": ["sgd"]}.get(one, ["converged", "not converged"])
    }
    assert (tmp_path / "bayes_mnist_class_change.png").stat().st_size > 5000


@pytest.mark.parametrize(("there", "label"), [(["sgd", "hmc"], "epochs"), (["hmc"], "samples of the posterior")])
def test_samples_are_not_drawn_as_epochs(there: list[str], label: str) -> None:
    from deltaball.figures import style

    style.use()
    from deltaball.figures.tradeoff import panel_figure

    table = measured().assign(epochs=[None] * 80 + [5] * 80, posterior_samples=[100] * 80 + [None] * 80)
    drawn = panel_figure(table[table["method"].isin(there)].astype({"epochs": "Int64", "posterior_samples": "Int64"}))
    last = drawn.axes[-1]
    assert label in last.get_xlabel()
    assert [tick.get_text() for tick in last.get_xticklabels()] == ["5" if "sgd" in there else "100"]
