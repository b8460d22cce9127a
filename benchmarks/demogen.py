"""Small networks of DEMOGEN's two architectures, built and saved by TensorFlow, with the logits that it has of images.

    conda env create -n demogen -f envs/demogen.yaml
    conda run -n demogen python benchmarks/demogen.py FOLDER

writes FOLDER/NIN_CIFAR10 and FOLDER/RESNET_CIFAR10 with a checkpoint of every kind, in the format of the archive and
with its names, and FOLDER/logits.npz. tests/files/demogen was written by it; tests/exchange/test_demogen.py reads it
without TensorFlow. Weights and moving averages are drawn, so that a layer that is left out or misplaced shows.
"""

import os
import sys
from functools import partial
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import numpy as np
import tensorflow.compat.v1 as tf

IMAGES, CLASSES = 3, 10
FILTERS = {"nin": 3, "resnet": 2}
GROUPS = 32  # of a group normalisation, or as many as there are channels
STRIDES, BLOCKS = (1, 2, 2), 5  # ResNet-32


class Layers:
    """Layers under the names that tf.layers gives: of each kind, numbered from the second on."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}

    def name(self, kind: str) -> str:
        number = self.made.setdefault(kind, 0)
        self.made[kind] += 1
        return f"{kind}_{number}" if number else kind

    def weight(self, name: str, *shape: int, least: float | None = None) -> tf.Tensor:
        scale = 0.1 if len(shape) == 1 else (2 / np.prod(shape[:-1])) ** 0.5
        start = tf.random_normal_initializer(stddev=scale)
        if least is not None:
            start = tf.random_uniform_initializer(least, 1.5)
        return tf.get_variable(name, shape, initializer=start)

    def convolution(self, x: tf.Tensor, filters: int, size: int, stride: int, padding: str, bias: bool) -> tf.Tensor:
        with tf.variable_scope(self.name("conv2d")):
            kernel = self.weight("kernel", size, size, x.shape[-1], filters)
            found = tf.nn.conv2d(x, kernel, stride, padding)
            return found + self.weight("bias", filters) if bias else found

    def group_normalised(self, x: tf.Tensor) -> tf.Tensor:
        height, width, channels = x.shape[1:]
        groups = min(GROUPS, channels)
        with tf.variable_scope(self.name("group_norm")):
            gamma, beta = self.weight("gamma", 1, channels, 1, 1, least=0.5), self.weight("beta", 1, channels, 1, 1)
        parted = tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (-1, groups, channels // groups, height, width))
        mean, variance = tf.nn.moments(parted, (2, 3, 4), keepdims=True)
        whole = tf.reshape((parted - mean) / tf.sqrt(variance + 1e-6), (-1, channels, height, width))
        return tf.transpose(whole * gamma + beta, (0, 2, 3, 1))

    def normalised(self, x: tf.Tensor, epsilon: float) -> tf.Tensor:
        with tf.variable_scope(self.name("batch_normalization")):
            gamma, beta = self.weight("gamma", x.shape[-1], least=0.5), self.weight("beta", x.shape[-1])
            mean = self.weight("moving_mean", x.shape[-1])
            variance = self.weight("moving_variance", x.shape[-1], least=0.5)
            found, *_ = tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, epsilon, is_training=False)
            return found


def nin(x: tf.Tensor, filters: int) -> tf.Tensor:
    layers = Layers()
    for _ in range(3):
        for size, stride in ((3, 2), (1, 1), (1, 1)):
            x = layers.convolution(x, filters, size, stride, "SAME", bias=True)
            x = tf.nn.relu(layers.normalised(x, 1e-3))
    return tf.reshape(layers.convolution(x, CLASSES, 4, 1, "VALID", bias=True), [-1, CLASSES])


def resnet(x: tf.Tensor, filters: int, grouped: bool = False) -> tf.Tensor:
    layers = Layers()

    def normalised(x: tf.Tensor) -> tf.Tensor:
        return layers.group_normalised(x) if grouped else layers.normalised(x, 1e-5)

    def convolution(x: tf.Tensor, filters: int, size: int, stride: int) -> tf.Tensor:
        if stride > 1:
            before = (size - 1) // 2
            around = [before, size - 1 - before]
            x = tf.pad(x, [[0, 0], around, around, [0, 0]])
        return layers.convolution(x, filters, size, stride, "SAME" if stride == 1 else "VALID", bias=False)

    x = convolution(x, filters, 3, 1)
    for stage, first in enumerate(STRIDES):
        for block in range(BLOCKS):
            width, stride = filters * 2**stage, 1 if block else first
            entering, x = x, tf.nn.relu(normalised(x))
            shortcut = entering if block else convolution(x, width, 1, stride)
            x = convolution(x, width, 3, stride)
            x = convolution(tf.nn.relu(normalised(x)), width, 3, 1) + shortcut
    x = tf.reduce_mean(tf.nn.relu(normalised(x)), [1, 2])
    with tf.variable_scope(layers.name("dense")):
        return x @ layers.weight("kernel", x.shape[-1], CLASSES) + layers.weight("bias", CLASSES)


NETWORKS = {
    "nin": ("nin", nin, "NIN_CIFAR10/nin_wide_1.0x_bn_dropout_0.0_aug_decay_0.0_1"),
    "resnet": ("resnet", resnet, "RESNET_CIFAR10/resnet_wide_1.0x_batchnorm_aug_decay_0.0_1"),
    "grouped": ("resnet", partial(resnet, grouped=True), "RESNET_CIFAR10/resnet_wide_1.0x_groupnorm_aug_decay_0.0_1"),
}


def main(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
    images[1] //= 8  # dark
    images[2] = 7  # of one colour: its deviation is 0
    found = {"images": images}
    for name, (scope, build, where) in NETWORKS.items():
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(1)
            shown = tf.map_fn(tf.image.per_image_standardization, tf.constant(images, tf.float32))
            with tf.variable_scope(scope):
                logits = build(shown, FILTERS[scope])
            tf.get_variable("global_step", (), tf.int64, tf.zeros_initializer())
            tf.get_variable(f"{scope}/conv2d/kernel/Momentum", (2, 2))
            session.run(tf.global_variables_initializer())
            found[name] = session.run(logits)
            path = folder / where / "model.ckpt-150000"
            path.parent.mkdir(parents=True, exist_ok=True)
            tf.train.Saver().save(session, str(path), write_meta_graph=False)
            (path.parent / "checkpoint").unlink()
    np.savez_compressed(folder / "logits.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
