"""Local robustness by name: what studies, plans, tables and figures need to know of a notion. Light, like the study.

The formulas are classes of ``deltaball.local``, each named by its entry here. A notion is one entry and one class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from deltaball.study.axes import Positive, Share, axis, radius


@dataclass(frozen=True)
class Notion:
    """What a point's outcome is, and what the mean of the outcomes, the notion's quantity, is called.

    R is a share of robust points (outcomes 0 and 1), D a mean variation (outcomes in [0, 1]), M a mean distance
    (outcomes in [0, δ]).
    """

    name: str
    quantity: Literal["R", "D", "M"]
    meaning: str
    title: str
    short_title: str
    implementation: str  # the class, by its dotted path
    # What an outcome is computed from: the lead of the predicted class over each other one, or all softmax values.
    reads: Literal["margin", "softmax"]
    parameters: tuple[str, ...] = ()  # what the class takes of the measure: its gamma, its delta
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

    def highest(self, delta: float) -> float:
        """The largest value that an outcome can have; the smallest is 0."""
        return delta if self.is_distance else 1.0


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
            parameters=("gamma",),
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
    )
}
