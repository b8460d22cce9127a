"""The tables of small CIFAR-10 networks in the repository: complete, and of every kind."""

from pathlib import Path

import pandas as pd
import pytest

from deltaball.data.catalogue import CATALOGUE
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.run import merging, pieces
from deltaball.tables import frames


@pytest.fixture
def tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, pd.DataFrame, pd.DataFrame]:
    monkeypatch.chdir(root)
    plan = loading.planned(Path("studies/small-cifar.yaml"))
    return plan, *frames.load(plan)


def test_every_network_of_every_kind_is_trained_and_measured(tables: tuple[Plan, pd.DataFrame, pd.DataFrame]) -> None:
    plan, networks, _ = tables
    assert {*networks["architecture"]} == {"resnet20", "nin", "vgg"}
    assert {*networks["status"]} == {"trained"}
    assert {*networks["data_sha256"]} == {CATALOGUE["cifar10"].fingerprint}
    assert merging.lacking(plan, pieces.of_folder(plan.study.folder)) == set()
    assert (networks["test_accuracy"] > 0.15).all()  # guessing has 0.1


def test_epochs_are_chosen_where_images_are_held_out(tables: tuple[Plan, pd.DataFrame, pd.DataFrame]) -> None:
    _, networks, _ = tables
    held_out = networks["validation"].fillna(0) > 0
    assert {*networks["architecture"][held_out]} == {"resnet20"}
    assert [*networks["chosen_epoch"].notna()] == [*held_out]
    assert (networks["chosen_epoch"] <= networks["epochs"])[held_out].all()


def test_what_is_proven_no_attack_refutes(tables: tuple[Plan, pd.DataFrame, pd.DataFrame]) -> None:
    plan, _, robustness = tables
    rows = robustness[robustness["notion"] == "class_change"]
    (proven,) = rows[rows["certificate"] == "crown"].to_dict("records")
    larger = rows[(rows["network_id"] == proven["network_id"]) & (rows["delta"] > proven["delta"])]
    assert proven["estimate"] > 0
    # In larger balls, and of more points: the intervals may touch, no more.
    assert proven["lower"] <= larger["upper"].max()
    assert sum(path.stat().st_size for path in plan.study.folder.glob("*.parquet")) < 500_000
