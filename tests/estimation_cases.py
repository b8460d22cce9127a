"""The measures of a few small networks, and how they are measured."""

from collections.abc import Sequence

import numpy as np
from builders import grid

from deltaball.estimation.measuring import measure
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Store

SEED = 0

GRID = grid(width=16, learning_rate=[0.1, 0.05], seed=[0, 1], batch_size=32, epochs=[1, 4])

MEASURES = [
    {"notion": "class_change", "delta": [0.02, 0.1]},
    {"notion": "softmax_variation", "delta": [0.02, 0.1]},
    {"notion": "variation_above", "gamma": [0.05, 0.1], "delta": 0.1},
]


def measured(
    plan: Plan, pack: Sequence[Trajectory], images: np.ndarray, measures: Sequence[Measure], store: Store
) -> int:
    return measure(asked(pack, measures, len(images)), plan.layers(pack[0]), images, SEED, store, "cpu")


def asked(pack: Sequence[Trajectory], measures: Sequence[Measure], samples: int) -> dict:
    """All measures on the first `samples` points, of every checkpoint."""
    return {(one.id, step): dict.fromkeys(measures, samples) for one in pack for step in one.checkpoints}


BOTH_SIDES = [
    {"notion": "class_change", "delta": [0.02, 0.1], "attack": ["fgsm", "pgd"], "certificate": ["ibp", "crown"]},
    {"notion": "softmax_variation", "delta": [0.02, 0.1], "attack": "pgd", "certificate": "crown"},
    {"notion": "variation_above", "gamma": 0.1, "delta": 0.1, "attack": "pgd", "certificate": "crown"},
    {"notion": "class_change", "delta": [0.02, 0.1], "certificate": "exact", "seconds": 10.0},
    {"notion": "margin", "delta": 0.2, "attack": "fmn", "certificate": "crown"},
]
