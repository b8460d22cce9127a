"""Packs measured on the test points that a study draws."""

from collections.abc import Sequence

from deltaball.data.datasets import Dataset
from deltaball.estimation import measuring, points
from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId, Shard, Trajectory
from deltaball.plan.plan import Plan
from deltaball.run import needs
from deltaball.store.store import Store


class Measurer:
    """Called on a pack, it measures what the store lacks of a shard's networks and of the trunks beside them."""

    def __init__(self, plan: Plan, shard: Shard, dataset: Dataset, store: Store) -> None:
        self.plan, self.store = plan, store
        self.asked, self.seed = needs.asked(plan, shard), plan.study.guarantee.seed
        samples = max((count for wanted in self.asked.values() for count in wanted.values()), default=0)
        self.images = dataset.x_test[points.draw_points(dataset.facts, samples, self.seed)]

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        """Returns how many outcomes (network × measure × point) were computed."""
        device, layers = self.plan.study.compute.device, self.plan.layers(pack[0])
        return measuring.measure(self._asked_of(pack), layers, self.images, self.seed, self.store, device)

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
