"""Fine-tuning: what its examples are, what it learns, and that neither a pack nor a kill changes a bit of it."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, planned_few

from deltaball.base.draws import generator
from deltaball.base.errors import InputError
from deltaball.base.statuses import DIVERGED
from deltaball.data.datasets import Dataset
from deltaball.networks.packs import Pack
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.examples import Examples
from deltaball.store.store import Checkpoint, Store
from deltaball.training import examples, finetuning, sgd
from deltaball.training.examples import Search, drawn, pixels, rounded
from deltaball.training.progress import Progress, Stopped

TRUNK = {"width": 16, "depth": 1, "learning_rate": 0.2, "epochs": 4, "batch_size": 32}
ROUNDS = {"cap": 0.1, "lead": 0.3, "examples": 80, "tuning_epochs": 2, "rate_factor": 0.5}
CAP, LEAD = ROUNDS["cap"], ROUNDS["lead"]


def tuned_plan(folder: Path, **changed: object) -> Plan:
    return planned_few(folder, grid("fcn", "finetune", **{**TRUNK, **ROUNDS, "adversary": "pgd", **changed}))


def in_order(plan: Plan) -> list[Trajectory]:
    """Trunks, first rounds, second rounds."""
    return sorted(plan.trajectories.values(), key=lambda one: one.axes.get("round", 0))


def train(one: Trajectory, plan: Plan, few: Dataset, store: Store, progress: Progress | None = None) -> None:
    room = finetuning if one.method == "finetune" else sgd
    room.train([one], plan.layers(one), few, store, "cpu", progress or Progress(0, 0, terminal=None))


@pytest.fixture(scope="module")
def plan(data_folder: Path) -> Plan:
    return tuned_plan(data_folder, rounds=[0, 1, 2], seed=[0, 1])


@pytest.fixture(scope="module")
def store(plan: Plan, few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Everything of the plan, trained without interruption."""
    store = Store(tmp_path_factory.mktemp("store"))
    for one in in_order(plan):
        train(one, plan, few, store)
    return store


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 images are three pieces, but for the networks of `store`, which find them in one: no bit depends on it."""
    monkeypatch.setattr(examples, "PIECE", 32)


def found_against(place: tuple[str, int], one: Trajectory, plan: Plan, few: Dataset, store: Store) -> Examples:
    return Search(place, one.axes, plan.layers(one), few, store, "cpu").examples()


def rounds(plan: Plan, turn: int) -> list[Trajectory]:
    return [one for one in plan.trajectories.values() if one.axes.get("round") == turn]


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.facts == other.facts
    for array, twin in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(array, twin)


# ---- rounds


def test_no_round_is_the_network_that_a_grid_of_sgd_trains(data_folder: Path, plan: Plan):
    (parent,) = planned_few(data_folder, grid("fcn", "sgd", **TRUNK)).networks
    (none,) = [one for one in plan.networks if (one.axes["rounds"], one.axes["seed"]) == (0, 0)]
    # One checkpoint of one trajectory: not a bit can differ.
    assert (none.trajectory_id, none.checkpoint) == (parent.trajectory_id, parent.checkpoint)
    assert {one.trunk for one in plan.networks if one.axes["seed"] == 0} == {(parent.trajectory_id, parent.checkpoint)}


def test_the_first_of_two_rounds_is_the_whole_of_one(plan: Plan):
    assert len(plan.trajectories) == 2 * 3
    for second in rounds(plan, 2):
        trunk, first = second.parents
        assert first[0] in {one.trajectory_id for one in plan.networks if one.axes["rounds"] == 1}
        assert plan.trajectories[first[0]].parents == (trunk,)


def test_a_round_learns_from_images_and_examples_at_the_reduced_rate(plan: Plan, few: Dataset, store: Store):
    """By hand: SGD from the weights of the network before, on every example so far behind the training images."""
    second = rounds(plan, 2)[0]
    parent = store.load(*second.parents[1])
    kept = [found_against(place, second, plan, few, store) for place in second.parents]
    images = np.concatenate([few.x_train, *(pixels(one.images) for one in kept)]).astype(np.float64)
    images, labels = (
        images.reshape(len(images), -1),
        np.concatenate([few.y_train, *(few.y_train[e.points] for e in kept)]),
    )
    weights = [array.astype(np.float64) for array in parent.weights]
    for epoch in range(2):
        order = generator(second.id, f"order of epoch {epoch}").permutation(len(labels))
        for start in range(0, len(labels), 32):
            chosen = order[start : start + 32]
            hidden = np.maximum(images[chosen] @ weights[0] + weights[1], 0)
            scores = hidden @ weights[2] + weights[3]
            back = np.exp(scores - scores.max(1, keepdims=True))
            back = (back / back.sum(1, keepdims=True) - np.eye(10)[labels[chosen]]) / len(chosen)
            before = (back @ weights[2].T) * (hidden > 0)
            gradients = [images[chosen].T @ before, before.sum(0), hidden.T @ back, back.sum(0)]
            weights = [weight - 0.1 * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    for found, expected in zip(store.load(second.id, 2).weights, weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    facts = store.facts(second.id, 2)
    assert (facts["examples_sought"], facts["examples_found"]) == (80, len(kept[1].points))
    assert facts["examples_learned"] == len(kept[0].points) + len(kept[1].points) > 20
    predicted = Pack.of(plan.layers(second), [store.weights(second.id, 2)], "cpu")(torch.from_numpy(few.x_train))
    assert facts["train_accuracy"] == (predicted[0].argmax(-1).numpy() == few.y_train).mean()


def test_with_the_latest_examples_alone_the_earlier_ones_are_left_out(data_folder: Path, few: Dataset, tmp_path: Path):
    plan, store = tuned_plan(data_folder, rounds=2, examples_kept="latest"), Store(tmp_path)
    for one in in_order(plan):
        train(one, plan, few, store)
    (second,) = rounds(plan, 2)
    facts = store.facts(second.id, 2)
    assert facts["examples_learned"] == facts["examples_found"] > 0


def test_examples_are_of_the_images_that_a_network_sees(data_folder: Path, few: Dataset):
    plan = tuned_plan(data_folder, rounds=1, validation=30, examples=[20, 50])
    fewer, more = sorted(rounds(plan, 1), key=lambda one: one.axes["examples"])
    order = generator(f"{few.facts.name} {few.facts.fingerprint} 0", "training points").permutation(130)
    held_out = set(order[100:])
    assert len(drawn(few.facts, more.axes)) == 50
    assert not held_out & set(drawn(few.facts, more.axes))
    np.testing.assert_array_equal(drawn(few.facts, fewer.axes), drawn(few.facts, more.axes)[:20])
    assert set(drawn(few.facts, {**more.axes, "examples": None})) == set(order[:100])


def test_a_network_of_a_diverged_one_has_diverged(plan: Plan, few: Dataset, tmp_path: Path):
    store, one = Store(tmp_path), rounds(plan, 1)[0]
    with pytest.raises(InputError, match=f"{one.id} tunes .*, which is not in the store; run again"):
        train(one, plan, few, store)
    store.save(*one.parents[0], Checkpoint((), {}, {"status": DIVERGED, "reason": "its loss left every bound"}))
    train(one, plan, few, store)
    assert store.facts(one.id, 2) == {"status": DIVERGED, "reason": "its loss left every bound"}


# ---- packs and kills


def test_a_network_alone_is_the_one_of_a_pack(plan: Plan, few: Dataset, store: Store, tmp_path: Path):
    together = Store(tmp_path)
    trunks, first, second = [one for one in in_order(plan) if not one.parents], rounds(plan, 1), rounds(plan, 2)
    layers = plan.layers(first[0])
    sgd.train(trunks, layers, few, together, "cpu")
    for pack in (first, second):
        assert finetuning.train(pack, layers, few, together, "cpu") == 2
        assert finetuning.train(pack, layers, few, together, "cpu") == 0
        for one in pack:
            assert_same(together.load(one.id, 2), store.load(one.id, 2))


class Killed(Progress):
    """Ends the work the n-th time that something is counted."""

    def __init__(self, left: int) -> None:
        super().__init__(0, 0, terminal=None)
        self.left = left

    def advance(self, sample_steps: float) -> None:
        self.left -= 1
        if not self.left:
            raise Stopped


def test_a_kill_in_the_search_or_in_training_changes_no_bit(
    plan: Plan, few: Dataset, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    resumed = Store(tmp_path)
    lineage = [one for one in in_order(plan) if one.axes["seed"] == 0]
    train(lineage[0], plan, few, resumed)
    kills = 0
    for one in lineage[1:]:
        # Three pieces, of which each is kept before it is counted, then two epochs.
        for left in (1, 1, 1, 1, 2):
            with pytest.raises(Stopped):
                train(one, plan, few, resumed, Killed(left))
            assert not resumed.has(one.id, 2)
            kills += 1
        train(one, plan, few, resumed)
        assert_same(resumed.load(one.id, 2), store.load(one.id, 2))
    assert kills == 10


def test_examples_that_were_lost_or_damaged_are_found_again(
    plan: Plan, few: Dataset, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own, lineage = Store(tmp_path), [one for one in in_order(plan) if one.axes["seed"] == 1]
    for one in lineage:
        train(one, plan, few, own)
    lost, damaged, *_ = sorted(tmp_path.rglob("examples-*"))
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"otherwise"[:8])
    (last,) = [path for path in tmp_path.rglob("00002.safetensors") if path.parent.name == lineage[-1].id]
    last.unlink()
    train(lineage[-1], plan, few, own)
    assert "is damaged" in capsys.readouterr().out
    assert_same(own.load(last.parent.name, 2), store.load(last.parent.name, 2))


# ---- examples


@pytest.mark.parametrize(
    ("adversary", "turn", "examples"),
    [*product(["fgsm", "pgd", "fmn", "linear_region"], [1, 2], [80]), ("lbfgs", 1, 20)],
)
def test_an_example_is_near_its_image_and_misleads_the_network_of_the_round_before(
    adversary: str, turn: int, examples: int, plan: Plan, few: Dataset, store: Store
):
    one = rounds(plan, turn)[0]
    network = one.parents[-1]
    axes = {**one.axes, "adversary": adversary, "examples": examples}
    found = Search(network, axes, plan.layers(one), few, store, "cpu").examples()
    assert found.sought == examples
    assert len(found.points) > examples / 8
    assert len(set(found.points)) == len(found.points)
    assert set(found.points) <= set(drawn(few.facts, axes))
    images, shown = pixels(found.images), few.x_train[found.points]
    assert found.images.dtype == np.uint8
    assert images.dtype == np.float32
    np.testing.assert_allclose(images * 255, found.images, atol=1e-4)
    assert np.abs(images.astype(np.float64) - shown).max() <= CAP + 1e-6
    model = Pack.of(plan.layers(one), [store.weights(*network)], "cpu")
    before, after = (model(torch.from_numpy(one))[0].argmax(-1).numpy() for one in (shown, images))
    assert (before != after).all()
    assert (after != few.y_train[found.points]).all()


def test_a_larger_lead_finds_fewer_and_clearer_examples(plan: Plan, few: Dataset, store: Store):
    one = rounds(plan, 1)[0]
    model = Pack.of(plan.layers(one), [store.weights(*one.parents[0])], "cpu")
    counts = []
    for lead in (0.0, 0.5, 1.5, 100.0):
        found = Search(one.parents[0], {**one.axes, "lead": lead}, plan.layers(one), few, store, "cpu").examples()
        counts.append(len(found.points))
        best = model(torch.from_numpy(pixels(found.images)))[0].topk(2).values
        # Rounding moves a pixel by half a level at most; a hundred levels of lead nothing has.
        assert not len(found.points) or (best[:, 0] - best[:, 1]).min() > 0.8 * lead
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    assert counts[-1] == 0


def test_what_rounding_to_levels_loses_is_counted_and_left_out(plan: Plan, few: Dataset, store: Store):
    """FMN without a lead ends at the border, where half a level decides."""
    one = rounds(plan, 1)[0]
    axes = {**one.axes, "adversary": "fmn", "lead": 0.0}
    found = Search(one.parents[0], axes, plan.layers(one), few, store, "cpu").examples()
    assert found.lost > 0
    assert found.lost + len(found.points) <= found.sought


def test_levels_stay_within_the_cap():
    x = torch.tensor([0.0, 3 / 255, 0.5, 1.0], dtype=torch.float32).view(1, 4, 1, 1)
    moved = (x + torch.tensor([0.0099, 0.01, -0.01, -0.01]).view(1, 4, 1, 1)).clamp(0, 1)
    levels, there = rounded(moved, x, 0.01)
    # 0.01 is 2.55 levels: up to 2 from 0, to 5 from 3, down to 125 from 127.5, and to 253 from 255.
    assert levels.flatten().tolist() == [2, 5, 125, 253]
    assert there.all()
    _, there = rounded(x + 0.001, x, 0.001)
    assert not there.any()  # 0.5 lies between levels


def test_a_pack_of_rounds_is_one_network(plan: Plan):
    packs: Sequence[Sequence[Trajectory]] = [pack for shard in plan.shards.values() for pack in shard.packs]
    assert sorted(map(len, packs)) == [1, 1, 1, 1, 2]
    place = {one.id: number for number, pack in enumerate(packs) for one in pack}
    assert all(place[parent] < place[one.id] for one in plan.trajectories.values() for parent, _ in one.parents)
