"""Figures and report from synthetic tables: what the caption must say, and tables that are not all there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from matplotlib.image import imread

from deltaball import analysis, figures, report, stages, tables
from deltaball.plan import Plan

MEASURES = [
    {"notion": "class_change", "delta": [0.1, 0.05]},
    {"notion": "variation_above", "delta": 0.1, "gamma": [0.3, 0.5]},
]


def two_data_sets(folder: Path) -> Plan:
    return planned(
        grid(name="one", width=[64, 128, 256], learning_rate=[0.1, 0.01]),
        grid("cnn", name="two", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001]),
        grid("fcn", "imp", name="four", proportion=[0.5, 0.9], iterations=[1, 2], width=[64, 128, 256], epochs=5),
        grid("vgg", name="three", dataset="cifar10", filters=[4, 8], learning_rate=[0.1, 0.01, 0.001]),
        measures=MEASURES,
        results=str(folder),
    )


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
    rows = pd.DataFrame(
        {
            "network_id": network.id,
            "measure": one.name,
            "notion": one.notion,
            "norm": one.norm,
            "delta": one.delta,
            "gamma": one.gamma,
            "attack": one.attack,
            "samples": 738,
            "estimate": generator.uniform(),
            "trunk_estimate": 0.5 if network.trunk else None,
            "lower": 0.0,
            "upper": 1.0,
            "epsilon": 0.05,
            "confidence": 0.95,
            "inequality": "hoeffding",
            "side": "upper",
        }
        for network in done
        for one in plan.measures
    )
    rows = rows.reindex(columns=list(tables.ROBUSTNESS))
    tables.write(tables.networks(plan, [facts] if len(facts) else []), plan.study.folder / "networks.parquet")
    tables.write(tables.robustness(plan, [rows]), plan.study.folder / "robustness.parquet")


def draw_all(plan: Plan) -> str:
    analysis.write_tables(plan)
    figures.draw(plan)
    return report.write(plan, Path("config.yaml")).read_text()


@pytest.fixture(autouse=True)
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: <b>bold</b>\n")


def test_every_data_set_and_notion_has_a_figure_and_the_numbers_behind_it(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    draw_all(plan)
    names = stages.figures(plan)
    assert len(names) == 6
    for name in names:
        image = imread(plan.study.folder / f"figures/{name}.png")
        assert image.shape[1] > 1500
        assert image[..., :3].std() > 0.05
        assert "<svg" in (plan.study.folder / f"figures/{name}.svg").read_text()
        shown = pd.read_csv(plan.study.folder / f"figures/{name}.csv")
        every = tables.measured(*tables.load(plan))
        kind, _, rest = name.partition("_")
        alike = every[(every["dataset"] + "_" + every["notion"]) == rest]
        fcn = alike["architecture"] == "fcn"
        wanted = alike[fcn] if kind == "pruning" else alike[alike["method"] != "imp"]
        assert len(shown) == len(wanted) > 0
        assert shown["estimate"].tolist() == pytest.approx(wanted["estimate"].tolist())


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    pages = [draw_all(plan) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_caption_says_what_one_must_know(tmp_path: Path) -> None:
    from deltaball.figures.panels import caption

    plan = two_data_sets(tmp_path)
    write_tables(plan, share=0.5)
    networks, robustness = tables.load(plan)
    shown = tables.measured(networks, robustness).query("dataset == 'mnist5k' and notion == 'class_change'")
    said = caption(shown, networks)
    assert f"{shown['network_id'].nunique()} of {len(plan.networks)} planned networks" in said
    for part in ("ε = 0.05", "confidence 0.95", "N = 738", "δ = 0.05, 0.1", "FGSM", "L∞", "no larger"):
        assert part in said


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])
def test_unfinished_studies_draw_what_is_there_and_list_what_is_not(tmp_path: Path, share: float) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan, share)
    page = draw_all(plan)
    missing = plan.networks[round(share * len(plan.networks)) :]
    assert f"{len(missing)} networks are missing" in page
    for network in missing:
        assert network.id in page
    assert f"{len(plan.networks) - len(missing)} of {len(plan.networks)}" in page


def test_the_study_file_is_quoted_and_not_rendered(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
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
    from deltaball.figures.tradeoff import _capacity

    assert _capacity(pd.DataFrame({"parameters": parameters})).tolist() == expected
