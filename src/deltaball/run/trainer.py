"""Packs trained by the method that their networks are trained by."""

import importlib
from collections.abc import Sequence

from deltaball.data.datasets import Dataset
from deltaball.plan.networks import CheckpointId, Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.methods import TRAININGS
from deltaball.training import autoencoders
from deltaball.training.progress import Progress


class Trainer:
    """Called on a pack, it trains what the store lacks of it, and first of what that starts from."""

    def __init__(self, plan: Plan, dataset: Dataset, store: Store, progress: Progress) -> None:
        self.plan, self.dataset, self.store, self.progress = plan, dataset, store, progress

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        """Returns how many networks of the pack were trained."""
        for parents in self.plan.packed(self._lost_parents(pack)):
            self(parents)
        for one in self.plan.autoencoders(self.dataset.facts.name):
            if one.id == pack[0].axes.get("autoencoder"):  # that it may have been lost since
                autoencoders.trained(one, self.dataset, self.store, self.plan.study.compute.device)
        # Imported only now: JAX is ready only in jobs that have chains.
        module = importlib.import_module(TRAININGS[pack[0].method].room)
        layers, device = self.plan.layers(pack[0]), self.plan.study.compute.device
        trained = module.train(pack, layers, self.dataset, self.store, device, self.progress)
        for one in pack:
            if one.method == "pair":
                # Matplotlib is imported only where something is drawn.
                from deltaball.run import pairing

                pairing.draw(self.plan, one, self.dataset, self.store)
        return trained

    def _lost_parents(self, pack: Sequence[Trajectory]) -> list[CheckpointId]:
        lacking = [
            one
            for one in pack
            if TRAININGS[one.method].refers or not all(self.store.has(one.id, step) for step in one.checkpoints)
        ]
        return [parent for one in lacking for parent in one.parents if not self.store.has(*parent)]
