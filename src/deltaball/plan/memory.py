"""What training and measuring hold in a GPU's memory at most, estimated. Light: no array library.

The estimate is from above, and rough: of activations it knows how many numbers the layers give, and how often, about, a
step holds as many at once. tests/plan/test_memory.py compares it with what torch would allocate.
"""

from collections.abc import Mapping
from typing import Any

from deltaball.networks.layers import Layers
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.plan.together import PACK_NETWORKS, SIDE_BY_SIDE
from deltaball.study.methods import TRAININGS
from deltaball.study.objectives import DEFAULT, OBJECTIVES, generator_of

GIB = 2**30

# What packs that are trained at a time may hold together. The rest of a card of 80 GB is for data, for CUDA itself, for
# what cuBLAS and cuDNN work in, and for what torch keeps of memory that was freed.
TRAINING_BYTES = 56 * GIB

# What an attack's activations may occupy.
ATTACK_BYTES = 16 * GIB

FLOAT = 4  # bytes

# How many times the numbers that the layers give of an image are held at once: in a step, in a call of an attack, and
# by JAX for the gradient of a potential energy.
STEP_COPIES, ATTACK_COPIES, CHAIN_COPIES = 2, 4, 4

# Steps are taken as they are written before they are captured, and the memory of a graph is its own.
POOLS = 2


def training_bytes(method: str, axes: Mapping[str, Any], layers: Layers, points: int) -> int:
    """What one network of a pack holds that trains on so many points."""
    if TRAININGS[method].on_jax:
        seen = axes["train_points"] or points
        # Position, momentum, gradient, and what the integrator makes of them.
        return FLOAT * (8 * layers.parameters + CHAIN_COPIES * seen * sum(layers.activations))
    chosen = bool(axes.get("validation"))
    kept = 1 + TRAININGS[method].is_pruning + TRAININGS[method].moments(axes) + chosen
    held, generator = OBJECTIVES[axes.get("objective", DEFAULT)].held, generator_of(axes, layers.shape)
    numbers = held * sum(layers.activations) + (sum(generator.activations) if generator else 0)
    parameters = layers.parameters + (generator.parameters if generator else 0)
    passing = axes.get("batch_size", 0) * numbers * STEP_COPIES
    # Gradients, and one more of each while they are found.
    step = POOLS * (2 * parameters + passing)
    evaluation = EVALUATION_BATCH * (layers.activations[0] + 3 * max(layers.activations))
    orders = 2 * points * (2 if generator else 1)  # of 8 bytes
    return FLOAT * (kept * parameters + max(step, evaluation) + orders)


def most_networks(method: str, each: int) -> int:
    """How many networks a pack of a method may have at most, where each holds so many bytes."""
    beside = 1 if TRAININGS[method].on_jax else SIDE_BY_SIDE["cuda"]
    fitting = [
        networks
        for networks in range(1, PACK_NETWORKS + 1)
        if networks * min(beside, PACK_NETWORKS // networks) * each <= TRAINING_BYTES
    ]
    return max(fitting, default=1)


def images_at_once(numbers: int) -> int:
    """Images × networks of one call of an attack that fit, where the layers give so many numbers of an image."""
    return ATTACK_BYTES // (FLOAT * ATTACK_COPIES * numbers)
