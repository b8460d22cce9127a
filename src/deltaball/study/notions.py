"""Local robustness by name: what studies, plans, tables and figures need to know of a notion. Light, like the study.

The formulas are classes of ``deltaball.local``, each named by its entry here. A notion is one entry and one class;
where a study chooses between forms of it, each form is an entry, and the class takes the choices.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

from pydantic import Field

from deltaball.study.axes import Positive, Share, axis, radius

# Closer than this to its point, in pixel units and the ball's norm, how fast outputs move is not looked at: rounding in
# float32 may move them further than any multiple of so small a distance.
NEAREST = 1e-3

# What outputs in a ball are held against: the class predicted at the point, that of its label, or the point's output.
Reference = Literal["predicted", "label", "output"]


@dataclass(frozen=True)
class Notion:
    """What a point's outcome is, and what the mean of the outcomes, the notion's quantity, is called.

    R is a share of robust points (outcomes 0 and 1), D a mean variation (outcomes in [0, 1]), M a mean distance
    (outcomes in [0, δ]).
    """

    name: str  # in tables
    quantity: Literal["R", "D", "M"]
    meaning: str
    title: str
    short_title: str
    implementation: str  # the class, by its dotted path
    # What an outcome is computed from: the smallest lead of the reference class over another one, its softmax (all its
    # leads), the softmax of all classes, or the logits themselves.
    reads: Literal["margin", "class_softmax", "softmax", "logits"]
    reference: Reference = "predicted"
    parameters: tuple[str, ...] = ()  # what the class takes of the measure: its threshold, its delta
    threshold: str = ""  # the key of a study file for the threshold; `gamma` in tables
    symbol: str = ""  # of the threshold
    choices: Mapping[str, str] = field(default_factory=dict, compare=False)  # of its form; what the class takes too
    own_family: str = ""  # its name in a study file, which forms share; left out, its own
    own_curve: str = ""  # the notion on whose curve over δ it lies; left out, its own
    usual_attack: str = "fgsm"  # where an entry asks neither an attack nor a certificate
    keys: Mapping[str, Any] = field(default_factory=dict, compare=False)  # of its entries in a study file

    @property
    def is_share(self) -> bool:
        """Whether each outcome is 0 or 1."""
        return self.quantity == "R"

    @property
    def is_distance(self) -> bool:
        return self.quantity == "M"

    @property
    def family(self) -> str:
        """What a study file calls it."""
        return self.own_family or self.name

    @property
    def needs_labels(self) -> bool:
        return self.reference == "label"

    @property
    def compares_distances(self) -> bool:
        """Whether an outcome depends on how far a perturbed point is from its point."""
        return self.is_distance or self.bounds_slopes

    @property
    def bounds_slopes(self) -> bool:
        """Whether it bounds how far outputs move per distance."""
        return self.threshold == "lipschitz"

    @property
    def violations_raise(self) -> bool:
        """Whether a violation makes an outcome larger, so that attacks understate the quantity; else they overstate."""
        return self.quantity == "D"

    @property
    def falls(self) -> bool:
        """Whether the quantity falls as δ grows; D rises, and so does a distance that is cut at δ."""
        return self.quantity == "R"

    @property
    def curve(self) -> str:
        """The notion on whose curve over δ it lies."""
        return self.own_curve or self.name

    def with_threshold(self, threshold: float | None) -> str:
        """The threshold in words, to follow the notion's title; nothing where there is none."""
        return "" if threshold is None or math.isnan(threshold) else f", {self.symbol} = {threshold:g}"

    def shortly(self, threshold: float | None) -> str:
        """The short title with the threshold."""
        if self.name == "variation_above":
            return f"{self.short_title} > {threshold:g}"
        return self.short_title + self.with_threshold(threshold)

    def highest(self, delta: float) -> float:
        """The largest value that an outcome can have; the smallest is 0."""
        return delta if self.is_distance else 1.0


# How titles tell a form from the default one.
OTHER_FORMS = {"label": "of the label", "predicted": "of the predicted class", "l2": "L2", "logit": "logit"}

CHOICES = {
    "reference": "what outputs in the ball are held against",
    "distance": "the norm of differences of logits",
    "of": "whose value must reach eta: the softmax, or the logit, which then must reach log eta",
}


def _form(default: Notion, choices: Mapping[str, str]) -> Notion:
    """The form of a notion that the choices make, named by those that are not the default's."""
    chosen = [value for key, value in choices.items() if value != default.choices[key]]
    titles = [OTHER_FORMS[value] for value in chosen]
    return replace(
        default,
        name="-".join([default.name, *chosen]),
        title=", ".join([default.title, *titles]),
        short_title=", ".join([default.short_title, *titles]),
        reads="logits" if choices.get("of") == "logit" else default.reads,
        reference=choices.get("reference", default.reference),
        choices=choices,
        own_family=default.name,
    )


def _forms(default: Notion, **options: tuple[str, ...]) -> Iterator[Notion]:
    """A notion in all its forms; of each key of a study file the options, of which the first is the default."""
    default = replace(default, choices={key: names[0] for key, names in options.items()})
    about = {key: (axis(Literal[names]), Field([names[0]], description=CHOICES[key])) for key, names in options.items()}
    for chosen in product(*options.values()):
        form = _form(default, dict(zip(options, chosen, strict=True)))
        yield replace(form, keys={**default.keys, **about})


NOTIONS = {
    notion.name: notion
    for notion in (
        Notion(
            name="class_change",
            quantity="R",
            meaning="g: is the predicted class the same in the whole ball (paper 004, Definition 1)? R(g) is its mean.",
            title="class change, g",
            short_title="class change",
            implementation="deltaball.local.notions.ClassChange",
            reads="margin",
        ),
        Notion(
            name="softmax_variation",
            quantity="D",
            meaning="ḡ: the largest change of any class's softmax in the ball (Definition 3, h = L∞). "
            "D(ḡ) is its mean.",
            title="softmax variation, ḡ",
            short_title="variation",
            implementation="deltaball.local.notions.SoftmaxVariation",
            reads="softmax",
        ),
        Notion(
            name="variation_above",
            quantity="R",
            meaning="Robust unless ḡ exceeds `gamma` (paper 004, Sections 2 and 4.2). R is its mean.",
            title="softmax variation above γ",
            short_title="variation",
            implementation="deltaball.local.notions.VariationAbove",
            reads="softmax",
            parameters=("threshold",),
            threshold="gamma",
            symbol="γ",
            keys={"gamma": (axis(Share), Field(description="threshold on the softmax variation"))},
        ),
        Notion(
            name="margin",
            quantity="M",
            meaning="The distance to the closest point of another class, at most δ (papers 000 and 003, Section 5). "
            "M is its mean.",
            title="margin",
            short_title="margin",
            implementation="deltaball.local.notions.Margin",
            reads="margin",
            parameters=("delta",),
            own_curve="class_change",
            usual_attack="fmn",
            keys={
                "delta": (
                    axis(radius(Positive)),
                    Field(description="distances are cut at δ, which is the range of the measure"),
                )
            },
        ),
        Notion(
            name="classification",
            quantity="R",
            meaning="CR: is the label the predicted class in the whole ball (paper 001, Definition 1)? R is its mean.",
            title="classification robustness, CR",
            short_title="CR",
            implementation="deltaball.local.label_notions.Classification",
            reads="margin",
            reference="label",
        ),
        *_forms(
            Notion(
                name="strong_classification",
                quantity="R",
                meaning="SCR: is the softmax of the label at least `eta` in the whole ball (paper 001, Definition 4)? "
                "R is its mean.",
                title="strong classification robustness, SCR",
                short_title="SCR",
                implementation="deltaball.local.label_notions.StrongClassification",
                reads="class_softmax",
                parameters=("threshold",),
                threshold="eta",
                symbol="η",
                keys={"eta": (axis(Share), Field(description="what softmax must reach; above 0.5 SCR implies CR"))},
            ),
            reference=("label", "predicted"),
            of=("softmax", "logit"),
        ),
        *_forms(
            Notion(
                name="standard_robustness",
                quantity="R",
                meaning="SR: do the logits stay within `bound` of those at the point, or of the label's vector, in the "
                "whole ball (paper 001, Definition 2)? R is its mean.",
                title="standard robustness, SR",
                short_title="SR",
                implementation="deltaball.local.output_notions.StandardRobustness",
                reads="logits",
                parameters=("threshold",),
                threshold="bound",
                symbol="bound",
                keys={"bound": (axis(Positive), Field(description="on how far the logits move"))},
            ),
            reference=("output", "label"),
            distance=("linf", "l2"),
        ),
        *_forms(
            Notion(
                name="lipschitz_robustness",
                quantity="R",
                meaning="LR: do the logits move at most `lipschitz` times as far as the image, in the whole ball (paper"
                " 001, Definition 3, about the point's own logits)? R is its mean.",
                title="Lipschitz robustness, LR",
                short_title="LR",
                implementation="deltaball.local.output_notions.LipschitzRobustness",
                reads="logits",
                reference="output",
                parameters=("threshold",),
                threshold="lipschitz",
                symbol="L",
                keys={"lipschitz": (axis(Positive), Field(description="logits per pixel unit in the ball's norm"))},
            ),
            distance=("linf", "l2"),
        ),
    )
}


# By what a study file calls them, the default form first.
FAMILIES = {
    name: [one for one in NOTIONS.values() if one.family == name]
    for name in dict.fromkeys(notion.family for notion in NOTIONS.values())
}


def forms(family: str, options: Mapping[str, Sequence[str]]) -> list[Notion]:
    """The forms of a notion of which every choice is among the options."""
    return [one for one in FAMILIES[family] if all(one.choices[key] in names for key, names in options.items())]
