"""Robustness scores as papers 000 and 003 have them: a kernel Q, a shape H, a range; beside a constant classifier's."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from deltaball.analysis.trainings import kinds
from deltaball.estimation.intervals import clopper_pearson
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.kernels import ChosenKernel
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

# H, what is made of ρ_Q.
MEAN, WORST = "ρ", "worst case"

KNOWN = ["network_id", "dataset", "grid", "method", "architecture", "kind", "test_accuracy"]
SCORE = ["score", "type", "notion", "gamma", "kernel", "shape", "range", "measure", "samples", "confidence"]
ENDS = ["lower", "upper", "tight_lower", "tight_upper"]
VALUE = [
    "estimate",
    *ENDS,
    "inequality",
    "tight_inequality",
    "side",
    "constant",
    "of_constant",
    "scale",
    "per_diameter",
]
BOUND = ["accuracy_at_least", "provided_that"]
COLUMNS = [*KNOWN, *SCORE, *VALUE, *BOUND]

UNKNOWN_LABELS = "the perturbation keeps the label, or else less by how often it does not"
KEPT_LABELS = "labels are kept, as the kernel has it"


def scores(measured: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per network × score: of every kernel, and R2 of margins.

    R2 is the mean margin, cut at δ; `per_diameter` divides it by the diameter of [0, 1]^m (paper 003's Equation 7 lacks
    that factor). R4 is of the kernel `near` with sizes drawn ∝ 1/ε. An `estimate` is of a normalised density of sizes;
    `scale` is what the paper's un-normalised integral is larger by. Beside it stands what a `constant` classifier has,
    the most there is (postulate P1), and the estimate as a share `of_constant`. Scores of `type` 1 are about
    the classifier alone, those of type 2 about the inputs too, of type 3 about labels as well.

    `accuracy_at_least` is Proposition 6 of paper 003: the accuracy on what the kernel makes of the inputs, bounded from
    below by that on the test images and the mean ρ, both at α/2, `provided_that` labels stay.
    """
    by_name = {one.name: one for one in plan.measures}
    known = measured[measured["measure"].isin(by_name)]
    rows = [
        dict(zip(COLUMNS, _row(row, by_name[row["measure"]], plan), strict=True))
        for row in known.assign(kind=kinds(known)).to_dict("records")
        if is_score(by_name[row["measure"]])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def is_score(measure: Measure) -> bool:
    """Whether a measure is a robustness score: of a kernel, or a margin, and true of a constant classifier."""
    notion = NOTIONS[measure.notion]
    return (measure.kernel is not None or notion.is_distance) and notion.quantity != "D" and not notion.needs_labels


def _row(row: Mapping[str, Any], measure: Measure, plan: Plan) -> Iterator[Any]:
    facts = plan.facts[row["dataset"]]
    yield from (row[name] for name in KNOWN)
    yield from (
        _name(measure),
        _type(measure),
        measure.notion,
        measure.gamma,
        *_words(measure),
        row["measure"],
        row["samples"],
        row["confidence"],
    )
    yield from (row[name] for name in ("estimate", *ENDS, "inequality", "tight_inequality", "side"))
    yield from (measure.highest, row["estimate"] / measure.highest, _scale(measure.kernel))
    norm = measure.norm or dict(measure.kernel.parameters).get("norm", "linf")
    is_margin = NOTIONS[measure.notion].is_distance
    yield row["estimate"] / _diameter(norm, math.prod(facts.shape)) if is_margin else None
    yield from _bound(row, measure, facts.test)


def _name(measure: Measure) -> str | None:
    """What the papers call it, if they do."""
    if measure.kernel is None:
        return "R2"
    given = dict(measure.kernel.parameters)
    if measure.judge == "worst" and NOTIONS[measure.notion].is_distance:
        return "R1" if given.get("points") == "cube" else "label-aware R2" if given.get("labels") == "kept" else "R2"
    is_r4 = measure.kernel.entry.of_images and given.get("density") == "reciprocal" and measure.judge == "mean"
    return "R4" if is_r4 else None


def _type(measure: Measure) -> int:
    parameters = measure.kernel.parameters if measure.kernel else ()
    if ("points", "cube") in parameters:
        return 1
    return 3 if ("labels", "kept") in parameters else 2


def _words(measure: Measure) -> tuple[str, str, str]:
    """Kernel, shape and range."""
    if measure.kernel is None:
        return f"uniform in the ball, {NORMS[measure.norm]}", WORST, f"[0, {measure.delta:g}]"
    given = dict(measure.kernel.parameters)
    size = measure.kernel.size
    whole = "" if size is None else f"{size:g}"
    if "density" in given or NOTIONS[measure.notion].is_distance:
        whole = f"[{given.get('least', 0):g}, {size:g}]"
    return measure.kernel.words, _shape(measure), whole


def _shape(measure: Measure) -> str:
    settings = dict(measure.settings)
    match measure.judge:
        case "share":
            return f"ρ ≥ {1 - settings['tau']:g}"
        case "cvar":
            return f"worst {settings['tau']:g} of ρ"
        case "worst":
            return WORST
        case "unanimous":
            return f"all {settings['draws']} draws agree"
    return MEAN


def _scale(kernel: ChosenKernel | None) -> float:
    """∫ 1/ε dε over the sizes that are drawn ∝ 1/ε; 1 of other kernels."""
    given = dict(kernel.parameters) if kernel else {}
    return math.log(kernel.size / given["least"]) if given.get("density") == "reciprocal" else 1.0


def _diameter(norm: str, pixels: int) -> float:
    """How far apart two images of [0, 1]^m can be."""
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def _bound(row: Mapping[str, Any], measure: Measure, tests: int) -> tuple[float | None, str | None]:
    """Proposition 6, and what it assumes; of no other score than the mean of ρ."""
    if measure.kernel is None or measure.judge != "mean" or measure.notion != "class_change":
        return None, None
    # Labels do not stay where training images are drawn whatever they show, and points of the cube have none.
    changes = measure.kernel.entry.of_images and _type(measure) == 2
    if changes or _type(measure) == 1 or pd.isna(row["test_accuracy"]):
        return None, None
    accuracy, _ = clopper_pearson(round(row["test_accuracy"] * tests), tests, row["confidence"])
    assumed = KEPT_LABELS if _type(measure) == 3 else UNKNOWN_LABELS
    return max(0.0, float(accuracy) + row["tight_lower"] - 1), assumed
