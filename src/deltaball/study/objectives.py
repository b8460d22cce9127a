"""Objectives: what training minimises, and the axes of each. Light: the losses are in `training.objectives`.

A new objective is one class there and one entry in OBJECTIVES.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, create_model

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Layers, Shape
from deltaball.study import architectures
from deltaball.study.axes import WITHIN_PACK, Counts, Name, Positive, Repeats, Strict, axis, radius
from deltaball.study.constraints import CONSTRAINTS, canonical, largest_class, parsed

DEFAULT = "cross_entropy"

# What a step passes forward and backward of a generator: once to make images for the classifier, then its own step.
GENERATOR_PASSES = 4 / 3

LABEL = "label"  # that an attack in training is against it, and not against a constraint

LOGICS = ("dl2", "godel", "lukasiewicz", "product")

Axes = Mapping[str, Any]


class Objective(Strict):
    """What training minimises: its axes, and the class that computes it."""

    implementation: ClassVar[str]  # the class, by its dotted path: one of training.objectives
    passes: ClassVar[Callable[[Axes], float]]  # forward and backward passes of a step, of a network with these axes
    held: ClassVar[int]  # how many times what a pass of cross-entropy holds in memory a step holds
    # How often a step passes an auto-encoder's encoder and its decoder, per image; a gradient is worth two passes.
    coded: ClassVar[Callable[[Axes], tuple[float, float]] | None] = None
    # Of a network from images to images that is trained beside each, the layers, by its axes and the images' shape.
    generates: ClassVar[Callable[[Axes, Shape], Layers] | None] = None

    @classmethod
    def axis_names(cls) -> list[str]:
        """The names of its axes."""
        return [name for name in cls.model_fields if name != "objective"]

    def check_classes(self, facts: DatasetFacts) -> None:
        """Raise InputError, beginning with the key, where a constraint speaks of a class that the data lack."""
        for name in ("constraint", "against"):
            for text in getattr(self, name, ()):
                largest = -1 if text == LABEL else largest_class(parsed(text))
                if largest >= facts.classes:
                    raise InputError(f"{name} = {text!r}: {facts.name} has the classes 0 to {facts.classes - 1}")


def _objective(
    name: str,
    implementation: str,
    about: str,
    passes: Callable[[Axes], float] = lambda axes: 1,
    held: int = 1,
    generates: Callable[[Axes, Shape], Layers] | None = None,
    coded: Callable[[Axes], tuple[float, float]] | None = None,
    **axes: tuple[Any, Any],
) -> type[Objective]:
    """An entry of OBJECTIVES: name, the class that computes it, what it is, its costs, axes as (type, default)."""
    tag = (Literal[name], Field(DEFAULT) if name == DEFAULT else ...)
    entry = create_model(name, __base__=Objective, __doc__=about, objective=tag, **axes)
    entry.implementation, entry.passes, entry.held = implementation, staticmethod(passes), held
    entry.generates = staticmethod(generates) if generates else None
    entry.coded = staticmethod(coded) if coded else None
    return entry


def generator_of(axes: Axes, shape: Shape) -> Layers | None:
    """The layers of the generator beside each network with these axes, of images `shape`; None: there is none."""
    generates = OBJECTIVES[axes.get("objective", DEFAULT)].generates
    return generates(axes, shape) if generates else None


def _known(text: str) -> str:
    return LABEL if text == LABEL else canonical(text)


Constraint = Annotated[str, AfterValidator(canonical)]

_RADIUS = (
    Annotated[axis(radius(Annotated[float, Field(ge=0, le=1)])), WITHIN_PACK],
    Field(description="of the L∞ ball around each training image, in pixel units of [0, 1]; cut by [0, 1]"),
)
_STEPS = (Counts, Field([10], description="steps of the attack inside each step of training"))
_BETA = Annotated[axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]), WITHIN_PACK]
_CERTIFIED = {
    "radius": _RADIUS,
    "kappa": (
        Annotated[axis(Annotated[float, Field(ge=0, le=1)]), WITHIN_PACK],
        Field(
            [0.5],
            description="weight of the cross-entropy at the images once the radius has grown; before, it falls from 1",
        ),
    ),
    "natural_epochs": (
        Annotated[axis(Annotated[int, Field(ge=0, le=1_000_000)]), WITHIN_PACK],
        Field([0], description="epochs in which the radius is 0 and training is by cross-entropy"),
    ),
    "ramp_epochs": (
        Annotated[axis(Annotated[int, Field(ge=0, le=1_000_000)]), WITHIN_PACK],
        Field(description="epochs after these in which the radius grows from 0, evenly, and kappa falls"),
    ),
}
_CODER = (axis(Name), Field(description="of the study's autoencoders: its decoder stands for the manifold"))
_NAMES = ", ".join(CONSTRAINTS)


OBJECTIVES: dict[str, type[Objective]] = {
    one.__name__: one
    for one in (
        _objective(
            "cross_entropy",
            "deltaball.training.objectives.cross_entropy.CrossEntropy",
            "The mean cross-entropy of softmax and labels.",
        ),
        _objective(
            "augmented",
            "deltaball.training.objectives.adversarial.Augmented",
            "The mean cross-entropy of the images and of perturbed copies, made anew in every step.",
            lambda axes: 1 + axes["copies"] * (2 if axes["noise"] == "fgsm" else 1),
            noise=(
                axis(Literal["uniform", "fgsm", "gaussian"]),
                Field(["uniform"], description="what a copy is moved by"),
            ),
            copies=(axis(Annotated[int, Field(ge=1, le=100)]), Field([1], description="of each image")),
            radius=(
                _RADIUS[0],
                Field(description=f"{_RADIUS[1].description}; of gaussian noise its standard deviation, then clipped"),
            ),
        ),
        _objective(
            "adversarial",
            "deltaball.training.objectives.adversarial.Adversarial",
            "The mean cross-entropy at images that an attack found.",
            lambda axes: 1 + axes["attack_steps"],
            against=(
                axis(Annotated[str, AfterValidator(_known)]),
                Field(
                    [LABEL], description=f"what the attack is against: label, or a constraint ({_NAMES}, or your own)"
                ),
            ),
            attack_steps=_STEPS,
            radius=_RADIUS,
        ),
        _objective(
            "constrained",
            "deltaball.training.objectives.adversarial.Constrained",
            "alpha × cross-entropy + beta × the loss of a constraint at images that violate it (paper 001).",
            lambda axes: 2 + axes["attack_steps"],
            constraint=(axis(Constraint), Field(description=f"{_NAMES}, or your own: linf(f(x) - f(x0)) <= 1")),
            logic=(axis(Literal[LOGICS]), Field(["dl2"], description="how it becomes a loss")),
            alpha=(_BETA, Field([1.0], description="weight of the cross-entropy")),
            beta=(_BETA, Field(description="weight of the constraint")),
            attack_steps=_STEPS,
            radius=_RADIUS,
        ),
        _objective(
            "trades",
            "deltaball.training.objectives.adversarial.Trades",
            "Cross-entropy + beta × how far the softmax diverges under attack (Zhang et al. 2019).",
            lambda axes: 2 + axes["attack_steps"],
            beta=(_BETA, Field(description="weight of the divergence; 1 to 6 in the literature")),
            attack_steps=_STEPS,
            radius=_RADIUS,
        ),
        _objective(
            "mart",
            "deltaball.training.objectives.adversarial.Mart",
            "Boosted cross-entropy under attack + beta × the divergence where it is in doubt (Wang et al. 2020).",
            lambda axes: 2 + axes["attack_steps"],
            beta=(_BETA, Field(description="weight of the divergence; 5 in the literature")),
            attack_steps=_STEPS,
            radius=_RADIUS,
        ),
        _objective(
            "cross_lipschitz",
            "deltaball.training.objectives.cross_lipschitz.CrossLipschitz",
            "Cross-entropy + beta × how fast differences of logits change (Hein & Andriushchenko 2017).",
            lambda axes: 3 if axes["slopes"] == "random" else 16,
            12,
            beta=(_BETA, Field(description="weight of Ω; λ in papers 000 and 003")),
            slopes=(
                axis(Literal["all", "random"]),
                Field(["all"], description="of all logits, or of one random combination of them, which is cheaper"),
            ),
        ),
        _objective(
            "cotraining",
            "deltaball.training.objectives.cotraining.CoTraining",
            "Cross-entropy + beta × how the softmax changes at what a generator makes of images, which is trained too.",
            lambda axes: 3,
            2,
            lambda axes, shape: architectures.generator(axes["generator_filters"], axes["generator_depth"], shape),
            beta=(_BETA, Field(description="weight of the change; λ in papers 000 and 003")),
            margin_of=(
                axis(Literal["softmax", "logits"]),
                Field(["softmax"], description="what the generator closes the margin of; that of softmax saturates"),
            ),
            generator_filters=(Counts, Field([128], description="of each hidden convolution of the generator")),
            generator_depth=(Repeats, Field([2], description="hidden convolutions of the generator")),
        ),
        _objective(
            "on_manifold",
            "deltaball.training.objectives.manifold.OnManifold",
            "Cross-entropy + beta × how the softmax changes at images decoded from noisy codes (paper 000, Section 7).",
            lambda axes: 1 + axes["decoded"],
            11,
            coded=lambda axes: (1, axes["decoded"]),
            autoencoder=_CODER,
            beta=(_BETA, Field(description="weight of the change; λ in papers 000 and 003")),
            sigma=(axis(Positive), Field([0.06], description="standard deviation of the noise of codes")),
            decoded=(
                axis(Annotated[int, Field(ge=1, le=100)]),
                Field([1], description="images decoded for each training image in a step"),
            ),
            ball_radii=(
                axis(Annotated[int, Field(ge=1, le=1000)]),
                Field([10], description="|Σ|: radii drawn in a step, of the L2 balls whose decoded images count"),
            ),
            least_radius=(
                axis(Annotated[float, Field(gt=0, lt=1)]),
                Field([0.1], description="the smallest radius that is drawn"),
            ),
        ),
        _objective(
            "on_manifold_adversarial",
            "deltaball.training.objectives.manifold.OnManifoldAdversarial",
            "Cross-entropy of minibatches half of which an attack moved along a decoder (Stutz et al. 2019).",
            lambda axes: 1 + axes["attack_steps"] / 2,
            coded=lambda axes: (1 / 2, (3 * axes["attack_steps"] + 1) / 2),
            autoencoder=_CODER,
            latent_radius=(axis(Positive), Field([0.1], description="of the L∞ ball around the code of an image")),
            latent_rate=(axis(Positive), Field([0.005], description="length of the attack's steps in each number")),
            attack_steps=(Counts, Field([40], description="steps of the attack inside each step of training")),
        ),
        _objective(
            "ibp",
            "deltaball.training.objectives.certified.IntervalTraining",
            "Cross-entropy of the worst logits by interval bounds (Gowal et al. 2018).",
            lambda axes: 5,
            3,
            **_CERTIFIED,
        ),
        _objective(
            "crown_ibp",
            "deltaball.training.objectives.certified.CrownIntervalTraining",
            "Cross-entropy of the worst logits by lines backwards between interval bounds (Zhang et al. 2020).",
            lambda axes: 30,
            23,
            **_CERTIFIED,
            crown_share=(
                Annotated[axis(Annotated[float, Field(ge=0, le=1)]), WITHIN_PACK],
                Field(
                    [0.0],
                    description="weight of the lines against intervals once the radius has grown; it falls from 1",
                ),
            ),
        ),
    )
}
