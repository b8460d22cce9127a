"""Packs measured on the test points that a study draws."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from deltaball.base.errors import InputError
from deltaball.base.reporting import Report
from deltaball.base.wording import duration
from deltaball.data import corrupted_sets
from deltaball.data.datasets import Dataset
from deltaball.estimation import measuring, points
from deltaball.estimation.outcomes import Told
from deltaball.estimation.stored import Judged, checkpoint_of
from deltaball.local.corruptions.corrupted import as_bytes
from deltaball.local.corruptions.kept import Kept
from deltaball.local.kernels.brought import of_points
from deltaball.local.kernels.known import Known
from deltaball.plan.judging import passes
from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId, Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.run import needs
from deltaball.store.store import Store
from deltaball.study.judges import JUDGES
from deltaball.training.autoencoders import trained
from deltaball.workflow.jobs import Judging
from deltaball.workflow.resources import forward_seconds

TELLING = 0.01  # share of the work from which on its pace says how long the rest takes


class MeasuringProgress(Report):
    """Counts outcomes (network × measure × point) as they come, of those `left` that are to come.

    How long the rest takes is told by what outcomes of each measure take by the plan: `seconds` of one.
    """

    def __init__(
        self,
        left: Mapping[Measure, int],
        seconds: Mapping[Measure, float],
        out: TextIO | None = None,
        terminal: TextIO | None = sys.__stderr__,
    ) -> None:
        super().__init__(out, terminal)
        self.seconds = seconds
        self.count, self.work = sum(left.values()), sum(count * seconds[one] for one, count in left.items())
        self.done, self.taken = 0, 0.0

    def __call__(self, measure: Measure, count: int) -> None:
        with self.lock:
            self.done += count
            self.taken += count * self.seconds[measure]
            self.report()

    def line(self) -> str:
        said = f"{self.done:,} of {self.count:,} outcomes measured"
        if self.taken <= TELLING * self.work:
            return said
        return f"{said}, {duration((time.monotonic() - self.began) * max(0.0, self.work / self.taken - 1))} left"

    def close(self) -> None:
        """Report for the last time, if there was anything to measure."""
        if self.done:
            super().close()


class Measurer:
    """Called on a pack, it measures what the store lacks of a shard's networks and of the trunks beside them."""

    def __init__(self, plan: Plan, shard: Shard, dataset: Dataset, store: Store) -> None:
        self.plan, self.store = plan, store
        self.told: Told = lambda measure, count: None
        self.judging: Judging = {}
        self.ids: dict[CheckpointId, list[str]] = defaultdict(list)
        for network in plan.networks:
            self.ids[checkpoint_of(network)].append(network.id)
        self.asked, self.seed = needs.asked(plan, shard), plan.study.guarantee.seed
        samples = max((count for wanted in self.asked.values() for count in wanted.values()), default=0)
        drawn = points.draw_points(dataset.facts, samples, self.seed)
        self.images, self.labels = dataset.x_test[drawn], dataset.y_test[drawn]
        asked = {measure for wanted in self.asked.values() for measure in wanted}
        labels = {dict(one.kernel.parameters).get("autoencoder") for one in asked if one.kernel}
        coders = {
            one.entry.label: trained(one, dataset, store, plan.study.compute.device)
            for one in plan.autoencoders(dataset.facts.name)
            if one.entry.label in labels
        }
        corrupts = any(one.kernel and one.kernel.entry.corruptions for one in asked)
        kept = Kept(as_bytes(self.images), store.corrupted) if corrupts else None
        self.known = Known(
            dataset.x_train,
            dataset.y_train,
            autoencoders=coders,
            corrupted=kept,
            brought=_brought(plan, asked, drawn),
        )

    def progress(self, packs: Iterable[Sequence[Trajectory]]) -> MeasuringProgress:
        """What measuring these packs is to be counted by, if it is to be told."""
        left: dict[Measure, int] = defaultdict(int)
        seconds: dict[Measure, float] = {}
        for pack in packs:
            layers, forward = self.plan.layers(pack[0]), forward_seconds(self.plan, pack[0])
            for one, count in measuring.lacking(self._asked_of(pack), self.seed, self.store).items():
                left[one] += count
                taken = passes(one, layers) * forward + JUDGES[one.judge].beside(dict(one.settings), layers)
                seconds[one] = max(seconds.get(one, 0.0), taken)
        self.told = MeasuringProgress(left, seconds)
        return self.told

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        """Returns how many outcomes (network × measure × point) were computed."""
        device, layers = self.plan.study.compute.device, self.plan.layers(pack[0])
        asked = self._asked_of(pack)
        return measuring.measure(
            asked, layers, self.images, self.seed, self.store, device, self.told, self.labels, self.known, self._heard
        )

    def _heard(self, checkpoint: CheckpointId, judged: Mapping[Measure, Judged]) -> None:
        """Note what outcomes took, of every network that stands on the checkpoint."""
        for measure, one in judged.items():
            for identity in self.ids[checkpoint] if one.seconds is not None else ():
                points, seconds = self.judging.setdefault(measure.name, {}).get(identity, (0, 0.0))
                taken = float(one.seconds.sum(dtype=np.float64))
                self.judging[measure.name][identity] = (points + len(one.seconds), seconds + taken)

    def is_complete(self, pack: Sequence[Trajectory]) -> bool:
        """Whether all of a pack is there and was measured before, so that its weights are not needed."""
        there = all(self.store.has(one.id, step) for one in pack for step in one.checkpoints)
        return there and measuring.is_complete(self._asked_of(pack), self.seed, self.store)

    def trained(self) -> list[tuple[Trajectory, ...]]:
        """Packs of all that is to be measured and was trained."""
        return self.plan.packed(checkpoint for checkpoint in self.asked if self.store.has(*checkpoint))

    def _asked_of(self, pack: Sequence[Trajectory]) -> dict[CheckpointId, dict[Measure, int]]:
        checkpoints = [(one.id, step) for one in pack for step in one.checkpoints]
        return {checkpoint: self.asked[checkpoint] for checkpoint in checkpoints if checkpoint in self.asked}


def _brought(plan: Plan, asked: Iterable[Measure], drawn: np.ndarray) -> dict[str, np.ndarray]:
    """The images that corrupted sets hold of the points that are drawn, by the content of each set."""
    draws: dict[str, int] = defaultdict(int)
    for one in asked:
        if one.kernel and one.kernel.entry.is_brought:
            draws[one.kernel.name] = max(draws[one.kernel.name], int(dict(one.settings).get("draws", 1)))
    found = {}
    for name, count in draws.items():
        known = corrupted_sets.facts(name, Path(plan.study.data))
        if known is None:
            raise InputError(f"{plan.study.data}/{name}.npz is not there any more")
        images, indices = corrupted_sets.load(known)
        found[known.content] = of_points(images, indices, drawn, min(count, min(known.counts)))
    return found
