"""What a study may ask of its networks."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from deltaball.base.errors import alternatives
from deltaball.study.axes import VALUES, Count, Name, Positive, Share, Strict, axis, radius
from deltaball.study.corruptions import EACH, JOINT, SEVERAL
from deltaball.study.grids import DRAWN, PARTS, all_axes
from deltaball.study.judges import JUDGES, Judge, NetworkKind, judges_by_key, settings_takers
from deltaball.study.kernels import KERNELS, KEYS, ChosenKernel, Kernel, entry_of
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import FAMILIES, NEAREST, NOTIONS, Notion, forms

Only = create_model(
    "Only",
    __base__=Strict,
    __doc__="The networks whose properties are all among those listed.",
    grid=(VALUES[str], None),
    dataset=(VALUES[str], None),
    architecture=(axis(Literal[tuple(PARTS["architecture"])]) | None, None),
    method=(axis(Literal[tuple(PARTS["method"])]) | None, None),
    drawn=(
        Count | None,
        Field(None, description="those on the first so many trajectories of their grid, as its `sample` draws them"),
    ),
    **{name: (VALUES[kind], None) for name, kind in all_axes().items()},
)


class OwnGuarantee(Strict):
    """Another ε or confidence than the study's, and so another number of test points, for some measures."""

    epsilon: Share | None = None
    confidence: Share | None = None


# Of a judge's setting: by the type of its default, and whether that is above 0. Where it is not, 0 may be chosen too.
KINDS = {
    (int, True): Count,
    (float, True): Positive,
    (int, False): Annotated[int, Field(ge=0, le=1_000_000)],
    (float, False): Annotated[float, Field(ge=0, allow_inf_nan=False)],
}

OWN_KINDS = {"tau": Share, "tolerance": Share}


def _setting(name: str, takers: list[Judge]) -> tuple[Any, Any]:
    """The key of a setting: a count or a number, by its default."""
    kind = OWN_KINDS.get(name) or KINDS[type(takers[0].settings[name]), takers[0].settings[name] > 0]
    defaults = " or ".join(f"{judge.name} ({judge.settings[name]:g} if left out)" for judge in takers)
    return kind | None, Field(None, description=f"of {defaults}")


_Settings = create_model(
    "_Settings",
    __base__=Strict,
    **{name: _setting(name, takers) for name, takers in settings_takers().items()},
)


_Kernels = create_model(
    "_Kernels",
    __base__=_Settings,
    perturbation=(
        axis(Literal[tuple(KERNELS)] | Name) | None,
        Field(
            None,
            description="the kernel from which images around a point are drawn, in place of a ball; or NAME of a "
            "NAME.npz with images of your own",
        ),
    ),
    **{name: (key.kind | None, Field(None, description=key.description)) for name, key in KEYS.items()},
)


class Neighbourhood(NamedTuple):
    """Where a measure looks: in a ball, of a norm and a radius, or at what is drawn from a kernel."""

    norm: str | None
    delta: float | None
    kernel: ChosenKernel | None = None


class AnyMeasure(_Kernels):
    """What entries of all notions have in common."""

    norm: axis(Literal[tuple(NORMS)]) = Field(["linf"], description="of the ball, which is cut by [0, 1]")
    delta: axis(radius(Annotated[float, Field(ge=0, allow_inf_nan=False)])) | None = Field(
        None, description="radii of the ball, in pixel units of [0, 1]; of a kernel, those that it draws in"
    )
    attack: axis(Literal[judges_by_key("attack")]) | None = Field(
        None, description="finds violations: bounds R from above, D from below; fgsm where nothing else is asked"
    )
    certificate: axis(Literal[judges_by_key("certificate")]) | None = Field(
        None, description="proves that there is none: bounds R from below, D from above; exact decides every point"
    )
    sampling: axis(Literal[judges_by_key("sampling")]) | None = Field(
        None, description="looks at random images, of the L∞ ball or of a kernel: how often a user meets a violation"
    )
    guarantee: OwnGuarantee | None = Field(None, description="another ε or confidence than the study's")
    only: Only | None = Field(None, description="only these networks; null is all")

    @property
    def judges(self) -> list[str]:
        """The judges that are asked, attacks first."""
        usual = ["mean"] if self.perturbation else [NOTIONS[self.notion].usual_attack]
        usual = [] if self.certificate or self.sampling else usual
        return [*(self.attack or usual), *(self.certificate or []), *(self.sampling or [])]

    @property
    def neighbourhoods(self) -> list[Neighbourhood]:
        """Where it looks: the product of norms and radii, or the kernels with each combination of their keys."""
        if self.perturbation:
            return [Neighbourhood(None, None, one) for name in self.perturbation for one in self._chosen(name)]
        return [Neighbourhood(*both) for both in itertools.product(self.norm, self.delta)]

    def _chosen(self, name: str) -> list[ChosenKernel]:
        """A kernel with every combination of the values of its keys. Raises ValueError where there is none."""
        entry = entry_of(name)
        asked = {key: getattr(self, key) for key in entry.keys}
        if entry.norms and "norm" not in self.model_fields_set:
            asked["norm"] = entry.norms[:1]
        values = [[entry.takes.get(key)] if one is None else one for key, one in asked.items()]
        chosen = []
        for combination in itertools.product(*values):
            parameters = dict(zip(entry.keys, combination, strict=True))
            if reason := entry.refuses(parameters):
                raise ValueError(f"perturbation '{name}': {reason}")
            told = {
                key: value for key, value in parameters.items() if key not in entry.takes or value != entry.takes[key]
            }
            chosen.append(ChosenKernel(name, tuple(told.items())))
        return chosen

    @property
    def forms(self) -> list[Notion]:
        """The notion in each of the forms that are asked."""
        choices = FAMILIES[self.notion][0].choices
        return forms(self.notion, {key: getattr(self, key) for key in choices})

    @property
    def thresholds(self) -> list[float | None]:
        """The notion's thresholds; one None where it has none."""
        key = NOTIONS[self.notion].threshold
        return getattr(self, key) if key else [None]

    @property
    def wanted(self) -> dict[str, Sequence[Any]]:
        """The properties that `only` asks for, each with the values that will do; of DRAWN those are ranks."""
        named = {name: values for name, values in self.only or () if values is not None}
        return {name: range(values) if name == DRAWN else values for name, values in named.items()}

    def wanted_in(self, neighbourhood: Neighbourhood) -> dict[str, Sequence[Any]]:
        """As `wanted`; under a corruption, of the networks that are adapted to one those adapted to it or to all.

        Where `only` names corruptions, whatever is adapted to these is asked under any.
        """
        wanted, kernel = self.wanted, neighbourhood.kernel
        if kernel is None or not kernel.entry.corruptions or "corruption" in wanted:
            return wanted
        return {**wanted, "corruption": [kernel.name, JOINT, EACH, SEVERAL, None]}

    @model_validator(mode="after")
    def _sensible(self) -> "AnyMeasure":
        for judge in (JUDGES[name] for name in self.judges):
            for notion in self.forms:
                _check_judge(judge, notion, self.norm)
        if self.perturbation:
            self._check_kernels()
        elif any(JUDGES[name].of_kernels for name in self.judges):
            raise ValueError(
                f"sampling {self.sampling}: needs a perturbation to draw from; one of {', '.join(KERNELS)}"
            )
        elif self.delta is None:
            raise ValueError(f"missing key 'delta' ({type(self).model_fields['delta'].description})")
        if not self.perturbation and "linf" in self.norm and max(self.delta) > 1:
            raise ValueError(f"delta {max(self.delta)} in norm linf: pixels lie in [0, 1]; at most 1")
        if NOTIONS[self.notion].bounds_slopes and 0 < min(self.delta) <= NEAREST:
            raise ValueError(f"delta {min(self.delta)}: {self.notion} compares no images closer than {NEAREST}")
        for key, takers in settings_takers().items():
            asked = [judge for judge in takers if judge.name in self.judges]
            # Several samplings of one entry look at the same images.
            together = len(asked) == 1 or (asked and all(judge.says == "samples" for judge in asked))
            if getattr(self, key) is not None and not together:
                names = ", ".join(judge.name for judge in takers)
                raise ValueError(f"{key} {getattr(self, key)} is for one of {names}, and this entry asks {self.judges}")
        return self

    def _check_balls(self, entry: Kernel) -> None:
        """Refuse the worst case of what is drawn where that fills no ball, or balls of several sizes."""
        asked = next((name for name in self.judges if JUDGES[name].of_balls), None)
        if asked and not entry.fills_balls:
            possible = ", ".join(one.name for one in KERNELS.values() if one.fills_balls)
            why = f"images of perturbation '{entry.name}' fill no ball"
            raise ValueError(f"sampling '{asked}': {why}; possible: {possible}")
        if asked and self.density:
            raise ValueError(f"sampling '{asked}': is of balls of one size; leave density {self.density[0]} out")

    def _check_kernels(self) -> None:
        """Refuse judges that draw from no kernel, and keys that a kernel lacks or does not take."""
        for judge in (JUDGES[name] for name in self.judges):
            if not judge.of_kernels:
                possible = ", ".join(one.name for one in JUDGES.values() if one.of_kernels)
                raise ValueError(f"{judge.key} '{judge.name}' draws from no perturbation; possible: {possible}")
        for name in self.perturbation:
            entry = entry_of(name)
            self._check_balls(entry)
            lacking = next((key for key in entry.keys if key not in entry.takes and getattr(self, key) is None), None)
            if lacking:
                raise ValueError(f"missing key '{lacking}' of perturbation '{name}'")
            turns = len(entry.corruptions)
            if turns > 1 and self.draws and self.draws % turns:
                raise ValueError(
                    f"draws {self.draws}: perturbation '{name}' takes {turns} corruptions in turn; give a multiple"
                )
            strange = {"norm", "delta", *KEYS} & self.model_fields_set - {*entry.keys}
            if strange and entry.is_brought:
                raise ValueError(
                    f"perturbation '{name}' is not known; {alternatives(name, KERNELS)} (as a corrupted set of your "
                    f"own it takes no {min(strange)})"
                )
            if strange:
                raise ValueError(f"perturbation '{name}' takes no {min(strange)}; it takes {', '.join(entry.keys)}")
            self._chosen(name)
        if "cube" in (self.points or []) and any(notion.needs_labels for notion in self.forms):
            raise ValueError(f"points 'cube': images there have no labels, and {self.notion} needs them")


# Whatever an entry may be asked of: grids are looked at afterwards.
ANY_NETWORK = NetworkKind(has_generator=True)


def _check_judge(judge: Judge, notion: Notion, norms: list[str]) -> None:
    reasons = {norm: judge.refuses(notion, norm, ANY_NETWORK) for norm in NORMS}
    refused = next((norm for norm in norms if reasons[norm]), None)
    if refused is None:
        return
    what, possible = f"norm {refused}", [norm for norm, reason in reasons.items() if not reason]
    if not possible:
        what, possible = notion.name, [one.name for one in JUDGES.values() if not one.refuses(notion, refused)]
    raise ValueError(
        f"{judge.key} '{judge.name}' cannot judge {what}: {reasons[refused]}; possible: {', '.join(possible)}"
    )


def _entry(notion: Notion) -> type[AnyMeasure]:
    """What a study file says of measures by one notion."""
    name = "".join(word.capitalize() for word in notion.name.split("_"))
    keys = {"notion": (Literal[notion.name], ...), **notion.keys}
    return create_model(name, __base__=AnyMeasure, __doc__=notion.meaning, **keys)


ENTRIES = {name: _entry(default) for name, (default, *_) in FAMILIES.items()}


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

    measure: tagged(ENTRIES, notion_tag)
    epsilon: axis(Share) = Field(description="each gives N by Hoeffding's inequality")
    draws: Annotated[int, Field(ge=2)] = Field(50, description="sets of N test points per ε")

    @model_validator(mode="after")
    def _one_epsilon(self) -> "Convergence":
        if self.measure.guarantee:
            raise ValueError("measure.guarantee: the experiment lists its own epsilon; take it out")
        if self.measure.sampling:
            raise ValueError("measure.sampling: the experiment is about attacks and certificates; take it out")
        return self
