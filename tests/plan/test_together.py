"""What packs take side by side on a GPU, and in turn on a CPU."""

import pytest
from builders import grid, planned
from hypothesis import given
from hypothesis import strategies as st

from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.plan.together import PACK_NETWORKS, SIDE_BY_SIDE, Alone, Together, at_a_time


def pack(number: int, networks: int = 4, method: str = "sgd", parents: tuple[int, ...] = ()) -> tuple[Trajectory, ...]:
    return tuple(
        Trajectory(
            f"{number}-{k}", "g", "d", method, "fcn", {}, (1,), tuple((f"{one}-0", 1) for one in parents), "", 1, 1.0
        )
        for k in range(networks)
    )


def seconds(device: str, *packs: tuple[tuple[Trajectory, ...], Alone]) -> float:
    together = Together(device)
    for some, alone in packs:
        together.add(some, alone)
    return 60 * together.minutes


SPANS = st.floats(0, 1000, allow_subnormal=False)
ALONE = st.builds(lambda filling, waiting: Alone(filling + waiting, waiting), SPANS, SPANS)


@given(st.lists(ALONE, min_size=1, max_size=20))
def test_waiting_overlaps_and_filling_adds_up(alone: list[Alone]) -> None:
    packs = [(pack(number), one) for number, one in enumerate(alone)]
    total, waiting = sum(one.seconds for one in alone), sum(one.waiting for one in alone)
    assert seconds("cpu", *packs) == pytest.approx(total)
    expected = max(total - waiting + waiting / SIDE_BY_SIDE["cuda"], max(one.seconds for one in alone))
    assert seconds("cuda", *packs) == pytest.approx(expected, abs=1e-9)
    assert seconds("cuda", *packs) <= total + 1e-9


def test_a_full_pack_and_a_pack_of_chains_have_the_gpu_to_themselves() -> None:
    waits = Alone(10.0, 10.0)
    for alike in ([pack(0, PACK_NETWORKS), pack(1, PACK_NETWORKS)], [pack(0, 4, "hmc"), pack(1, 4, "hmc")]):
        assert at_a_time(alike, "cuda") == 1
        assert seconds("cuda", *((one, waits) for one in alike)) == pytest.approx(20)
    halves = [pack(0, PACK_NETWORKS // 2), pack(1, PACK_NETWORKS // 2)]
    assert at_a_time(halves, "cuda") == 2
    assert seconds("cuda", *((one, waits) for one in halves)) == pytest.approx(10)


def test_what_is_pruned_waits_for_what_it_prunes() -> None:
    waits = Alone(10.0, 10.0)
    rounds = [pack(number, parents=(number - 1,) if number else ()) for number in range(3)]
    assert seconds("cuda", *((one, waits) for one in rounds)) == pytest.approx(30)


def whole(device: str, minutes: float = 1e6) -> Plan:
    axes = {"width": [16, 32, 64, 128], "activation": ["relu", "tanh", "sigmoid"], "epochs": 50}
    return planned(grid(**axes), compute={"device": device, "shard_minutes": minutes})


def test_a_plan_counts_packs_side_by_side_on_a_gpu_and_in_turn_on_a_cpu() -> None:
    for device in ("cpu", "cuda"):
        (shard,) = whole(device).shards.values()
        alone = [whole(device).seconds(one) for one in shard.packs]
        assert len(alone) == 12
        if device == "cpu":
            minutes = 0.0
            for one in alone:
                minutes += one / 60
            assert shard.minutes == minutes  # to the bit, for a shard's id depends on where it is cut
        else:
            assert shard.minutes < 0.5 * sum(alone) / 60
            assert shard.minutes >= max(alone) / 60


def test_shards_of_a_gpu_are_cut_by_what_their_packs_take_together() -> None:
    (shard,) = whole("cuda").shards.values()
    cut = whole("cuda", shard.minutes / 3)
    assert len(cut.shards) >= 3
    for one in cut.shards.values():
        assert one.minutes <= shard.minutes / 3 or len(one.packs) == 1
        assert one.minutes == pytest.approx(cut.minutes(one.packs))
