"""Weights before training."""

import numpy as np

from deltaball.networks.layers import Layers, weight_shapes


def initial_weights(layers: Layers, generator: np.random.Generator) -> list[np.ndarray]:
    """Glorot-uniform kernels (Glorot & Bengio 2010, Equation 16) and zero biases, in Keras' order.

    Drawn in float32 by numpy, so that a network starts from the same weights on every device.
    """
    drawn = []
    for shape in weight_shapes(layers):
        if len(shape) == 1:
            drawn.append(np.zeros(shape, np.float32))
            continue
        receptive = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        drawn.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return drawn
