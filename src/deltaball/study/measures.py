"""What a study may ask of its networks."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from deltaball.study.axes import VALUES, Count, Positive, Share, Strict, axis
from deltaball.study.grids import PARTS, all_axes
from deltaball.study.judges import ATTACKS, CERTIFICATES, EXACT_SECONDS, FMN_STEPS, PGD_RESTARTS, PGD_STEPS

# R is the share of robust points: it falls as δ grows. D is a mean variation: it rises. M is a mean distance.
Quantity = Literal["R", "D", "M"]

Only = create_model(
    "Only",
    __base__=Strict,
    __doc__="The networks whose properties are all among those listed.",
    grid=(VALUES[str], None),
    dataset=(VALUES[str], None),
    architecture=(axis(Literal[tuple(PARTS["architecture"])]) | None, None),
    method=(axis(Literal[tuple(PARTS["method"])]) | None, None),
    **{name: (VALUES[kind], None) for name, kind in all_axes().items()},
)


class Points(Strict):
    """Another ε or confidence than the study's, and so another number of test points, for some measures."""

    epsilon: Share | None = None
    confidence: Share | None = None


class AnyMeasure(Strict):
    """What entries of all notions have in common."""

    quantity: ClassVar[Quantity]
    # Which attacks and certificates can say something about the notion, and why others cannot.
    attacks: ClassVar[tuple[str, ...]]
    certificates: ClassVar[tuple[str, ...]]
    because: ClassVar[str]

    norm: axis(Literal["linf", "l2", "l1"]) = Field(["linf"], description="of the ball, which is cut by [0, 1]")
    delta: axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]) = Field(
        description="radii of the ball, in pixel units of [0, 1]"
    )
    attack: axis(Literal[ATTACKS]) | None = Field(
        None, description="finds violations: bounds R from above, D from below; fgsm where no certificate is asked"
    )
    certificate: axis(Literal[CERTIFICATES]) | None = Field(
        None, description="proves that there is none: bounds R from below, D from above; exact decides every point"
    )
    steps: Count | None = Field(None, description=f"of pgd ({PGD_STEPS} if left out) or fmn ({FMN_STEPS})")
    restarts: Count | None = Field(
        None, description=f"of pgd ({PGD_RESTARTS} if left out); all but one start at random"
    )
    seconds: Positive | None = Field(None, description=f"limit of exact per point ({EXACT_SECONDS:g} if left out)")
    guarantee: Points | None = Field(None, description="another ε or confidence than the study's")
    only: Only | None = Field(None, description="only these networks; null is all")

    @property
    def by(self) -> list[str]:
        """The attacks and certificates that are asked, attacks first."""
        return [*(self.attack or ([] if self.certificate else ["fgsm"])), *(self.certificate or [])]

    @property
    def wanted(self) -> dict[str, list[Any]]:
        """The properties that `only` asks for, each with the values that will do."""
        return {name: values for name, values in self.only or () if values is not None}

    @model_validator(mode="after")
    def _sensible(self) -> "AnyMeasure":
        for key, chosen, possible in (
            ("attack", self.attack, self.attacks),
            ("certificate", self.certificate, self.certificates),
        ):
            wrong = next((one for one in chosen or [] if one not in possible), None)
            if wrong:
                raise ValueError(f"{key} '{wrong}' cannot judge {self.notion}: {self.because}")
        if self.certificate and "exact" in self.certificate and "l2" in self.norm:
            raise ValueError("certificate 'exact' cannot judge norm l2: its programs are linear; possible: linf, l1")
        if "linf" in self.norm and max(self.delta) > 1:
            raise ValueError(f"delta {max(self.delta)} in norm linf: pixels lie in [0, 1]; at most 1")
        for key, takers in (("steps", ("pgd", "fmn")), ("restarts", ("pgd",)), ("seconds", ("exact",))):
            asked = [one for one in self.by if one in takers]
            if getattr(self, key) is not None and len(asked) != 1:
                wanted = " or ".join(takers)
                raise ValueError(f"{key} {getattr(self, key)} is for one of {wanted}, and this entry asks {self.by}")
        return self


class ClassChange(AnyMeasure):
    """g: is the predicted class the same in the whole ball (paper 004, Definition 1)? R(g) is its mean."""

    quantity: ClassVar[Quantity] = "R"
    attacks: ClassVar = ATTACKS
    certificates: ClassVar = CERTIFICATES
    because: ClassVar = ""

    notion: Literal["class_change"]


class SoftmaxVariation(AnyMeasure):
    """ḡ: the largest change of any class's softmax in the ball (Definition 3, h = L∞). D(ḡ) is its mean."""

    quantity: ClassVar[Quantity] = "D"
    attacks: ClassVar = ("fgsm", "pgd")
    certificates: ClassVar = ("ibp", "crown")
    because: ClassVar = "fmn looks for another class, and softmax is not piecewise linear; use fgsm, pgd, ibp or crown"

    notion: Literal["softmax_variation"]


class VariationAbove(AnyMeasure):
    """Robust unless ḡ exceeds `gamma` (paper 004, Sections 2 and 4.2). R is its mean."""

    quantity: ClassVar[Quantity] = "R"
    attacks: ClassVar = SoftmaxVariation.attacks
    certificates: ClassVar = SoftmaxVariation.certificates
    because: ClassVar = SoftmaxVariation.because

    notion: Literal["variation_above"]
    gamma: axis(Share) = Field(description="threshold on the softmax variation")


class Margin(AnyMeasure):
    """The distance to the closest point of another class, at most δ (papers 000 and 003, Section 5). M is its mean."""

    quantity: ClassVar[Quantity] = "M"
    attacks: ClassVar = ("fmn",)
    certificates: ClassVar = ("ibp", "crown")
    because: ClassVar = "it is a distance; use attack: fmn, or certificate: ibp or crown"

    notion: Literal["margin"]
    delta: axis(Positive) = Field(description="distances are cut at δ, which is the range of the measure")

    @property
    def by(self) -> list[str]:
        return [*(self.attack or ([] if self.certificate else ["fmn"])), *(self.certificate or [])]


NOTIONS = {
    "class_change": ClassChange,
    "softmax_variation": SoftmaxVariation,
    "variation_above": VariationAbove,
    "margin": Margin,
}


def tagged(members: dict[str, type[Strict]], tag: Any) -> Any:
    union: Any = None
    for name, member in members.items():
        tagged = Annotated[member, Tag(name)]
        union = tagged if union is None else union | tagged
    return Annotated[union, Discriminator(tag)]


def notion_tag(measure: Any) -> str | None:
    return str(measure.get("notion")) if isinstance(measure, dict) else None


class Convergence(Strict):
    """How estimates close in on R or D as ε falls (paper 004, Section 4.1, Figure 1), for the networks of `only`."""

    measure: tagged(NOTIONS, notion_tag)
    epsilon: axis(Share) = Field(description="each gives N by Hoeffding's inequality")
    draws: Annotated[int, Field(ge=2)] = Field(50, description="sets of N test points per ε")

    @model_validator(mode="after")
    def _one_epsilon(self) -> "Convergence":
        if self.measure.guarantee:
            raise ValueError("measure.guarantee: the experiment lists its own epsilon; take it out")
        return self
