"""How the outcomes of networks at test points are kept in the store."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId, Network
from deltaball.store.store import Store
from deltaball.study.judges import JUDGES


def checkpoint_of(network: Network) -> CheckpointId:
    """Where the store has a network."""
    return network.trajectory_id, network.checkpoint


class Judged(NamedTuple):
    """What a measure says of one network, or of each of K, at n test points."""

    outcomes: np.ndarray  # float32 [n] or [K, n], in [0, highest]; NaN is undecided
    no_gradient: np.ndarray | None = None  # bool alike, of attacks: where it had no gradient
    found_by: np.ndarray | None = None  # int8 alike, of ensembles: which attack found it, by its place; -1 for none
    seconds: np.ndarray | None = None  # float32 alike: what each took now; not kept, for no two runs take the same

    @property
    def further(self) -> dict[str, np.ndarray]:
        """What is kept besides outcomes, by name."""
        found = {name: getattr(self, name) for name in ("no_gradient", "found_by")}
        return {name: said for name, said in found.items() if said is not None}

    def of_network(self, k: int) -> "Judged":
        """That of one of K networks."""
        return Judged(*(None if each is None else each[k] for each in self))

    def first(self, samples: int) -> "Judged":
        """That of the first points."""
        return Judged(*(None if each is None else each[..., :samples] for each in self))


NOTHING = Judged(np.empty(0, np.float32), np.empty(0, bool), np.empty(0, np.int8))


class StoredOutcomes:
    """The outcomes that a store keeps of test points drawn by one seed, by network and measure.

    Reads a trajectory's once, when it is first asked; what other jobs add later is not seen.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.seed = store, seed
        self._arrays: dict[str, dict[str, np.ndarray]] = {}

    def of(self, checkpoint: CheckpointId, measure: Measure) -> Judged:
        """All that is kept, of the first test points; what the judge does not say is None."""
        key, kept = self._key(checkpoint, measure), self._kept(checkpoint[0])
        said = {"no_gradient": measure.attack, "found_by": JUDGES[measure.judge].members}
        further = {name: kept.get(f"{key}/{name}", getattr(NOTHING, name)) for name, says in said.items() if says}
        return Judged(kept.get(key, NOTHING.outcomes), **further)

    def has(self, checkpoint: CheckpointId, measure: Measure, samples: int) -> bool:
        """Whether the first `samples` points are all there."""
        return len(self.of(checkpoint, measure).outcomes) >= samples

    def add(self, checkpoint: CheckpointId, judged: Mapping[Measure, Judged]) -> None:
        """Keep what follows on that which is there."""
        added = {}
        for measure, new in judged.items():
            key, before = self._key(checkpoint, measure), self.of(checkpoint, measure)
            added[key] = np.concatenate([before.outcomes, new.outcomes])
            for name, further in new.further.items():
                added[f"{key}/{name}"] = np.concatenate([getattr(before, name), further])
        self.store.save_outcomes(checkpoint[0], added)
        self._kept(checkpoint[0]).update(added)

    def _kept(self, trajectory_id: str) -> dict[str, np.ndarray]:
        if trajectory_id not in self._arrays:
            self._arrays[trajectory_id] = self.store.find_outcomes(trajectory_id)
        return self._arrays[trajectory_id]

    def _key(self, checkpoint: CheckpointId, measure: Measure) -> str:
        return f"{checkpoint[1]}/{measure.search.kept_as}/{self.seed}"
