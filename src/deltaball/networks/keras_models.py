"""The Keras model of a list of layers."""

import os
from typing import TYPE_CHECKING

from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool

if TYPE_CHECKING:
    import keras


def keras_model(network: Layers, shape: tuple[int, int, int]) -> "keras.Model":
    """The network as a Keras model from images [n, *shape] in [0, 1] to logits [n, classes].

    Built on the backend that KERAS_BACKEND names (torch if unset); Glorot-uniform kernels and zero biases.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    model = keras.Sequential([keras.Input(shape)])
    for layer in network:
        match layer:
            case Dense():
                model.add(keras.layers.Dense(layer.outputs))
            case Conv():
                model.add(keras.layers.Conv2D(layer.outputs, layer.size, padding="same", data_format="channels_last"))
            case Activation():
                model.add(keras.layers.Activation(layer.name))
            case MaxPool():
                model.add(keras.layers.MaxPooling2D(2, data_format="channels_last"))
            case Flatten():
                model.add(keras.layers.Flatten(data_format="channels_last"))
    return model
