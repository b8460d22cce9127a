"""What the page says of what was measured: attacks, certificates, saturated networks, several guarantees."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import grid
from drawn_figures import page_without_pictures
from synthetic_tables import both_sides, write_tables

from deltaball.analysis import writing
from deltaball.figures import autoencoding
from deltaball.plan.plan import Plan
from deltaball.report import readme
from deltaball.tables import frames
from deltaball.workflow import stages

CLASS_CHANGE = {"notion": "class_change", "delta": [0.03, 0.1]}


@pytest.fixture(autouse=True)
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: test\n")


def small(folder: Path, **changed: Any) -> Plan:
    grids = [grid(name="one", width=[64, 128], learning_rate=[0.1, 0.01])]
    return both_sides(folder, **{"grids": grids, "convergence": [], **changed})


def page(plan: Plan) -> str:
    """The report, its pictures left out, its lines joined."""
    writing.write_tables(plan)
    return re.sub(r"\s+", " ", page_without_pictures(plan).read_text())


def test_every_table_that_is_named_is_made_and_no_other(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    writing.write_tables(plan)
    assert {path.stem for path in (plan.study.folder / "tables").glob("*.csv")} == set(stages.tables(plan))


def rows(page: str, heading: str) -> list[list[str]]:
    """The first table's rows, as text, after a heading."""
    table = page.split(heading, 1)[1].split("<table>", 1)[1].split("</table>")[0]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in found]


def test_what_is_proven_is_told_per_ball_and_per_network(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    said = page(plan)
    enclosed = pd.read_csv(plan.study.folder / "tables/enclosures.csv").dropna(subset="epsilon")
    summary = rows(said, "How much of it is proven?")
    assert len(summary) == 3 + 3 + 1 + 1
    first = enclosed[(enclosed["notion"] == "class_change") & (enclosed["delta"] == 0.03)]
    numbers = [f"{first[name].median():.3f}" for name in ("certified", "attacked", "fgsm", "gap")]
    decided, opened = str((first["gap"] == 0).sum()), f"{100 * first['open'].median():.1f} %"
    assert summary[0] == ["mnist5k", "class_change", "L∞", "0.03", str(len(first)), *numbers, decided, opened]
    assert {row[-1] for row in summary if row[1] == "softmax_variation"} == {"–"}
    by_network = rows(said, "Network by network")
    assert len(by_network) == len(enclosed)
    one = enclosed.iloc[0]
    assert by_network[0][0] == one["network_id"]
    assert by_network[0][5:7] == [f"{one['certified']:.3f}", f"{one['attacked']:.3f}"]
    assert by_network[0][-1] == f"{one['undecided']:.0f}"


def test_how_near_violations_are_is_told_per_kind_and_per_network(tmp_path: Path) -> None:
    plan = small(tmp_path, analysis={"within": 0.1})
    write_tables(plan)
    said = page(plan)
    table = pd.read_csv(plan.study.folder / "tables/distances.csv")
    at = table[(table["within"] == 0.1) & (table["attack"] == "fmn")]
    assert (
        f"On mnist5k FMN finds a violation within 0.1 at {100 * at['frequency'].median():.1f} % of the points" in said
    )
    summary = rows(said, "How near is a violation?")
    # FMN within 0.1 and 0.2; of that ball alone FGSM, PGD and the exact answer.
    assert {(row[3], row[4]) for row in summary} == {
        ("0.1", "FMN"),
        ("0.2", "FMN"),
        ("0.1", "FGSM"),
        ("0.1", "PGD"),
        ("0.1", "the exact answer"),
    }
    severity = {row[4]: row[-1] for row in summary if row[3] == "0.1"}
    assert severity["PGD"] == "–"
    median, least, most = (at[name].median() for name in ("severity", "severity_least", "severity_most"))
    assert severity["FMN"] == f"{median:.4f} ({least:.4f} to {most:.4f})"
    each = rows(said.split("How near is a violation?", 1)[1], "Network by network")
    assert len(each) == len(table)
    assert each[0][0] == table["network_id"].iloc[0]


def test_auto_encoders_that_are_trained_are_shown(tmp_path: Path) -> None:
    plan = small(tmp_path, autoencoders=[{"name": name, "dataset": "mnist5k"} for name in ("one", "other")])
    write_tables(plan)
    assert "Auto-encoders" not in page(plan)
    images = {"test images": np.zeros((2, 5, 4, 1))}
    (plan.study.folder / "autoencoders").mkdir()
    path = plan.study.folder / "autoencoders/one.png"
    autoencoding.draw(images, {"error": np.ones(3), "discrepancy": np.ones(3)}, "one: small", "what it does.", path)
    said = page(plan)
    assert '<h2 id="autoencoders">' in said
    assert "one: small: what it does. <code>autoencoders/one.png</code>" in said
    assert "other.png" not in said


def test_draws_and_their_spread_are_told(tmp_path: Path) -> None:
    plan = small(
        tmp_path,
        measures=[CLASS_CHANGE],
        convergence=[{"measure": CLASS_CHANGE | {"attack": "pgd"}, "epsilon": [0.1, 0.05], "draws": 5}],
    )
    write_tables(plan)
    found = rows(page(plan), "<h2>Convergence</h2>")
    assert len(found) == len(plan.networks) * 2 * 2
    assert {row[7] for row in found} == {"185 of 1000", "738 of 1000"}
    assert {row[13] for row in found} == {"0.90", "0.51"}


def test_a_study_without_certificates_says_that_nothing_bounds_the_other_side(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[CLASS_CHANGE])
    write_tables(plan)
    said = page(plan)
    assert "Attacked with FGSM. An attack that fails proves nothing" in said
    assert "nothing bounds them from the other side" in said
    for absent in ("is proven?", "<h2>Convergence", "By the other attacks", "had no gradient", "(of a margin"):
        assert absent not in said


def test_attacks_and_certificates_are_all_named_and_one_attack_stands_in_front(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    said = page(plan)
    assert "Attacked with FGSM, FMN and PGD; figures and this table show, for each δ, the one" in said
    assert "IBP, CROWN and the exact answer bound them from the other side" in said
    front = rows(said, "Does robustness fall")
    assert {(row[2], row[3]) for row in front} == {
        ("class_change", "PGD"),
        ("softmax_variation", "PGD"),
        ("variation_above 0.5", "FGSM"),
        ("margin", "FMN"),
    }
    others = rows(said, "By the other attacks and certificates")
    assert {row[3] for row in others} == {"FGSM", "IBP", "CROWN", "the exact answer"}


def test_a_study_of_certificates_alone_is_reported(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[{**CLASS_CHANGE, "certificate": ["crown", "ibp"]}])
    write_tables(plan)
    assert stages.figures(plan) == []
    said = page(plan)
    assert "Judged by IBP and CROWN alone, without an attack" in said
    assert {row[3] for row in rows(said, "Does robustness fall")} == {"IBP", "CROWN"}
    assert "Attacked with" not in said


def test_saturated_networks_shout(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    path = plan.study.folder / "robustness.parquet"
    table = frames.read(path)
    ids = [network.id for network in plan.networks]
    for network, delta, count in ((ids[1], 0.03, 700), (ids[1], 0.1, 710), (ids[2], 0.03, 5)):
        there = (table["network_id"] == network) & (table["attack"] == "fgsm") & (table["delta"] == delta)
        table.loc[there, "no_gradient"] = count
    frames.write(table, path)
    said = page(plan)
    alarm = said.split('<div class="alarm">')[1].split("</div>")[0]
    assert f"FGSM had no gradient at 715 of 1,476 points of 2 of {len(ids)} networks." in alarm
    assert re.findall(r"<code>(\w{16})</code> \((\d+) of 738 points\)", alarm) == [(ids[1], "710"), (ids[2], "5")]
    assert "PGD" not in alarm
    assert said.index("alarm") < said.index("Does robustness fall")


def test_networks_that_lack_an_estimate_are_not_called_measured_without_a_word(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[{**CLASS_CHANGE, "attack": ["fgsm", "pgd"]}])
    write_tables(plan)
    assert "in part" not in page(plan)
    path, count = plan.study.folder / "robustness.parquet", len(plan.networks)
    table, ids = frames.read(path), [network.id for network in plan.networks]
    by_pgd = table["attack"] == "pgd"
    gone = by_pgd & table["network_id"].isin(ids[:2]) | by_pgd & (table["network_id"] == ids[2]) & (
        table["delta"] == 0.1
    )
    frames.write(table[~gone].reset_index(drop=True), path)
    said = page(plan)
    assert (
        f'<b>{count} of {count}</b>planned networks trained and measured, 3 of them <a href="#ledger">in part</a>'
        in said
    )
    assert (
        "3 networks lack estimates that the study asks of them: "
        "<code>class_change_linf_0.1_pgd</code> of 3, <code>class_change_linf_0.03_pgd</code> of 2."
    ) in said
    findings = readme.write(plan).read_text()
    assert f"{count} of {count} planned networks are trained and measured, 3 of them not by every measure" in findings


def test_several_guarantees_are_told_as_a_range(tmp_path: Path) -> None:
    sharper = {**CLASS_CHANGE, "attack": "pgd", "guarantee": {"epsilon": 0.045}}
    plan = small(tmp_path, measures=[CLASS_CHANGE, sharper, {"notion": "margin", "delta": 0.2}])
    write_tables(plan)
    said = page(plan)
    assert "<b>± 0.045 to 0.05</b>on every estimate (of a margin: × δ), with confidence 0.95" in said
    assert "<b>738 to 911</b>" in said


def test_tight_intervals_stand_beside_the_contract(tmp_path: Path) -> None:
    plan = small(tmp_path, measures=[CLASS_CHANGE, {"notion": "softmax_variation", "delta": 0.1}])
    write_tables(plan)
    table = frames.read(plan.study.folder / "robustness.parquet")
    d = table["notion"] == "softmax_variation"
    table = table.assign(lower=0.4, upper=0.5, tight_lower=0.42, tight_upper=d.map({True: 0.46, False: 0.48})).assign(
        tight_inequality=d.map({True: "betting", False: "clopper_pearson"})
    )
    frames.write(table, plan.study.folder / "robustness.parquet")
    said = page(plan)
    assert "0.030 (Clopper–Pearson, for R) against Hoeffding's 0.050" in said
    assert "0.020 (betting, for D and M) against Hoeffding's 0.050" in said


@pytest.mark.parametrize("changed", [{}, {"measures": [CLASS_CHANGE]}])
def test_nothing_measured_yet_is_a_page_too(tmp_path: Path, changed: dict[str, Any]) -> None:
    plan = small(tmp_path, **changed)
    write_tables(plan, share=0.0)
    said = page(plan)
    assert "Nothing is measured yet." in said
    assert ("Nothing is measured from both sides yet." in said) == (not changed)


def test_a_slope_has_the_interval_on_the_page_that_it_has_in_every_table(tmp_path: Path) -> None:
    """Few trajectories, so that it is the bootstrap's: clustered errors alone would claim too much."""
    grids = [grid(name="one", width=[64, 128], seed=[0, 1, 2, 3])]
    plan = small(tmp_path, grids=grids, measures=[CLASS_CHANGE])
    write_tables(plan)
    said = page(plan)
    learned = pd.read_csv(plan.study.folder / "tables/learned.csv").query("networks_of == 'all'").set_index("measure")
    shown = rows(said, "<h2>Regressions</h2>")
    assert len(shown) == len(learned) == 2
    for row in shown:
        one = learned.loc[row[2]]
        number, lower, upper = (f"{one[name]:.3f}".replace("-", "−") for name in ("slope", "lower", "upper"))
        assert row[5] == f"{number} [{lower}, {upper}]"
        assert row[6] == f"{one['p']:.3f}"
