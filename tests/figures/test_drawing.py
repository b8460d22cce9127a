"""Figures and report from synthetic tables: what the captions must say, and tables that are not all there."""

from pathlib import Path

import pandas as pd
import pytest
from drawn_figures import draw_all, draw_only, drawn, page_without_pictures, small
from matplotlib.image import imread
from synthetic_tables import one_data_set, two_data_sets, write_tables

from deltaball.analysis import writing
from deltaball.figures import drawing
from deltaball.plan import loading
from deltaball.tables import frames
from deltaball.workflow import stages


def test_every_data_set_and_notion_has_a_figure_and_the_numbers_behind_it(tmp_path: Path) -> None:
    plan = two_data_sets(tmp_path)
    write_tables(plan)
    names = [
        name
        for name in stages.figures(plan)
        if name not in stages.PAPERS_FIGURES["004"] and not name.startswith("diagnostics")
    ]
    assert len(names) == 6 + 4
    draw_only(plan, *names)
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


def test_every_kind_of_figure_is_drawn_and_some_study_has_it(tmp_path: Path, root: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    assert set(drawing.by_kind(plan)) == set(stages.FIGURES)
    studies = [loading.planned(path) for path in [root / "config.yaml", *root.glob("studies/*.yaml")]]
    assert {stages.figure_kind(name) for study in studies for name in stages.figures(study)} == set(stages.FIGURES)


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    plan = one_data_set(tmp_path, measures=[{"notion": "class_change", "delta": 0.1}])
    write_tables(plan)
    pages = [draw_all(plan) for _ in range(2)]
    assert pages[0] == pages[1]


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
    writing.write_tables(plan)
    page = page_without_pictures(plan).read_text()
    assert "study: &lt;b&gt;bold&lt;/b&gt;" in page
    for facts in plan.facts.values():
        assert facts.fingerprint in page
