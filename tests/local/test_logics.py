"""Losses of constraints as DL2 and fuzzy logics define them, by hand and for any numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deltaball.local import logics
from deltaball.local.logics import LOGICS as LOGIC
from deltaball.local.logics import Situation
from deltaball.study.constraints import CONSTRAINTS, Formula, parsed
from deltaball.study.objectives import LOGICS

ORIGINAL, MOVED = [1.0, 4.0, -2.0], [3.0, 2.5, 0.0]


def situation(moved: list[float] = MOVED, original: list[float] = ORIGINAL, step: float = 0.25) -> Situation:
    """One network at one image of 2×1×1, of label 1."""
    logits, centre = torch.tensor([[moved]]), torch.full((1, 1, 2, 1, 1), 0.5)
    move = torch.tensor([step, -step / 2]).view(1, 1, 2, 1, 1)
    return Situation(logits, torch.tensor([[original]]), centre + move, centre, torch.tensor([[1]]))


def said(text: str, at: Situation, logic: str = "dl2") -> float:
    return float(logics.loss(parsed(text), at, LOGIC[logic]))


def test_the_logics_of_studies_are_these() -> None:
    assert set(LOGICS) == set(LOGIC)


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("f(x)[y] <= 1", 1.5),  # max(2.5 - 1, 0)
        ("f(x)[y] <= 3", 0),
        ("f(x)[y] < 2.5", 1),  # max(0, 0) + [a = b]
        ("f(x)[0] == 1", 2),
        ("f(x)[0] != 3", 1),
        ("f(x)[y] <= 1 and f(x)[0] <= 1", 3.5),  # a sum
        ("f(x)[y] <= 1 or f(x)[0] <= 1", 3),  # a product
        ("not (f(x)[y] <= 1 or f(x)[0] <= 1)", 0),
        ("not f(x)[y] > 1", 1.5),
        ("implies(f(x)[0] > 1, f(x)[y] <= 1)", 3),  # (3 - 1) × (2.5 - 1)
        ("linf(f(x) - f(x0)) <= 1", 1),
        ("l1(f(x) - f(x0)) <= 1", 4.5),
        ("l2(f(x) - f(x0)) <= 1", math.sqrt(4 + 2.25 + 4) - 1),
        ("linf(f(x) - f(x0)) <= 4 * linf(x - x0)", 1),
        ("l1(x - x0) <= 0.125", 0.25),
        ("f(x)[predicted] > max_other(f(x), predicted)", 0.5),
        ("max(f(x)) <= min(f(x)[0], 2)", 1),
        ("logsumexp(f(x)) <= 0", math.log(math.exp(3) + math.exp(2.5) + 1)),
        ("linf(clamp(f(x), -1, 1)) <= 0", 1),
    ],
)
def test_dl2_by_hand(text: str, loss: float) -> None:
    assert said(text, situation()) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("standard_robustness", 140),  # |150 - 0| against 10
        ("lipschitz_robustness", 147.5),  # against 10 × 0.25
        ("classification", 1),  # a tie is a violation
        ("strong_classification", 0.52),
        ("strong_classification_of_logits", math.log(0.3) + 200),
    ],
)
def test_the_papers_constraints_by_hand(name: str, loss: float) -> None:
    moved = [150.0, 150.0, 0.0] if name == "classification" else [150.0, -200.0, 0.0]
    at = situation(moved, [0.0, -100.0, 0.0])
    assert said(name, at) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("logic", "both", "either"), [("godel", 0.4, 2 / 3), ("lukasiewicz", 2 / 3 + 0.4 - 1, 1), ("product", 0.8 / 3, 0.8)]
)
def test_fuzzy_logics_by_hand(logic: str, both: float, either: float) -> None:
    one, two = "f(x)[0] <= 1.5", "f(x)[0] <= 0.75"  # 1 - 1.5/4.5 and 1 - 2.25/3.75
    assert 1 - said(one, situation(), logic) == pytest.approx(2 / 3, rel=1e-6)
    assert 1 - said(two, situation(), logic) == pytest.approx(0.4, rel=1e-6)
    assert 1 - said(f"{one} and {two}", situation(), logic) == pytest.approx(both, rel=1e-5)
    assert 1 - said(f"{one} or {two}", situation(), logic) == pytest.approx(either, rel=1e-5)


TERMS = st.sampled_from(["f(x)[y]", "f(x)[0]", "linf(f(x) - f(x0))", "1", "-0.5", "f(x0)[2]"])
COMPARISONS = st.builds("{} {} {}".format, TERMS, st.sampled_from(["<=", "<", "==", "!=", ">", ">="]), TERMS)
TEXTS = st.recursive(
    COMPARISONS,
    lambda parts: st.one_of(
        st.builds("({} and {})".format, parts, parts),
        st.builds("({} or {})".format, parts, parts),
        st.builds("(not {})".format, parts),
        st.builds("implies({}, {})".format, parts, parts),
    ),
    max_leaves=4,
)
LOGITS = st.lists(st.integers(-8, 8).map(lambda one: one / 2), min_size=3, max_size=3)


def meant(text: str, moved: list[float], original: list[float]) -> bool:
    """What the text means to Python itself."""
    known = {
        "f": lambda which: which,
        "linf": lambda difference: difference,
        "implies": lambda first, then: not first or then,
        "y": 1,
    }
    distance = max(abs(a - b) for a, b in zip(moved, original, strict=True))
    text = text.replace("linf(f(x) - f(x0))", str(distance))
    return bool(eval(text, known, {"x": moved, "x0": original}))


@given(TEXTS, LOGITS, LOGITS)
def test_a_loss_is_zero_where_the_constraint_holds_and_nowhere_else(
    text: str, moved: list[float], original: list[float]
) -> None:
    formula: Formula = parsed(text)
    at, truth = situation(moved, original), meant(text, moved, original)
    assert bool(logics.holds(formula, at)) == truth
    assert (said(text, at) == 0) == truth
    assert all(said(text, at, logic) >= 0 for logic in LOGIC)
    # A fuzzy truth of what holds is whole; Łukasiewicz's `or` also makes a whole of two halves.
    assert all(said(text, at, logic) < 1e-6 for logic in LOGIC) or not truth
    # An attack goes up from where it holds to where it does not.
    rises = float(logics.opposed(formula, at, LOGIC["dl2"]))
    assert rises < 0 or not truth
    assert rises > 0 or truth


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("logic", LOGIC)
def test_what_an_attack_raises_has_a_finite_slope(name: str, logic: str) -> None:
    for moved in (MOVED, ORIGINAL, [300.0, -300.0, 0.0]):
        at = situation(moved)
        at.logits.requires_grad_()
        (slope,) = torch.autograd.grad(logics.opposed(parsed(name), at, LOGIC[logic]).sum(), at.logits)
        assert slope.isfinite().all()
