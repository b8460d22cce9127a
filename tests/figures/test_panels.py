"""Captions, trends and box plots."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import two_data_sets, write_tables

from deltaball.study.architectures import ARCHITECTURES
from deltaball.tables import frames


def test_the_caption_says_what_one_must_know(tmp_path: Path) -> None:
    from deltaball.figures.panels import caption

    plan = two_data_sets(tmp_path)
    write_tables(plan, share=0.5)
    networks, robustness = frames.load(plan)
    shown = frames.measured(networks, robustness).query("dataset == 'mnist5k' and notion == 'class_change'")
    said = caption(shown, networks)
    assert f"{shown['network_id'].nunique()} of {len(plan.networks)} planned networks" in said
    for part in ("ε = 0.05", "confidence 0.95", "N = 738", "δ = 0.05, 0.1", "FGSM", "L∞", "no larger"):
        assert part in said


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([35_000, 35_000, 133_000], ["35k", "35k", "133k"]),
        ([7_000], ["7k"]),
        ([51_100, 51_400], ["51,100", "51,400"]),
        ([1_000_000, 2_500_000], ["1M", "2.5M"]),
        ([*range(1000, 11_000, 1000)], ["1k–2k"] * 2 + ["3k–4k"] * 2 + ["5k–6k"] * 2 + ["7k–8k"] * 2 + ["9k–10k"] * 2),
    ],
)
def test_capacity_is_binned_by_size_and_labelled_by_range(parameters: list[int], expected: list[str]) -> None:
    from deltaball.figures.tradeoff import capacity

    assert capacity(pd.DataFrame({"parameters": parameters})).tolist() == expected


def test_a_trends_band_is_that_of_the_clustered_regression() -> None:
    import matplotlib.pyplot as plt
    import statsmodels.formula.api as smf
    from scipy import stats

    from deltaball.figures.panels import trend

    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 5)
    accuracy = generator.uniform(0.3, 1, 40)
    estimate = 0.9 - 0.5 * accuracy + np.repeat(generator.normal(0, 0.1, 8), 5) + generator.normal(0, 0.02, 40)
    table = pd.DataFrame({"test_accuracy": accuracy, "estimate": estimate, "cluster": clusters.astype(str)})
    table = table.assign(notion="class_change", delta=0.1)
    fit = smf.ols("estimate ~ test_accuracy", table).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    figure, panel = plt.subplots()
    trend(panel, table, "k")
    line = panel.lines[-1].get_xydata()
    ends = np.array([[1, line[0, 0]], [1, line[-1, 0]]])
    assert line[[0, -1], 1] == pytest.approx(ends @ fit.params.to_numpy())
    half = stats.t.ppf(0.975, 7) * np.sqrt(np.diag(ends @ fit.cov_params().to_numpy() @ ends.T))
    band = panel.collections[0].get_paths()[0].vertices
    for end, reach in zip(line[[0, -1]], half, strict=True):
        there = band[np.isclose(band[:, 0], end[0])][:, 1]
        assert [there.min(), there.max()] == pytest.approx([end[1] - reach, end[1] + reach])
    plt.close(figure)


def test_rows_of_other_networks_share_their_levels_in_order() -> None:
    """A δ asked of few networks must not put the box plots of the others out of order."""
    from deltaball.figures import bayes, tradeoff

    rows = [
        {"delta": delta, "epochs": epochs, "parameters": parameters, "method": method, "cluster": f"{index}{epochs}"}
        for index, (delta, parameters, method) in enumerate(
            [(0.01, 64_000, "sgd"), (0.1, 64_000, "sgd"), (0.1, 8_000, "sgd"), (0.1, 8_000, "hmc"), (0.1, 9_000, "hmc")]
        )
        for epochs in ([10, 20] if delta == 0.01 else [5, 10, 15, 20])
    ]
    alike = {"notion": "class_change", "norm": "linf", "gamma": np.nan, "architecture": "fcn", "epsilon": 0.05}
    shown = pd.DataFrame(rows).assign(**alike, test_accuracy=0.9, estimate=0.5, kind="sgd", status="trained")
    shown = shown.assign(rhat_max=1.0, ess_min=100.0, network_id=range(len(shown)))
    capacity, length = tradeoff.panel_figure(shown).axes[-2:]
    assert [label.get_text() for label in length.get_xticklabels()] == ["5", "10", "15", "20"]
    assert [label.get_text() for label in capacity.get_xticklabels()] == ["8k", "64k"]
    capacity = bayes.panel_figure(shown).axes[-1]
    assert [label.get_text() for label in capacity.get_xticklabels()] == ["8k", "9k", "64k"]


def test_a_panel_whose_estimates_are_all_alike_says_so() -> None:
    import matplotlib.pyplot as plt

    from deltaball.figures.panels import scaled

    figure, panels = plt.subplots(2)
    row = {"notion": "class_change", "delta": 0.1, "epsilon": 0.05}
    for panel, estimates in zip(panels, ([1.0] * 12, [0.9] * 11 + [1.0]), strict=True):
        scaled(panel, pd.DataFrame({"estimate": estimates}).assign(**row))
    assert [[text.get_text() for text in panel.texts] for panel in panels] == [["all 12 estimates are 1"], []]
    plt.close(figure)


def test_every_architecture_has_a_mark_of_its_own_and_a_name() -> None:
    from deltaball.figures import style

    assert {*style.MARKS} == {*style.NAMES} == {*ARCHITECTURES}
    assert len({*style.MARKS.values()}) == len({*style.NAMES.values()}) == len(ARCHITECTURES)
