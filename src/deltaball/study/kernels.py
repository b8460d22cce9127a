"""Kernels by name: from where images around a point are drawn (papers 000 and 003, Definition 1). Light.

A kernel Q(·|x), a perturbation model, stands in a measure in place of a ball. Each is one class of
``deltaball.local.kernels`` and one entry of KERNELS, which study files, plans, tables and captions read. Study files
and tables call it `perturbation`, because `kernel` is there the size of a convolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from deltaball.study.axes import Name, Positive, axis
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN, JOINT, SEVERITIES, VERSION
from deltaball.study.neighbourhoods import NORMS

Value = float | int | str


@dataclass(frozen=True)
class Key:
    """A key of a study file that kernels take: what it may hold, and what it is."""

    kind: Any
    description: str


# Besides `norm` and `delta`, which balls have too.
KEYS = {
    "sigma": Key(axis(Positive), "standard deviation of the noise of a kernel, in pixel units; of codes, in theirs"),
    "autoencoder": Key(axis(Name), "of the study: its encoder's codes are moved, by sigma, and decoded"),
    "density": Key(
        axis(Literal["uniform", "reciprocal"]),
        "draws the kernel's size (delta, sigma) too, anew for each image: evenly on [least, size], or ∝ 1/size",
    ),
    "labels": Key(
        axis(Literal["any", "kept"]),
        "kept draws images that have the point's label (label-aware); of noise, that of the closest training image",
    ),
    "points": Key(
        axis(Literal["test", "cube"]),
        "around what is drawn: test images, or images uniform in [0, 1]^m (type 1: about the classifier alone)",
    ),
    "empty": Key(
        axis(Literal["itself", "nearest"]),
        "what is drawn where the ball holds no training image: the point itself, or the nearest one",
    ),
    "severity": Key(
        axis(Annotated[int, Field(ge=SEVERITIES[0], le=SEVERITIES[-1])]),
        "of a corruption; MNIST-C's own if left out",
    ),
    "least": Key(axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]), "the smallest size that is drawn"),
}

# Signs of sizes in captions.
SYMBOLS = {"delta": "δ", "sigma": "σ"}

# Kernels that may keep the label of their point, and what they do if nothing is said.
AWARE: dict[str, Value | None] = {"labels": "any"}

# Noise, which is defined around any image.
ANYWHERE: dict[str, Value | None] = {"points": "test"}

# Kernels whose size may itself be drawn: the keys that say so, and what they are where they are left out.
FAMILY: dict[str, Value | None] = {"density": None, "least": 0.0}


@dataclass(frozen=True, eq=False)
class Kernel:
    """What is known of a kernel without images."""

    name: str
    title: str  # in captions
    implementation: str  # the class, by its dotted path
    size: str = ""  # the key of a study file that says how far images are moved; none if it has no such number
    norms: tuple[str, ...] = ()  # of the balls in which it draws; none where there is no ball
    takes: Mapping[str, Value | None] = field(default_factory=dict)  # further keys, with what they are if left out
    of_images: bool = False  # whether it draws training images
    of_codes: bool = False  # whether it moves the codes of an auto-encoder
    corruptions: tuple[str, ...] = ()  # those that it draws in turn
    is_brought: bool = False  # whether its images are of a user's file

    @property
    def fills_balls(self) -> bool:
        """Whether every image of a ball may be drawn, and no other."""
        return bool(self.norms) and not self.of_images

    @property
    def draws(self) -> int | None:
        """How many images of a point are drawn if nothing is said; None: as many as the judge's own default."""
        return len(self.corruptions) or None

    @property
    def version(self) -> int:
        """Of the rules by which it corrupts; another one whenever one of these is raised."""
        ours = [CORRUPTIONS[name] for name in self.corruptions if name in CORRUPTIONS]
        return 1 + sum(VERSION - 1 + one.version - 1 for one in ours)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a study file that it takes, in the order of its name in tables."""
        needed = (*(["norm"] if self.norms else []), *([self.size] if self.size else []))
        return (*needed, *(["autoencoder"] if self.of_codes else []), *self.takes)

    def refuses(self, parameters: Mapping[str, Any]) -> str | None:
        """Why there is no such kernel, given the values of its keys; None where there is."""
        if self.norms and parameters["norm"] not in self.norms:
            others = " or ".join(one.name for one in KERNELS.values() if parameters["norm"] in one.norms)
            return f"norm {parameters['norm']}: it draws in {' or '.join(self.norms)}; possible there: {others}"
        if parameters.get("norm") == "linf" and parameters["delta"] > 1:
            return f"delta {parameters['delta']} in norm linf: pixels lie in [0, 1]; at most 1"
        if parameters.get("points") == "cube" and parameters["labels"] == "kept":
            return "labels 'kept' around points of the cube: they have no labels"
        if "density" not in self.takes:
            return None
        density, least, most = parameters["density"], parameters["least"], parameters[self.size]
        if density is None:
            return f"least {least}: is for a density of {self.size}, and none is asked" if least else None
        if least >= most:
            return f"least {least}: must be below {self.size}, which is {most}"
        if density == "reciprocal" and least == 0:
            return "density 'reciprocal' down to least = 0: 1/ε has no finite integral there; give a least above 0"
        return None


@dataclass(frozen=True)
class ChosenKernel:
    """A kernel as a measure asks it: its name, and the values of its keys that are not what they are if left out."""

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()

    @property
    def entry(self) -> Kernel:
        return entry_of(self.name)

    @property
    def label(self) -> str:
        """Its name in the tables and in the keys of stored outcomes, with the version of rules that were changed."""
        values = [value if isinstance(value, str) else repr(value) for _, value in self.parameters]
        version = self.entry.version
        return "_".join([self.name, *values, *([f"version{version}"] if version > 1 else [])])

    @property
    def needs_images(self) -> bool:
        """Whether it needs the training images, labels, or an auto-encoder of them; or a user's images."""
        entry = self.entry
        return entry.of_images or entry.of_codes or entry.is_brought or ("labels", "kept") in self.parameters

    @property
    def size(self) -> float | None:
        """How far it moves images; of a family, at most. None where it has no such number."""
        return dict(self.parameters).get(self.entry.size)

    @property
    def words(self) -> str:
        """In captions: Gaussian noise, σ = 0.1."""
        values, sign = dict(self.parameters), SYMBOLS.get(self.entry.size, "")
        told = [self.entry.title]
        if "norm" in values:
            told.append(NORMS[values["norm"]])
        if "density" in values:
            law = "uniform" if values["density"] == "uniform" else f"∝ 1/{sign}"
            told.append(f"{sign} {law} on [{values.get('least', 0):g}, {self.size:g}]")
        elif self.size is not None:
            told.append(f"{sign} = {self.size:g}")
        if "autoencoder" in values:
            told.append(f"auto-encoder {values['autoencoder'].rpartition('-')[0]}")
        if values.get("labels") == "kept":
            told.append("of the same label")
        if values.get("points") == "cube":
            told.append("around uniform images")
        if "severity" in values:
            told.append(f"severity {values['severity']}")
        if self.entry.of_images:
            told.append(f"{'the nearest' if values.get('empty') == 'nearest' else 'itself'} where there is none")
        return ", ".join(told)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            name="uniform",
            title="uniform in the ball",
            implementation="deltaball.local.kernels.uniform.Uniform",
            size="delta",
            norms=("linf",),
            takes=FAMILY | AWARE | ANYWHERE,
        ),
        Kernel(
            name="uniform_clipped",
            title="uniform in the ball, then clipped to [0, 1]",
            implementation="deltaball.local.kernels.uniform.UniformClipped",
            size="delta",
            norms=("linf", "l2", "l1"),
            takes=FAMILY | AWARE | ANYWHERE,
        ),
        Kernel(
            name="gaussian",
            title="Gaussian noise",
            implementation="deltaball.local.kernels.gaussian.Gaussian",
            size="sigma",
            takes=FAMILY | AWARE | ANYWHERE,
        ),
        Kernel(
            name="gaussian_clipped",
            title="Gaussian noise, then clipped to [0, 1]",
            implementation="deltaball.local.kernels.gaussian.GaussianClipped",
            size="sigma",
            takes=FAMILY | AWARE | ANYWHERE,
        ),
        Kernel(
            name="near",
            title="training images in the ball",
            implementation="deltaball.local.kernels.near.Near",
            size="delta",
            norms=("l2",),
            takes=FAMILY | AWARE | {"empty": "itself"},
            of_images=True,
        ),
        Kernel(
            name="on_manifold",
            title="decoded codes with Gaussian noise",
            implementation="deltaball.local.kernels.on_manifold.OnManifold",
            size="sigma",
            takes=FAMILY,
            of_codes=True,
        ),
        *(
            Kernel(
                name=one.name,
                title=one.title,
                implementation="deltaball.local.kernels.corrupted.Corrupted",
                takes={} if one.severity is None else {"severity": one.severity},
                corruptions=(one.name,),
            )
            for one in CORRUPTIONS.values()
        ),
        Kernel(
            name=JOINT,
            title="the fifteen corruptions of MNIST-C in turn",
            implementation="deltaball.local.kernels.corrupted.Corrupted",
            corruptions=FIFTEEN,
        ),
    )
}


def entry_of(name: str) -> Kernel:
    """The kernel of a name; one that is none of KERNELS names the file of a corrupted set."""
    return KERNELS.get(name) or Kernel(
        name=name,
        title=name,
        implementation="deltaball.local.kernels.brought.Brought",
        corruptions=(name,),
        is_brought=True,
    )
