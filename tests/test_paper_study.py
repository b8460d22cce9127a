"""studies/paper.yaml is Appendix B of paper 004: its sizes, counted by hand."""

from collections import Counter
from pathlib import Path

import pytest
from plan_cases import assert_every_network_stands_on_a_checkpoint, assert_every_trajectory_has_its_place

from deltaball.plan.plan import Plan, plan
from deltaball.study.reading import load

NETWORKS = {
    "B.1": 720,  # 3 depths × 4 widths × 3 activations × 4 rates × 5 epochs
    "B.2": 2880,  # 2 × 2 dense × 4 filters × 3 kernels × 3 depths × 4 rates × 5 epochs
    "B.3": 405,  # 3 × 3 × 3 × 3 rates × 5 epochs
    "B.4": 2160,  # 2 × 2 dense × 3 filters × 3 kernels × 4 depths × 3 rates × 5 epochs
    "B.5": 4860,  # 3 × 3 dense × 3 filters × 3 kernels × 3 depths × 4 rates × 5 epochs
    "B.6": 1296,  # 3 × 4 × 3 × 4 proportions × 3 iterations × 3 epochs
    "B.7": 864,  # 4 × 2 × 3 × 4 proportions × 3 iterations × 3 epochs
    "B.8": 1296,  # 3 × 3 × 3 × 4 steps × 3 lengths × 4 samples
    "B.9": 432,  # 3 × 3 × 4 steps × 3 lengths × 4 samples
}
TRAJECTORIES = {
    "B.1": 144,
    "B.2": 576,
    "B.3": 81,
    "B.4": 432,
    "B.5": 972,
    # Rounds: 36 shapes × 3 epochs × 30 (plan/test_plan.py: test_rounds_of_the_papers_schedules). Dense trunks: those of
    # widths 128, 256 and 512 are B.1's at rate .001; the 3 × 1 × 3 of width 1024 are B.6's own.
    "B.6": 36 * 3 * 30 + 9,
    # 24 shapes × 3 epochs × 30. Trunks of depths 2, 3, 4 are B.3's; the 1 × 2 × 3 of depth 1 are B.7's own.
    "B.7": 24 * 3 * 30 + 6,
    "B.8": 324,
    "B.9": 108,
}


@pytest.fixture(scope="module")
def paper(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))  # no data/mnist.npz of this machine
        return plan(load(root / "studies" / "paper.yaml"))


def test_networks_of_each_grid(paper: Plan):
    assert Counter(network.grid for network in paper.networks) == NETWORKS
    assert len(paper.networks) == 14_913


def test_trajectories_of_each_grid(paper: Plan):
    assert Counter(trajectory.grid for trajectory in paper.trajectories.values()) == TRAJECTORIES


def test_no_two_networks_share_an_id(paper: Plan):
    assert len({network.id for network in paper.networks}) == 14_913
    assert not {network.id for network in paper.networks} & set(paper.trajectories)


def test_dense_trunks_of_pruning_are_shared_with_plain_training(paper: Plan):
    for pruned, dense, shared in (("B.6", "B.1", 27), ("B.7", "B.3", 18)):
        networks = [network for network in paper.networks if network.grid == pruned]
        trunks = set()
        for network in networks:
            trajectory = paper.trajectories[network.trajectory_id]
            while trajectory.parents:
                trajectory = paper.trajectories[trajectory.parents[0][0]]
            trunks.add(trajectory.id)
        owners = Counter(paper.trajectories[identity].grid for identity in trunks)
        assert owners[dense] == shared
        assert {paper.trajectories[identity].axes["learning_rate"] for identity in trunks} == {0.001}


def test_a_pruned_network_was_pruned_to_the_proportion_asked(paper: Plan):
    for network in paper.networks:
        if network.method == "imp":
            kept = paper.trajectories[network.trajectory_id].axes["kept"]
            assert len(kept) == network.axes["iterations"]
            assert kept[-1] == pytest.approx(1 - network.axes["proportion"], abs=1e-11)


def test_every_trajectory_has_its_place_and_every_network_its_checkpoint(paper: Plan):
    assert_every_trajectory_has_its_place(paper)
    assert_every_network_stands_on_a_checkpoint(paper)


def test_cifar_networks_are_trained_by_adam(paper: Plan):
    optimizers = {(one.grid, one.axes["optimizer"]) for one in paper.trajectories.values() if one.method == "sgd"}
    assert {grid for grid, optimizer in optimizers if optimizer == "adam"} == {"B.5"}


def test_every_estimate_needs_738_points(paper: Plan):
    assert {(one.samples, one.epsilon, one.confidence) for one in paper.measures} == {(738, 0.05, 0.95)}


def test_shards_need_only_shards_before_them(paper: Plan):
    # Small ones, so that rounds of one pruning lie in different shards whatever the device's rates.
    compute = paper.study.compute.model_copy(update={"shard_minutes": 1.0})
    paper = plan(paper.study.model_copy(update={"compute": compute}))
    place = {identity: index for index, identity in enumerate(paper.shards)}
    needs = {identity: paper.needed_by(shard) for identity, shard in paper.shards.items()}
    for identity, others in needs.items():
        assert all(place[other] < place[identity] for other in others)
    # B.6 prunes what B.1 trains, B.7 what B.3 trains, both on from their own rounds; nobody else needs anybody.
    found = {(identity[:3], other[:3]) for identity, others in needs.items() for other in others}
    assert found == {("B.6", "B.1"), ("B.6", "B.6"), ("B.7", "B.3"), ("B.7", "B.7")}
