"""networks.parquet and robustness.parquet: every planned network has its row, whatever became of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned

from deltaball.base.errors import InputError
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.tables import columns, frames

FACTS = {"status": "trained", "train_accuracy": 0.9, "test_accuracy": 0.8, "test_loss": 0.5}
FACTS |= {"data_sha256": "ab", "software": "deltaball", "device": "cpu"}


@pytest.fixture
def plan() -> Plan:
    return planned(grid("fcn", epochs=[5, 10]), grid("cnn", epochs=5), grid("fcn", "imp"), grid("fcn", "hmc"))


@pytest.fixture
def store(plan: Plan, tmp_path: Path) -> Store:
    """The FCN trained to epoch 5 and diverged by epoch 10; nothing else."""
    kept, identity = Store(tmp_path), plan.networks[0].trajectory_id
    kept.save(identity, 5, Checkpoint((), {}, FACTS))
    kept.save(identity, 10, Checkpoint((), {}, {"status": "diverged", "device": "cpu"}))
    return kept


@pytest.fixture
def networks(plan: Plan, store: Store) -> pd.DataFrame:
    part = frames.trained(plan, [plan.trajectories[plan.networks[0].trajectory_id]], store)
    return frames.networks(plan, [part])


def test_every_planned_network_has_its_row_in_the_plans_order(plan: Plan, networks: pd.DataFrame):
    assert networks["network_id"].tolist() == [one.id for one in plan.networks]
    assert networks["status"].tolist() == ["trained", "diverged", "planned", "planned", "planned", "planned"]
    assert networks["test_accuracy"].isna().tolist() == [False, True, True, True, True, True]
    assert networks.loc[0, "test_loss"] == 0.5


def test_an_axis_that_does_not_apply_is_null(networks: pd.DataFrame):
    assert networks["depth"].isna().tolist() == [False, False, True, False, False, False]
    assert networks["kernel"].isna().tolist() == [True, True, False, True, True, True]
    assert networks["posterior_samples"].tolist()[-2:] == [100, 200]
    assert networks["epochs"].isna().tolist() == [False] * 4 + [True] * 2
    # Counts stay whole numbers although some are null.
    assert str(networks["depth"].dtype) == "Int64"


def test_tables_come_back_from_parquet_as_they_were(networks: pd.DataFrame, tmp_path: Path):
    frames.write(networks, tmp_path / "networks.parquet")
    pd.testing.assert_frame_equal(frames.read(tmp_path / "networks.parquet"), networks)


def test_no_network_yet_is_all_planned(plan: Plan):
    assert set(frames.networks(plan, [])["status"]) == {"planned"}


def test_rows_of_networks_no_longer_planned_are_left_out(plan: Plan, store: Store):
    part = frames.trained(plan, [plan.trajectories[plan.networks[0].trajectory_id]], store)
    smaller = planned(grid("fcn", epochs=10))
    assert frames.networks(smaller, [part])["status"].tolist() == ["diverged"]


def estimate(network: str, measure: str) -> dict:
    return {
        **dict.fromkeys(columns.ROBUSTNESS, "x"),
        **{name: 0.5 for name, kind in columns.ROBUSTNESS.items() if kind == "float64"},
        **{"samples": 738, "undecided": 0, "no_gradient": 0, "points_seed": 0},
        **{"network_id": network, "measure": measure},
    }


def test_estimates_follow_the_plans_order(plan: Plan):
    ids = [one.id for one in plan.networks]
    parts = [pd.DataFrame([estimate(identity, name) for name in ("b", "a")]) for identity in reversed(ids)]
    table = frames.robustness(plan, [*parts, pd.DataFrame([estimate("gone", "a")])])
    assert table["network_id"].tolist() == [identity for identity in ids for _ in range(2)]
    assert table["measure"].tolist() == ["b", "a"] * len(ids)
    assert table["samples"].dtype == np.int64
    assert frames.robustness(plan, []).columns.tolist() == list(columns.ROBUSTNESS)


def test_a_table_that_cannot_be_used_is_named(networks: pd.DataFrame, tmp_path: Path):
    path = tmp_path / "networks.parquet"
    with pytest.raises(InputError, match=r"networks\.parquet is not there; `snakemake --cores all`"):
        frames.read(path)
    frames.write(networks, path)
    with pytest.raises(InputError, match=r"networks\.parquet has no column diameter"):
        frames.read(path, ["network_id", "diameter"])
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as refused:
            frames.read(path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_table_of_an_earlier_version_has_nulls_where_it_lacks_a_column(
    plan: Plan, networks: pd.DataFrame, tmp_path: Path
):
    path = tmp_path / "networks.parquet"
    frames.write(networks.drop(columns="energies"), path)
    found = frames.read(path, ["network_id", *columns.RESULTS])
    pd.testing.assert_frame_equal(frames.networks(plan, [found[["network_id", *columns.RESULTS]]]), networks)


def test_networks_on_one_checkpoint_are_one_network() -> None:
    """Nothing is pruned at proportion 0, whatever the rounds and the ranking; an SGD network is no pruned one."""
    ways = {"proportion": [0.0, 0.5], "iterations": [1, 2], "ranking": ["global", "layer"], "epochs": [5, 10]}
    plan = planned(grid("fcn", "imp", **ways), grid("fcn", epochs=[5, 10]), grid("fcn", "hmc"))
    networks = frames.networks(plan, [])
    nothing = pd.DataFrame({"network_id": pd.Series(dtype="str")})
    found = frames.distinct(networks, nothing)
    assert len(networks) == 16 + 2 + 2
    assert found["method"].value_counts().to_dict() == {"imp": 2 + 8, "sgd": 2, "hmc": 2}
    dense = found[found["proportion"] == 0]
    assert dense[["epochs", "iterations", "ranking"]].to_numpy().tolist() == [[5, 1, "global"], [10, 1, "global"]]
    # The one that is measured stays, and the plan's order.
    (last,) = networks.index[(networks["proportion"] == 0) & (networks["iterations"] == 2)][[-1]]
    kept = frames.distinct(networks, networks.loc[[last], ["network_id"]])
    assert networks.loc[last, "network_id"] in set(kept["network_id"])
    assert len(kept) == len(found)
    assert kept["network_id"].tolist() == [one for one in networks["network_id"] if one in set(kept["network_id"])]
