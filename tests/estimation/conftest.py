"""A few small networks, trained once, and measured from both sides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import planned_few
from estimation_cases import BOTH_SIDES, GRID, MEASURES, SEED, measured

from deltaball.data.datasets import Dataset
from deltaball.estimation.estimates import estimates
from deltaball.estimation.points import draw_points
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.training.sgd import train


@pytest.fixture(scope="session")
def plan(data_folder: Path) -> Plan:
    return planned_few(data_folder, GRID, measures=MEASURES)


@pytest.fixture(scope="session")
def pack(plan: Plan) -> list[Trajectory]:
    return list(plan.trajectories.values())


@pytest.fixture(scope="session")
def trained(plan: Plan, pack: list[Trajectory], few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("trained"))
    train(pack, plan.layers(pack[0]), few, store, "cpu")
    return store


@pytest.fixture
def store(trained: Store, pack: list[Trajectory], tmp_path: Path) -> Store:
    """The trained networks, nothing measured yet."""
    fresh = Store(tmp_path)
    for one in pack:
        for step in one.checkpoints:
            fresh.save(one.id, step, trained.load(one.id, step))
    return fresh


@pytest.fixture(scope="session")
def points(plan: Plan, few: Dataset) -> np.ndarray:
    return few.x_test[draw_points(few.facts, plan.measures[0].samples, SEED)]


@pytest.fixture(scope="session")
def both(data_folder: Path) -> Plan:
    return planned_few(data_folder, GRID, measures=BOTH_SIDES)


@pytest.fixture(scope="session")
def enclosed(both: Plan, pack: list[Trajectory], points: np.ndarray, trained: Store, tmp_path_factory: Any) -> Any:
    """Everything measured from both sides: the store, and the tables of estimates and outcomes."""
    store = Store(tmp_path_factory.mktemp("enclosed"))
    for one in pack:
        for step in one.checkpoints:
            store.save(one.id, step, trained.load(one.id, step))
    measured(both, pack, points, both.measures, store)
    return store, *estimates(both, pack, store)
