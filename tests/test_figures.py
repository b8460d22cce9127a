"""Figures and report from synthetic tables: what the captions must say, and tables that are not all there."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from matplotlib import rcParams
from matplotlib.image import imread

from deltaball.analysis import writing
from deltaball.analysis.enclosures import enclosures
from deltaball.estimation.convergence import convergence
from deltaball.estimation.curves import curves
from deltaball.figures import drawing, style
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.report import page
from deltaball.tables import columns, frames
from deltaball.workflow import stages

MEASURES = [
    {"notion": "class_change", "delta": [0.1, 0.05]},
    {"notion": "variation_above", "delta": 0.1, "gamma": [0.3, 0.5]},
]


def two_data_sets(folder: Path, **changed: Any) -> Plan:
    return planned(
        grid(name="one", width=[64, 128, 256], learning_rate=[0.1, 0.01]),
        grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001]),
        grid("fcn", "imp", name="four", proportion=[0.5, 0.9], iterations=[1, 2], width=[64, 128, 256], epochs=5),
        grid("vgg", name="three", dataset="cifar10", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001]),
        **{"measures": MEASURES, "results": str(folder), **changed},
    )


def both_sides(folder: Path, **changed: Any) -> Plan:
    """A study with several attacks, certificates of some networks, margins and a convergence experiment."""
    deltas = [0.03, 0.06, 0.1]
    some = {"grid": ["one", "two"], "learning_rate": 0.1}
    measures = [
        {"notion": "class_change", "delta": deltas, "attack": ["fgsm", "pgd"]},
        {"notion": "class_change", "delta": deltas, "certificate": ["crown", "exact"], "only": some},
        {"notion": "softmax_variation", "delta": deltas, "attack": ["fgsm", "pgd"]},
        {"notion": "softmax_variation", "delta": deltas, "certificate": "crown", "only": some},
        {"notion": "variation_above", "delta": 0.06, "gamma": 0.5, "attack": "fgsm", "certificate": "crown"},
        {"notion": "margin", "delta": 0.2, "attack": "fmn", "certificate": ["ibp", "crown"], "only": some},
    ]
    experiment = {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": ["crown", "exact"]}
    of_two = {"epsilon": [0.2, 0.1, 0.07, 0.05, 0.045], "draws": 50}
    convergence = [
        {"measure": experiment | {"only": some | {"grid": "one", "width": 64, "epochs": 5}}, **of_two},
        {"measure": experiment | {"only": some | {"grid": "two", "filters": 4, "epochs": 5}}, **of_two},
    ]
    grids = [
        grid(name="one", width=[64, 128, 256], learning_rate=[0.1, 0.01]),
        grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01]),
        grid("fcn", "imp", name="four", proportion=[0.5, 0.9], width=[64, 128, 256], epochs=5),
    ]
    settings = {"measures": measures, "convergence": convergence, "grids": grids, "results": str(folder), **changed}
    return planned(*settings.pop("grids"), **settings)


def synthetic_outcomes(one: Measure, distance: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Outcomes [N] of points whose closest violation is `distance` [N] away: the weaker a judge, the farther from it.

    `luck` [N] in [0, 1] is the points' own; an exact answer leaves the unluckiest of the narrow ones open.
    """
    seen = {"fgsm": 1 + 0.8 * luck, "pgd": 1 + 0.04 * luck, "fmn": 1 + 0.02 * luck}
    seen |= {"crown": 1 - 0.45 * luck, "ibp": 1 - 0.9 * luck, "exact": np.ones(len(luck))}
    far = distance * seen[one.by]
    if one.notion == "margin":
        return np.minimum(far, one.delta) if one.attack else np.where(far > one.delta, one.delta, 0.0)
    variation = np.clip(0.45 * one.delta / far, 0, 1)
    if one.notion == "softmax_variation":
        return variation
    robust = (far > one.delta if one.notion == "class_change" else variation < one.gamma).astype(float)
    if one.by == "exact":
        robust[(luck > 0.95) & (np.abs(distance - one.delta) < 0.2 * one.delta)] = np.nan
    return robust


def write_tables(plan: Plan, share: float = 1.0) -> None:
    """Tables as a run would leave them in which the first `share` of the networks is finished, values drawn."""
    generator = np.random.default_rng(0)
    done = plan.networks[: round(share * len(plan.networks))]
    facts = pd.DataFrame(
        {
            "network_id": [network.id for network in done],
            "sparsity": 0.0,
            "train_accuracy": 0.9,
            "test_accuracy": generator.uniform(0.5, 1, len(done)),
            "test_loss": 0.3,
            "trunk_accuracy": [0.9 if network.trunk else None for network in done],
            "status": "trained",
            "data_sha256": [plan.facts[network.dataset].fingerprint for network in done],
            "software": "torch",
            "device": "cpu",
        }
    )
    rows, lists = [], []
    for network in done:
        total = max([one.samples for one in plan.measures] + list(plan.asked_of(network).values()))
        distance = generator.lognormal(np.log(generator.uniform(0.03, 0.15)), 0.7, total)
        luck = generator.uniform(size=total)
        for one, samples in plan.asked_of(network).items():
            values = synthetic_outcomes(one, distance, luck)[:samples]
            lists.append({"network_id": network.id, "measure": one.name, "values": values})
            if one not in plan.measures_of(network):
                continue
            known = np.nan_to_num(values[: one.samples])
            half = 0.6 * one.epsilon
            rows.append(
                {
                    "network_id": network.id,
                    "measure": one.name,
                    "notion": one.notion,
                    "norm": one.norm,
                    "delta": one.delta,
                    "gamma": one.gamma,
                    "attack": one.attack,
                    "certificate": one.certificate,
                    "samples": one.samples,
                    "estimate": known.mean(),
                    "trunk_estimate": 0.9 * known.mean() if network.trunk else None,
                    "lower": max(0, known.mean() - one.epsilon),
                    "upper": min(one.highest, known.mean() + one.epsilon),
                    "epsilon": one.epsilon,
                    "confidence": one.confidence,
                    "inequality": "hoeffding",
                    "side": "lower" if bool(one.attack) == (one.notion == "softmax_variation") else "upper",
                    "tight_lower": max(0, known.mean() - half),
                    "tight_upper": min(one.highest, known.mean() + half),
                    "tight_inequality": "betting" if "above" not in one.notion else "clopper_pearson",
                    "undecided": int(np.isnan(values).sum()),
                    "no_gradient": 0 if one.attack else None,
                }
            )
    outcomes = pd.DataFrame(lists, columns=["network_id", "measure", "values"])
    rows = pd.DataFrame(rows, columns=list(columns.ROBUSTNESS))
    folder = plan.study.folder
    frames.write(frames.networks(plan, [facts] if len(facts) else []), folder / "networks.parquet")
    frames.write(frames.robustness(plan, [rows]), folder / "robustness.parquet")
    frames.write(curves(plan, outcomes), folder / "curves.parquet")
    frames.write(convergence(plan, outcomes), folder / "convergence.parquet")


def draw_all(plan: Plan) -> str:
    writing.write_tables(plan)
    drawing.draw(plan)
    return page.write(plan, Path("config.yaml")).read_text()


@pytest.fixture(autouse=True)
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: <b>bold</b>\n")


def test_every_data_set_and_notion_has_a_figure_and_the_numbers_behind_it(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    draw_all(plan)
    names = [name for name in stages.figures(plan) if name not in stages.PAPER and not name.startswith("diagnostics")]
    assert len(names) == 6 + 4
    for name in names:
        image = imread(plan.study.folder / f"figures/{name}.png")
        assert image.shape[1] > 1500
        assert image[..., :3].std() > 0.05
        assert "<svg" in (plan.study.folder / f"figures/{name}.svg").read_text()
        shown = pd.read_csv(plan.study.folder / f"figures/{name}.csv")
        every = frames.measured(*frames.load(plan))
        kind, _, rest = name.partition("_")
        alike = every[(every["dataset"] + "_" + every["notion"]) == rest]
        fcn = alike["architecture"] == "fcn"
        if kind == "hyperparameters":  # the larger of two δ's, and of several γ the first
            alike = alike[(alike["delta"] == 0.1) & (alike["gamma"].isna() | (alike["gamma"] == 0.3))]
            wanted = alike
        else:
            wanted = alike[fcn] if kind == "pruning" else alike[alike["method"] != "imp"]
        assert len(shown) == len(wanted) > 0
        assert shown["estimate"].tolist() == pytest.approx(wanted["estimate"].tolist())


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path, measures=[{"notion": "class_change", "delta": 0.1}])
    write_tables(plan)
    pages = [draw_all(plan) for _ in range(2)]
    assert pages[0] == pages[1]


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


def small(folder: Path, **changed: Any) -> Plan:
    """`both_sides` with fewer networks, on few points."""
    grids = [grid(name="one", width=[64, 128], learning_rate=[0.1, 0.01]), grid("cnn", name="two", learning_rate=0.1)]
    return both_sides(folder, **{"grids": grids, "guarantee": {"epsilon": 0.1, "confidence": 0.95}, **changed})


def drawn(plan: Plan, name: str) -> tuple[pd.DataFrame, str]:
    """One figure's CSV, and what its SVG says (drawn as text)."""
    use = style.use

    def with_text() -> None:
        use()
        rcParams["svg.fonttype"] = "none"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stages, "figures", lambda _: [name])
        patched.setattr(style, "use", with_text)
        drawing.draw(plan)
    folder = plan.study.folder / "figures"
    text = " ".join(re.findall(r">([^<>]+)</text>", (folder / f"{name}.svg").read_text()))
    return pd.read_csv(folder / f"{name}.csv"), html.unescape(text)


def test_one_attack_is_drawn_and_named_and_no_certificate(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    for notion, attack in (("class_change", "PGD"), ("variation_above", "FGSM"), ("margin", "FMN")):
        shown, said = drawn(plan, f"tradeoff_mnist5k_{notion}")
        assert set(shown["attack"]) == {attack.lower()}
        assert shown["certificate"].isna().all()
        assert not shown.duplicated(["network_id", "delta"]).any()
        assert f"{attack} in L∞ balls of δ = " in said
    # Margins are asked of networks of one learning rate, in their own unit.
    assert "6 of 6 planned networks" in said
    assert "within ε = 0.02 of" in said
    assert "M, mean margin" in said


def test_the_attack_of_most_networks_is_drawn(tmp_path: Path) -> None:
    some = {"grid": "one"}
    few = [{"notion": "class_change", "delta": 0.1, "attack": "fgsm"}]
    few += [{"notion": "class_change", "delta": 0.1, "attack": "pgd", "only": some}]
    plan = small(tmp_path, measures=few, convergence=[])
    write_tables(plan)
    shown, said = drawn(plan, "tradeoff_mnist5k_class_change")
    assert set(shown["attack"]) == {"fgsm"}
    assert len(shown) == len(plan.networks)
    assert f"{len(plan.networks)} of {len(plan.networks)} planned networks. FGSM" in said


def test_networks_are_drawn_between_both_sides_at_the_deltas_asked_for(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    every = enclosures(*frames.load(plan), frames.load_curves(plan)[0])
    for notion, of_all in (("class_change", 6), ("softmax_variation", 6), ("variation_above", 10), ("margin", 6)):
        shown, said = drawn(plan, f"enclosure_mnist5k_{notion}")
        asked = {one.delta for one in plan.measures if one.notion == notion}
        # The margin curve has δ's of its own.
        assert set(shown["delta"]) == asked
        assert shown["network_id"].nunique() == of_all
        wanted = every[(every["notion"] == notion) & every["delta"].isin(asked)]
        assert shown["gap"].tolist() == pytest.approx(wanted["gap"].tolist())
        assert f"{of_all} of {of_all} networks that certificates are asked of" in said
        assert ("(10 planned in all)" in said) == (of_all < 10)
        assert f"Half of the bars are shorter than {shown['gap'].median():.3f}" in said
        assert f"{100 * (shown['gap'] < shown['epsilon']).mean():.0f} % are shorter than ε" in said
        assert ("FGSM alone would have said" in said) == (notion != "margin")
    lower, upper = shown["certified"], shown["attacked"]
    assert ((shown["lower"] <= lower) & (lower <= upper) & (upper <= shown["upper"])).all()


def test_a_network_that_only_an_experiment_certifies_is_not_among_those_asked_for(tmp_path: Path) -> None:
    other = {"grid": "one", "width": 64, "learning_rate": 0.01, "epochs": 5}
    experiment = {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": "crown", "only": other}
    plan = small(tmp_path, convergence=[{"measure": experiment, "epsilon": [0.2, 0.1], "draws": 5}])
    write_tables(plan)
    every = enclosures(*frames.load(plan), frames.load_curves(plan)[0])
    (added,) = plan.experiments[0].networks
    assert added.id in set(every["network_id"][every["notion"] == "class_change"])
    shown, said = drawn(plan, "enclosure_mnist5k_class_change")
    assert added.id not in set(shown["network_id"])
    assert "6 of 6 networks that certificates are asked of" in said


def test_a_variation_is_drawn_the_other_way_round(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, "enclosure_mnist5k_softmax_variation")
    assert (shown["attacked"] <= shown["certified"]).all()
    assert "its lower end is what FGSM and PGD found, its upper end what CROWN excluded" in said
    _, said = drawn(plan, "enclosure_mnist5k_class_change")
    proved = "its lower end is what IBP, CROWN and the exact answer proved"
    assert f"{proved}, its upper end what FGSM, FMN and PGD left" in said


def test_draws_are_drawn_with_what_is_expected_of_them(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, "convergence_mnist5k")
    assert len(shown) == 2 * 3 * 5 * 50  # networks, sides, ε's, draws
    assert len(frames.load_curves(plan)[1]) == len(shown)
    assert shown.groupby(["network_id", "measure", "epsilon"])["sd_expected"].nunique().max() == 1
    assert "2 of 2 planned networks. Each dot is the estimate from one of 50 draws" in said
    assert "T = 1000 test points, which holds every draw" in said
    assert "0.30 at N = 911" in said


def test_what_is_not_measured_yet_has_figures_that_say_so(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan, share=0.0)
    for name in ("enclosure_mnist5k_class_change", "convergence_mnist5k"):
        shown, said = drawn(plan, name)
        assert len(shown) == 0
        assert "0 of " in said
        assert " yet." in said
        assert imread(plan.study.folder / f"figures/{name}.png").shape[1] > 1500


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])
def test_unfinished_studies_draw_what_is_there_and_list_what_is_not(tmp_path: Path, share: float) -> None:
    plan = two_data_sets(tmp_path, measures=[{"notion": "class_change", "delta": 0.1}])
    write_tables(plan, share)
    page = draw_all(plan)
    missing = plan.networks[round(share * len(plan.networks)) :]
    assert f"{len(missing)} networks are missing" in page
    for network in missing:
        assert network.id in page
    assert f"{len(plan.networks) - len(missing)} of {len(plan.networks)}" in page


def test_the_study_file_is_quoted_and_not_rendered(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path, measures=[{"notion": "class_change", "delta": 0.1}])
    write_tables(plan)
    page = draw_all(plan)
    assert "study: &lt;b&gt;bold&lt;/b&gt;" in page
    for facts in plan.facts.values():
        assert facts.fingerprint in page


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


def test_the_papers_figures_show_the_middle_delta_of_each_data_set(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    every = frames.measured(*frames.load(plan))
    for name, methods in (("figure2", {"sgd"}), ("figure3", {"sgd", "imp"})):
        shown, said = drawn(plan, name)
        wanted = every[every["method"].isin(methods) & (every["delta"] == 0.1) & every["gamma"].isin([np.nan, 0.3])]
        if name == "figure3":
            wanted = wanted[(wanted["dataset"] == "mnist5k") & (wanted["architecture"] == "fcn")]
        assert shown[["network_id", "measure"]].apply(tuple, axis=1).is_unique
        assert set(zip(shown["network_id"], shown["estimate"].round(9), strict=True)) == set(
            zip(wanted["network_id"], wanted["estimate"].round(9), strict=True)
        )
        assert f"{wanted['network_id'].nunique()} of {wanted['network_id'].nunique()} planned networks" in said


@pytest.mark.parametrize("weaker", [True, False])
def test_sgd_networks_are_shown_under_a_tenth_of_delta_where_the_study_has_it(tmp_path: Path, weaker: bool) -> None:
    measures = [{"notion": "softmax_variation", "delta": [0.03, 0.06, 0.1]}]
    measures += [{"notion": "softmax_variation", "delta": 0.006, "only": {"method": "sgd"}}] * weaker
    grids = [grid(name="one", width=[64, 128]), grid("fcn", "hmc", name="five", width=[64, 128])]
    plan = planned(*grids, measures=measures, results=str(tmp_path))
    write_tables(plan)
    shown, said = drawn(plan, "figure4")
    pairs = shown.groupby("panel")[["method", "delta"]].apply(lambda rows: set(map(tuple, rows.to_numpy())))
    assert pairs["variation, δ = 0.06"] == {("sgd", 0.06), ("hmc", 0.06)}
    if weaker:
        assert pairs["SGD at δ = 0.006, HMC at 0.06"] == {("sgd", 0.006), ("hmc", 0.06)}
    assert ("The paper attacked SGD" in said) == (not weaker)
    assert len(pairs) == 1 + weaker
    assert "8 of 8 planned networks" in said


def test_the_middle_delta_is_chosen_by_what_was_asked() -> None:
    from deltaball.figures.paper import middle_level

    assert middle_level({("linf", None, 0.1): 9, ("linf", None, 0.03): 9, ("linf", None, 0.06): 9}) == (
        "linf",
        None,
        0.06,
    )
    assert middle_level({("linf", None, 0.02): 9, ("linf", None, 0.05): 9}) == ("linf", None, 0.05)
    assert middle_level({("linf", None, 0.006): 5, ("linf", None, 0.06): 9}) == ("linf", None, 0.06)
    assert middle_level({("l2", 0.3, 1.0): 9, ("l2", 0.5, 2.0): 9}) == ("l2", 0.3, 1.0)


def test_figure_1_shows_the_exact_answer_else_the_attack(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, "figure1")
    assert set(shown["certificate"]) == {"exact"}
    assert len(shown) == 2 * 5 * 50
    assert "2 of 2 planned networks" in said
    attacked = [{"measure": {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": "crown"}}]
    plan = small(tmp_path / "attacked", convergence=[attacked[0] | {"epsilon": [0.2, 0.1], "draws": 5}])
    write_tables(plan)
    shown, said = drawn(plan, "figure1")
    assert set(shown["attack"]) == {"pgd"}


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
    capacity, length = tradeoff._panels(shown).axes[-2:]
    assert [label.get_text() for label in length.get_xticklabels()] == ["5", "10", "15", "20"]
    assert [label.get_text() for label in capacity.get_xticklabels()] == ["8k", "64k"]
    capacity = bayes._panels(shown).axes[-1]
    assert [label.get_text() for label in capacity.get_xticklabels()] == ["8k", "9k", "64k"]
