"""What judges networks at test points: attacks, certificates, the exact answer, samples. Light, like the study.

An attack finds violations, a certificate proves that there are none, the exact answer decides; a sample says how often
random images violate. Each is one class of ``deltaball.local`` and one entry of JUDGES, which study files, plans,
costs, estimates, tables and figures read.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from deltaball.networks.layers import Activation, Conv, Dense, Layers
from deltaball.study.notions import Notion
from deltaball.study.refusals import (
    CURVED,
    CURVED_SOFTMAX,
    CURVED_SUMS,
    DECODED,
    DISTANCE,
    EUCLIDEAN,
    LOGITS,
    NO_CLASS,
    NO_DISTANCE,
    NO_GENERATOR,
    NO_LAYERS,
    NO_NORM,
    NO_PIECES,
    NO_PROGRAM,
    NO_SOFTMAX,
    NOT_A_BOX,
    NOT_A_SHARE,
    ORDINARY,
    STANDARDISED,
    STANDARDISED_SLOPES,
    TOO_LARGE,
    UNLAYERED,
    VECTORS,
    NetworkKind,
    Refusal,
)

Settings = Mapping[str, float]

# In the order in which they are asked: what the cheap settle is not asked of the others.
STAGES = ("finds", "proves", "decides", "samples")
KEYS = {"finds": "attack", "proves": "certificate", "decides": "certificate", "samples": "sampling"}


@dataclass(frozen=True, eq=False)
class Judge:
    """An attack, a certificate, the exact answer or a sample."""

    name: str  # in study files; without a '-', which sets settings apart in tables
    title: str  # in captions
    says: Literal["finds", "proves", "decides", "samples"]
    implementation: str  # the class, by its dotted path
    passes: Callable[[Settings, Layers, Notion], float]  # forward passes of one image per point, about
    settings: Settings = field(default_factory=dict)  # what its class takes, with defaults
    of_kernels: bool = False  # whether it draws from a kernel, and not in a ball
    of_balls: bool = False  # of kernels, whether of those alone whose images fill a ball
    outcomes_of: str = ""  # the judge of whose outcomes it makes another number (`estimation.scores`); none if its own
    # Measures that agree in these, and in the settings, are judged by one search: of norm, delta, kernel, reads and
    # reference; none if ().
    shares: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    seconds: float = 0.0  # of a CPU per point, besides the passes
    branches: bool = False  # whether it searches by branch and bound besides, up to its setting `seconds`
    members: tuple[str, ...] = ()  # of an ensemble: the attacks of which the closest image counts, as it numbers them
    # Of the rules by which it looks: another one whenever it finds other images, or proves more, by the same settings.
    version: int = 1
    # Whether a CPU asks it network by network: it goes on with a part of the points, of which each network has others.
    one_by_one: bool = False
    weakening: tuple[str, ...] = ()  # settings that make it find less the larger they are; the others make it find more

    @property
    def key(self) -> str:
        """Under which key of a study file, and in which column of the tables, it stands."""
        return KEYS[self.says]

    @property
    def stage(self) -> int:
        return STAGES.index(self.says)

    def effort(self, values: Iterable[float] | None = None) -> float:
        """How much its settings make it do, or its defaults: two of one name are ordered by it."""
        chosen = self.settings if values is None else dict(zip(self.settings, values, strict=True))
        return math.prod(1 / (1 + value) if name in self.weakening else value for name, value in chosen.items())

    @property
    def minds_layers(self) -> bool:
        """Whether it needs to know what every layer computes."""
        return NO_LAYERS in self.refusals or UNLAYERED in self.refusals

    @property
    def minds_generator(self) -> bool:
        """Whether it needs the generator beside a network."""
        return NO_GENERATOR in self.refusals

    @property
    def minds_size(self) -> bool:
        """Whether there are networks that are too large for it."""
        return TOO_LARGE in self.refusals

    def beside(self, settings: Settings, layers: Layers) -> float:
        """Seconds of a CPU per point, besides the passes, of a network."""
        return self.seconds + (_branching(settings, layers) if self.branches else 0.0)

    def refuses(self, notion: Notion, norm: str, network: NetworkKind = ORDINARY) -> str | None:
        """Why it cannot judge networks of this kind by the notion in balls of the norm; None if it can."""
        return next((one.reason for one in self.refusals if one.concerns(notion, norm, network)), None)


def _gradient_steps(settings: Settings, layers: Layers, notion: Notion) -> float:
    # A gradient is worth three forward passes.
    return 3 * settings["steps"] * settings.get("restarts", 1) + 40


def _ways_of_classes(settings: Settings, layers: Layers, notion: Notion) -> float:
    """A gradient on the way to each class and some images; eleven on the first, about three on the others."""
    return 6 * layers.output[0] + 40


def _several(settings: Settings, layers: Layers, notion: Notion) -> float:
    return 3 * settings["steps"] * settings["radii"] + _ways_of_classes(settings, layers, notion) + 30


def _pulled_back(settings: Settings, layers: Layers, notion: Notion) -> float:
    """Every unit after the first layer pulled back to the image, twice, and the rows that are asked; in float64.

    Slopes are bounded in some dozen shells around the point, each anew.
    """
    units = [math.prod(layer.output(shape)) for layer, shape in layers.within() if isinstance(layer, (Conv, Dense))]
    rows = {"softmax": units[-1] ** 2, "logits": 2 * units[-1]}.get(notion.reads, units[-1])
    return (12 if notion.bounds_slopes else 1) * 2 * (2 * sum(units[1:-1]) + rows)


# How often α-CROWN pulls back, each with its gradient.
ASCENDING = 3 * 21

PGD = {"steps": 40, "restarts": 2}


def _pgd_and_crown(settings: Settings, layers: Layers, notion: Notion) -> float:
    return 3 * math.prod(PGD.values()) + _pulled_back(settings, layers, notion)


# Of a linear program in a region: rows that are pulled back, and what the solver takes, about.
ROWS, PROGRAM_SECONDS = 150, 0.03
# Of a walk, programs that are solved, about, however many it may.
WALKED = 5


def _programs(settings: Settings, layers: Layers, notion: Notion) -> float:
    return 2 * ROWS * settings.get("targets", 1)


# Of L-BFGS-B: images that it looks at, and what each takes besides its gradient, about.
LOOKS, LOOKING_SECONDS = 150, 0.001

# The share of points that neither PGD nor CROWN settles. What branch and bound takes for each of them, if the limit
# allows, with so many hidden units; otherwise as their cube, and where activations are curved so many times as long.
LEFT_OPEN, SOLVING_SECONDS, SOLVED_UNITS, CURVED_TIMES = 0.35, 0.1, 64, 100


def _branching(settings: Settings, layers: Layers) -> float:
    units = sum(math.prod(layer.output(shape)) for layer, shape in layers.within() if isinstance(layer, (Conv, Dense)))
    units -= layers.output[0]
    curved = any(isinstance(layer, Activation) and layer.name != "relu" for layer, _ in layers.within())
    needed = SOLVING_SECONDS * (units / SOLVED_UNITS) ** 3 * (CURVED_TIMES if curved else 1)
    return LEFT_OPEN * min(settings["seconds"], needed)


def _of_mean(name: str, title: str, further: Settings) -> Judge:
    """Another number of the outcomes of `mean`, with `further` settings of its own."""
    return Judge(
        name=name,
        title=title,
        says="samples",
        implementation="deltaball.local.samples.Mean",
        passes=lambda settings, layers, notion: settings["draws"],
        settings={"draws": 100, **further},
        shares=("kernel",),
        refusals=(NO_NORM, NOT_A_SHARE),
        of_kernels=True,
        outcomes_of="mean",
    )


# Balls that an exact distance decides, about.
BISECTED = 3

# Weakest first, attacks before certificates: where there is room for one, the last is shown. FMN seeks the closest
# violation and PGD the worst point of a ball, so PGD says more about each ball.
JUDGES = {
    judge.name: judge
    for judge in (
        Judge(
            name="fgsm",
            title="FGSM",
            says="finds",
            implementation="deltaball.local.attacks.fgsm.Fgsm",
            passes=lambda settings, layers, notion: 4,
            shares=("norm", "delta"),
            refusals=(DISTANCE,),
        ),
        Judge(
            name="generator",
            title="the network's own generator",
            says="finds",
            implementation="deltaball.local.attacks.generator.OwnGenerator",
            passes=lambda settings, layers, notion: 30,
            shares=("norm", "reference"),
            refusals=(NO_CLASS, NO_GENERATOR),
        ),
        Judge(
            name="lbfgs",
            title="L-BFGS",
            says="finds",
            implementation="deltaball.local.attacks.lbfgs.Lbfgs",
            passes=lambda settings, layers, notion: 3 * LOOKS * settings["targets"],
            settings={"alpha": 0.0, "targets": 1, "rounded_to": 0},
            shares=("norm", "reference"),
            refusals=(NO_CLASS,),
            seconds=LOOKS * LOOKING_SECONDS,
            weakening=("alpha", "rounded_to"),
        ),
        Judge(
            name="linear_region",
            title="the region's linear program",
            says="finds",
            implementation="deltaball.local.attacks.linear_region.LinearRegion",
            passes=_programs,
            settings={"alpha": 0.0, "targets": 1, "rounded_to": 0},
            shares=("norm", "delta", "reference"),
            refusals=(NO_CLASS, NO_PROGRAM, NO_LAYERS, VECTORS, DECODED, NO_PIECES, CURVED),
            seconds=PROGRAM_SECONDS,
            weakening=("alpha", "rounded_to"),
        ),
        Judge(
            name="bg",
            title="BG",
            says="finds",
            implementation="deltaball.local.attacks.bg.Bg",
            passes=_ways_of_classes,
            shares=("norm", "reference"),
            refusals=(NO_CLASS,),
        ),
        Judge(
            name="ensemble",
            title="FGSM, BG and PGD",
            says="finds",
            implementation="deltaball.local.attacks.ensemble.Ensemble",
            passes=_several,
            settings={"steps": 10, "radii": 10},
            version=2,
            one_by_one=True,
            shares=("norm", "reference"),
            refusals=(NO_CLASS,),
            members=("fgsm", "bg", "pgd"),
        ),
        Judge(
            name="ensemble_apart",
            title="FGSM, BG and PGD, each by itself",
            says="finds",
            implementation="deltaball.local.attacks.ensemble.EnsembleApart",
            passes=_several,
            settings={"steps": 10, "radii": 10},
            version=2,
            one_by_one=True,
            shares=("norm", "reference"),
            refusals=(NO_CLASS,),
            members=("fgsm", "bg", "pgd"),
        ),
        Judge(
            name="fmn",
            title="FMN",
            says="finds",
            implementation="deltaball.local.attacks.fmn.Fmn",
            passes=_gradient_steps,
            settings={"steps": 100},
            shares=("norm", "reference"),
            refusals=(NO_CLASS,),
        ),
        Judge(
            name="walk",
            title="the walk through regions",
            says="finds",
            implementation="deltaball.local.attacks.walk.Walk",
            passes=lambda settings, layers, notion: (
                _gradient_steps({"steps": settings["steps"]}, layers, notion) + 2 * ROWS * settings["programs"]
            ),
            settings={"programs": 20, "steps": 100},
            shares=("norm", "reference"),
            refusals=(NO_CLASS, NO_PROGRAM, NO_LAYERS, NO_PIECES, CURVED),
            seconds=WALKED * PROGRAM_SECONDS,
        ),
        Judge(
            name="pgd",
            title="PGD",
            says="finds",
            implementation="deltaball.local.attacks.pgd.Pgd",
            passes=_gradient_steps,
            settings=PGD,
            shares=("norm", "delta", "reads", "reference"),
            refusals=(DISTANCE,),
        ),
        Judge(
            name="ibp",
            title="IBP",
            says="proves",
            implementation="deltaball.local.certificates.certificate.Ibp",
            passes=lambda settings, layers, notion: 8,
            refusals=(UNLAYERED, VECTORS, DECODED, STANDARDISED_SLOPES),
        ),
        Judge(
            name="crown",
            title="CROWN",
            says="proves",
            implementation="deltaball.local.certificates.certificate.Crown",
            passes=_pulled_back,
            refusals=(UNLAYERED, VECTORS, DECODED, STANDARDISED_SLOPES),
        ),
        Judge(
            name="alpha_crown",
            title="α-CROWN",
            says="proves",
            implementation="deltaball.local.certificates.certificate.AlphaCrown",
            passes=lambda settings, layers, notion: ASCENDING * _pulled_back(settings, layers, notion),
            refusals=(UNLAYERED, VECTORS, DECODED, STANDARDISED_SLOPES),
        ),
        Judge(
            name="branched",
            title="branch and bound",
            says="proves",
            implementation="deltaball.local.branched.Branched",
            passes=_pgd_and_crown,
            settings={"seconds": 1.0},
            refusals=(UNLAYERED, VECTORS, STANDARDISED, NO_SOFTMAX, EUCLIDEAN, CURVED_SUMS, TOO_LARGE),
            branches=True,
            version=3,
        ),
        Judge(
            name="exact",
            title="the exact answer",
            says="decides",
            implementation="deltaball.local.deciding.Exact",
            passes=_pgd_and_crown,
            settings={"seconds": 60.0},
            refusals=(
                UNLAYERED,
                VECTORS,
                DECODED,
                STANDARDISED,
                CURVED_SOFTMAX,
                LOGITS,
                DISTANCE,
                EUCLIDEAN,
                CURVED_SUMS,
                TOO_LARGE,
            ),
            branches=True,
            version=2,
        ),
        Judge(
            name="exact_distance",
            title="the exact distance",
            says="decides",
            implementation="deltaball.local.deciding.ExactDistance",
            passes=lambda settings, layers, notion: (
                _gradient_steps({"steps": 100}, layers, notion) + BISECTED * _pulled_back(settings, layers, notion)
            ),
            settings={"tolerance": 0.01, "seconds": 60.0},
            refusals=(
                UNLAYERED,
                VECTORS,
                STANDARDISED,
                NO_DISTANCE,
                EUCLIDEAN,
                CURVED_SUMS,
                TOO_LARGE,
            ),
            weakening=("tolerance",),
            branches=True,
            version=2,
        ),
        Judge(
            name="uniform",
            title="uniform images",
            says="samples",
            implementation="deltaball.local.samples.UniformMean",
            passes=lambda settings, layers, notion: settings["draws"],
            settings={"draws": 100},
            shares=("norm", "delta"),
            refusals=(DISTANCE, NOT_A_BOX),
        ),
        Judge(
            name="mean",
            title="the mean of random images",
            says="samples",
            implementation="deltaball.local.samples.Mean",
            passes=lambda settings, layers, notion: settings["draws"],
            settings={"draws": 100},
            shares=("kernel",),
            refusals=(NO_NORM,),
            of_kernels=True,
        ),
        _of_mean("share", "points with ρ ≥ 1 − τ", {"tau": 0.05}),
        _of_mean("cvar", "the worst τ of a point's random images", {"tau": 0.05}),
        _of_mean("unanimous", "points of which all random images agree", {}),
        Judge(
            name="worst",
            title="the worst image of the ball that is drawn from",
            says="samples",
            implementation="deltaball.local.worst.Worst",
            passes=_several,
            settings={"steps": 10, "radii": 10},
            version=2,
            shares=("kernel",),
            refusals=(NO_CLASS,),
            of_kernels=True,
            of_balls=True,
        ),
    )
}


def judges_by_key(key: str) -> tuple[str, ...]:
    """The names of all judges of a key of study files, weakest first."""
    return tuple(judge.name for judge in JUDGES.values() if judge.key == key)


def settings_takers() -> dict[str, list[Judge]]:
    """Each setting of the table with the judges that take it."""
    names = dict.fromkeys(name for judge in JUDGES.values() for name in judge.settings)
    return {name: [judge for judge in JUDGES.values() if name in judge.settings] for name in names}
