"""Weights before training."""

import math

import numpy as np

from deltaball.networks.layers import Layers, Weight


def initial_weights(layers: Layers, generator: np.random.Generator) -> list[np.ndarray]:
    """What networks start from, in the layers' order: a rule for each role of a weight.

    Drawn in float32 by numpy, so that a network starts from the same weights on every device.
    """
    return [INITIAL[weight.role](weight, generator) for weight in layers.weights]


def glorot_uniform(weight: Weight, generator: np.random.Generator) -> np.ndarray:
    """Within ± √(6 / (inputs + outputs)), each times the receptive field (Glorot & Bengio 2010, Equation 16)."""
    limit = np.sqrt(6 / (math.prod(weight.shape[:-2]) * (weight.shape[-2] + weight.shape[-1])))
    return generator.uniform(-limit, limit, weight.shape).astype(np.float32)


def constant(weight: Weight, generator: np.random.Generator) -> np.ndarray:
    return np.full(weight.shape, weight.start, np.float32)


INITIAL = {"kernel": glorot_uniform, "bias": constant, "scale": constant, "buffer": constant}
