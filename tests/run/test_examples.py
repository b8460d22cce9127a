"""Images for the report: of networks that are there, the twins are those that were measured, and lie in their balls."""

from pathlib import Path

import numpy as np
import pytest
from builders import grid, planned

from deltaball.data import datasets
from deltaball.estimation import measuring
from deltaball.estimation.points import draw_points
from deltaball.estimation.stored import StoredOutcomes
from deltaball.networks.initial import initial_weights
from deltaball.plan.batches import IMAGES_MULTIPLE
from deltaball.plan.plan import Plan
from deltaball.run import examples
from deltaball.store.store import Checkpoint, Store
from deltaball.tables import frames

DELTAS = [0.02, 0.05, 0.1, 0.2]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A study of small networks with drawn weights in its store; one of them diverged."""
    monkeypatch.chdir(tmp_path)
    measures = [{"notion": "class_change", "delta": DELTAS, "attack": ["fgsm", "pgd"]}]
    grids = [grid(name="one", width=[8, 16], learning_rate=[0.1, 0.01], epochs=1)]
    plan = planned(*grids, measures=measures, results=str(tmp_path / "results"))
    store, generator = Store(plan.study.store), np.random.default_rng(0)
    store.save_dataset(datasets.load("mnist5k", tmp_path))
    for place, network in enumerate(plan.networks):
        weights = tuple(initial_weights(plan.layers(network), generator))
        facts = {"status": "trained" if place else "diverged"}
        checkpoint = Checkpoint(weights if place else (), {}, facts)
        store.save(network.trajectory_id, network.checkpoint, checkpoint)
    return plan


def test_images_are_the_measured_points_and_twins_lie_in_their_balls(plan: Plan) -> None:
    examples.write(plan)
    table = frames.load_examples(plan)
    assert set(table["network_id"]) == {one.id for one in plan.networks[1:]}
    assert set(table["attack"]) == {"pgd"}
    assert set(table["delta"]) == {0.02, 0.1, 0.2}
    dataset = Store(plan.study.store).load_dataset(plan.facts["mnist5k"])
    drawn = draw_points(dataset.facts, examples.POINTS, plan.study.guarantee.seed)
    for row in table.itertuples():
        size = (row.height, row.width, row.channels)
        image, twin = (np.frombuffer(content, np.uint8).reshape(size) for content in (row.image, row.perturbed))
        assert np.abs(image - 255 * dataset.x_test[drawn[row.point]]).max() <= 0.5 + 1e-4
        assert row.label == dataset.y_test[drawn[row.point]]
        # Half a level is lost on either side.
        assert np.abs(image.astype(int) - twin).max() <= 255 * row.delta + 1


def test_a_twin_changes_class_exactly_where_the_outcome_says_so(plan: Plan) -> None:
    examples.write(plan)
    table = frames.load_examples(plan)
    network, store = plan.networks[1], Store(plan.study.store)
    measures = [one for one in plan.measures_of(network) if one.judge == "pgd"]
    place, layers = (network.trajectory_id, network.checkpoint), plan.layers(network)
    dataset = store.load_dataset(plan.facts["mnist5k"])
    images = dataset.x_test[draw_points(dataset.facts, IMAGES_MULTIPLE, plan.study.guarantee.seed)]
    measuring.measure(
        {place: dict.fromkeys(measures, len(images))}, layers, images, plan.study.guarantee.seed, store, "cpu"
    )
    kept = StoredOutcomes(store, plan.study.guarantee.seed)
    for one in measures:
        rows = table[(table["network_id"] == network.id) & (table["measure"] == one.name)]
        values = kept.of(place, one).outcomes
        robust = values[rows["point"]] == 1
        assert ((rows["predicted"] == rows["became"]).to_numpy() == robust).all()


def test_of_distances_the_closest_that_each_attack_finds_is_shown_too() -> None:
    measures = [
        {"notion": "class_change", "delta": 0.1, "attack": ["fgsm", "pgd"]},
        {"notion": "margin", "delta": [0.05, 0.2], "attack": ["fmn", "linear_region"]},
    ]
    _, shown = next(examples.drawn(planned(grid(name="one", width=8), measures=measures)))
    assert [(one.notion, one.attack, one.delta) for one in shown] == [
        ("class_change", "pgd", 0.1),
        ("margin", "linear_region", 0.2),
        ("margin", "fmn", 0.2),
    ]


def test_without_weights_there_are_no_images_and_nothing_goes_wrong(plan: Plan, tmp_path: Path) -> None:
    for network in plan.networks:
        Store(plan.study.store).evict(network.trajectory_id)
    examples.write(plan)
    assert frames.load_examples(plan).empty


def test_each_kind_of_network_has_its_turn() -> None:
    grids = [
        grid(name="one", width=list(range(10, 40))),
        grid("cnn", name="two", filters=[4]),
        grid("fcn", "imp", name="four", proportion=[0.5], width=[64], epochs=5),
    ]
    order = [network.grid for network, _ in examples.drawn(planned(*grids))]
    assert set(order[:3]) == {"one", "two", "four"}
    assert order[3:].count("one") >= 27
