"""What judges cannot judge, and why. Light, like the study."""

from collections.abc import Callable
from dataclasses import dataclass

from deltaball.networks.dense_sizes import LARGEST, too_large
from deltaball.networks.layers import Layers, Residual
from deltaball.study.notions import Notion


@dataclass(frozen=True)
class NetworkKind:
    """What a judge needs to know of a network to refuse it."""

    layered: bool = True  # whether it is a list of layers; a mean over a posterior is none
    activations: tuple[str, ...] = ("relu",)
    layers: Layers | None = None  # where its size is known
    has_bounds: bool = True  # whether its layers can be bounded and taken apart
    decodes: bool = False  # whether images pass a decoder before it
    standardises: bool = False  # whether it divides by a deviation of an image's own numbers
    has_generator: bool = False  # whether it was trained beside a generator of adversarial images


ORDINARY = NetworkKind()


@dataclass(frozen=True)
class Refusal:
    """Something a judge cannot judge, and why."""

    concerns: Callable[[Notion, str, NetworkKind], bool]  # notion, norm, network
    reason: str


STANDARDISED = Refusal(
    lambda notion, norm, network: network.standardises,
    "it divides by a deviation of the image's own numbers, which is not piecewise linear; ask crown of it",
)
STANDARDISED_SLOPES = Refusal(
    lambda notion, norm, network: network.standardises and notion.bounds_slopes,
    "it divides by a deviation of the image's own numbers, and there are no bounds of how fast that moves",
)
NO_DISTANCE = Refusal(lambda notion, norm, network: not notion.is_distance, "it is a distance that it seeks; ask exact")
DISTANCE = Refusal(lambda notion, norm, network: notion.is_distance, "it is a distance, and not the worst of one ball")
NO_PROGRAM = Refusal(lambda notion, norm, network: norm != "linf", "its linear program is of distances in linf")
NO_LAYERS = Refusal(
    lambda notion, norm, network: not network.layered,
    "it needs the layers of a network, and a mean over a posterior has none; leave them out by `only`",
)
NO_GENERATOR = Refusal(
    lambda notion, norm, network: not network.has_generator,
    "it needs the generator beside a network, which objective 'cotraining' alone trains: leave others out by `only`",
)
NO_PIECES = Refusal(
    lambda notion, norm, network: network.standardises,
    "it divides by a deviation of an image's own numbers, which is not piecewise linear",
)
VECTORS = Refusal(
    lambda notion, norm, network: not network.has_bounds,
    "it sums kernels of support vectors, which are not piecewise linear and of which no bounds are known",
)
DECODED = Refusal(
    lambda notion, norm, network: network.decodes,
    "no bounds are known of a transfer's decoder; leave them out by `only: {transfer: none}`",
)
NO_CLASS = Refusal(lambda notion, norm, network: notion.reads != "margin", "what it looks for is another class")
NO_SOFTMAX = Refusal(
    lambda notion, norm, network: notion.reads != "softmax",
    "it proves how far softmax moves; ask exact of another class, and alpha_crown of the rest",
)
CURVED_SOFTMAX = Refusal(
    lambda notion, norm, network: notion.reads in ("class_softmax", "softmax"), "softmax is not piecewise linear"
)
LOGITS = Refusal(lambda notion, norm, network: notion.reads == "logits", "it decides what class an image is of")
NO_NORM = Refusal(
    lambda notion, norm, network: notion.compares_distances, "it compares distances, and a kernel has no norm for them"
)
NOT_A_SHARE = Refusal(
    lambda notion, norm, network: not notion.is_share, "it is about the share of a point's images for which one holds"
)
NOT_A_BOX = Refusal(
    lambda notion, norm, network: norm != "linf", "uniform images of a ball that [0, 1] cuts are known in linf alone"
)
EUCLIDEAN = Refusal(lambda notion, norm, network: norm == "l2", "its programs are linear")
UNLAYERED = Refusal(
    lambda notion, norm, network: not network.layered,
    "they are means over a posterior, of which nothing can be proven; leave them out by `only`",
)
CURVED = Refusal(
    lambda notion, norm, network: any(name != "relu" for name in network.activations),
    "it needs relu, and not tanh or sigmoid: `only: {activation: relu}`",
)
CURVED_SUMS = Refusal(
    lambda notion, norm, network: (
        network.layers is not None
        and any(name != "relu" for name in network.activations)
        and any(isinstance(layer, Residual) for layer in network.layers)
    ),
    "beside residual sums it needs relu, and not tanh or sigmoid",
)
TOO_LARGE = Refusal(
    lambda notion, norm, network: network.layers is not None and too_large(network.layers),
    f"written as dense layers it has more than {LARGEST:,} weights; ask crown of it, or leave it out by `only`",
)
