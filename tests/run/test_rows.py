"""The rows that a job writes: all that the plan asks for, or an error that names what is missing."""

from pathlib import Path

import pytest
from builders import grid, planned_few

from deltaball.base.errors import InputError
from deltaball.estimation import measuring
from deltaball.run import devices, work
from deltaball.tables import frames
from deltaball.workflow import jobs


def test_a_judge_that_says_nothing_leaves_no_table_without_its_row(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [{"notion": "class_change", "delta": 0.1, "attack": ["fgsm", "pgd"]}]
    few = grid(width=16, batch_size=32, epochs=1)
    planned = planned_few(data_folder, few, measures=asked, results=str(tmp_path))
    (shard,), (network,) = planned.shards.values(), planned.networks
    whole = measuring.measure

    def forgetful(wanted: measuring.Asked, *rest: object) -> int:
        kept = {at: {one: n for one, n in each.items() if one.judge != "pgd"} for at, each in wanted.items()}
        return whole(kept, *rest)

    for stage in ("train", "measure"):
        monkeypatch.setattr(measuring, "measure", forgetful)
        with jobs.recorded(planned, stage, shard) as job, devices.ready(job):
            if stage == "train":
                work.train(job, tries_left=0)
                continue
            with pytest.raises(InputError, match=f"network {network.id}: class_change_linf_0.1_pgd was not measured"):
                work.measure(job, tries_left=0)
            assert not jobs.part(planned, shard.id, "measured").exists()
            monkeypatch.undo()
            work.measure(job, tries_left=0)
    assert set(frames.read(jobs.part(planned, shard.id, "measured"))["attack"]) == {"fgsm", "pgd"}
