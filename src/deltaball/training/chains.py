"""Chains of posterior samples: what is noted of their transitions, and what of them goes to the store."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from deltaball.base import statuses
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training.mixing import rhat_and_ess

# Transitions between writes to the store: what a kill can lose.
WRITTEN_EVERY = 25
# What is noted of a transition: these, and the probabilities of the labels of so many held-out points.
TRACE = ("potential energy", "acceptance", "diverging", "log-likelihood")
POINTS_WATCHED = 20
# The potential energy of at most so many transitions is among a network's facts.
ENERGIES_KEPT = 100
# A chain that moves in a smaller share of its transitions, burn-in too, is stuck.
LEAST_MOVES = 0.01


def history(trajectory_id: str, step: int, store: Store) -> list[Checkpoint] | None:
    """The segments of a chain up to `step`, without their samples; None if any is missing or damaged."""
    segments = []
    while step > 0:
        segment = store.find(trajectory_id, step)
        if segment is None:
            return None
        segments.append(replace(segment, weights=()))
        step = segment.facts["after"]
    return segments[::-1]


class Chain:
    """One chain: its trajectory, what is noted of every transition so far, and the samples not yet written."""

    def __init__(self, trajectory: Trajectory, step: int, segments: Sequence[Checkpoint]) -> None:
        self.trajectory, self.step, self.written = trajectory, step, step
        self.resumed = segments[-1].state if segments else {}
        self.trace = [row for segment in segments for row in segment.state["trace"]]
        # How many transitions there were, burn-in too, and in how many the chain moved; the energy that it has now.
        energies = [row[0] for row in self.trace]
        before = [len(self.trace), np.count_nonzero(np.diff(energies))]  # what earlier versions kept
        self.transitions, self.moves = (int(count) for count in self.resumed.get("moves", before))
        self.energy = energies[-1] if energies else None
        self.samples: list[Sequence[np.ndarray]] = []
        # Log of the sum of the samples' softmax, [n, classes]: a mean of probabilities may underflow.
        self.log_sums = {split: self.resumed.get(f"log_sum.{split}", -np.inf) for split in ("train", "test")}

    @property
    def averaged(self) -> int:
        """How many samples the network averages by now."""
        return self.step // self.trajectory.axes["thinning"]

    @property
    def is_due(self) -> bool:
        """Whether the store is to be written now."""
        return self.step % WRITTEN_EVERY == 0 or self.step in self.trajectory.checkpoints

    def pass_over(self, energy: np.float32) -> None:
        """Count a transition to this potential energy; the first energy is where the chain starts."""
        if self.energy is not None:
            self.transitions += 1
            self.moves += int(energy != self.energy)
        self.energy = energy

    def note(self, row: np.ndarray, weights: Sequence[np.ndarray], log_softmax: Callable[[], dict]) -> None:
        """Take down a transition; its sample too, and its log softmax [n, classes] by split, if it is averaged."""
        self.step += 1
        self.trace.append(row)
        self.pass_over(row[TRACE.index("potential energy")])
        if self.step % self.trajectory.axes["thinning"] == 0:
            self.samples.append(weights)
            for split, values in log_softmax().items():
                self.log_sums[split] = np.logaddexp(self.log_sums[split], values.astype(np.float64))

    def segment(
        self, labels: dict[str, np.ndarray], state: dict[str, np.ndarray], shapes: Sequence[tuple]
    ) -> Checkpoint:
        """What the store keeps of the transitions since it was last written, and the facts of the network by now."""
        trace = np.stack(self.trace)
        noted = dict(zip(TRACE, trace.T, strict=False))
        diagnosed = rhat_and_ess(trace[:, TRACE.index("log-likelihood") :])
        facts = {
            "after": self.written,
            "status": statuses.STUCK if self.moves < LEAST_MOVES * self.transitions else statuses.TRAINED,
            "acceptance": float(noted["acceptance"].mean(dtype=np.float64)),
            "divergences": int(noted["diverging"].sum()),
            "rhat_max": diagnosed and diagnosed[0],
            "ess_min": diagnosed and diagnosed[1],
            "energies": " ".join(f"{energy:.7g}" for energy in _spread(noted["potential energy"], ENERGIES_KEPT)),
        }
        if self.averaged:
            means = {split: log_sum - np.log(self.averaged) for split, log_sum in self.log_sums.items()}
            facts |= {f"{split}_accuracy": float((means[split].argmax(1) == labels[split]).mean()) for split in means}
            facts["test_loss"] = float(-means["test"][np.arange(len(labels["test"])), labels["test"]].mean())
            state = state | {f"log_sum.{split}": values for split, values in self.log_sums.items()}
        weights = tuple(
            np.array([sample[index] for sample in self.samples], np.float32).reshape(-1, *shape)
            for index, shape in enumerate(shapes)
        )
        kept = Checkpoint(
            weights, state | {"trace": trace[self.written :], "moves": np.array([self.transitions, self.moves])}, facts
        )
        self.samples, self.written = [], self.step
        return kept


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]
