"""Weights before training."""

import math

import numpy as np

from deltaball.networks.layers import Layers


def initial_weights(layers: Layers, generator: np.random.Generator) -> list[np.ndarray]:
    """What networks start from, in Keras' order: a rule for each role of a weight.

    Drawn in float32 by numpy, so that a network starts from the same weights on every device.
    """
    return [INITIAL[weight.role](weight.shape, generator) for weight in layers.weights]


def glorot_uniform(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Within ± √(6 / (inputs + outputs)), each times the receptive field (Glorot & Bengio 2010, Equation 16)."""
    limit = np.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def zeros(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return np.zeros(shape, np.float32)


INITIAL = {"kernel": glorot_uniform, "bias": zeros}
