"""What constraints say of logits: whether they hold, and how far they are from it.

A logic turns the comparisons of a constraint, and its `and`, `or` and `not`, into a loss that can be differentiated.
DL2 (Fischer et al. 2019, "DL2: training and querying neural networks with logic", Section 3.1) gives losses from 0 on,
0 where the constraint holds. Fuzzy logics give truth in [0, 1], by the norms that Flinkow et al. compare ("Comparing
differentiable logics for learning with logical constraints", 2024, Table 1); their loss is 1 - truth. In all of them
`not` is pushed to the comparisons first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch

from deltaball.study.constraints import (
    And,
    Arithmetic,
    Call,
    Comparison,
    Entry,
    Formula,
    Index,
    Input,
    Not,
    Number,
    Or,
    Term,
)

OPPOSITE = {"<=": ">", "<": ">=", "==": "!=", "!=": "=="}


@dataclass(frozen=True)
class Situation:
    """What a constraint may speak of: K networks at n images, and at perturbed ones."""

    logits: torch.Tensor  # f(x), [K, n, classes]
    original: torch.Tensor  # f(x0), [K, n, classes]
    images: torch.Tensor  # x, [K, n, h, w, c]
    centres: torch.Tensor  # x0, [K, n, h, w, c]
    labels: torch.Tensor  # y, [K, n]
    values: dict[Term, torch.Tensor] = field(default_factory=dict)  # of the terms that were asked for

    def classes(self, index: Index) -> torch.Tensor:
        """The classes [K, n, 1] that an index means."""
        if index == "predicted":
            return self.original.argmax(-1, keepdim=True)
        return (self.labels if index == "y" else torch.full_like(self.labels, index))[..., None]


@dataclass(frozen=True)
class Logic:
    """How truth becomes a number [K, n]: of `a <= b` and `a == b`, and of what is joined by and, or by or."""

    at_most: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    equal: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    both: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    either: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    true: float  # what stands for a truth that has no degrees
    false: float
    loss: Callable[[torch.Tensor], torch.Tensor]  # of what the whole constraint became


def _excess(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).clamp(min=0)


def _scale(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Two numbers next to 0 are as true as equal ones, not a division by 0.
    return (a.abs() + b.abs()).clamp(min=1e-12)


def _fuzzy(
    both: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    either: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Logic:
    return Logic(
        at_most=lambda a, b: 1 - _excess(a, b) / _scale(a, b),
        equal=lambda a, b: 1 - (a - b).abs() / _scale(a, b),
        both=both,
        either=either,
        true=1.0,
        false=0.0,
        loss=lambda truth: 1 - truth,
    )


LOGICS: Mapping[str, Logic] = {
    "dl2": Logic(
        at_most=_excess,
        equal=lambda a, b: (a - b).abs(),
        both=torch.add,
        either=torch.mul,
        true=0.0,
        false=1.0,
        loss=lambda loss: loss,
    ),
    "godel": _fuzzy(torch.minimum, torch.maximum),
    "lukasiewicz": _fuzzy(lambda a, b: (a + b - 1).clamp(min=0), lambda a, b: (a + b).clamp(max=1)),
    "product": _fuzzy(torch.mul, lambda a, b: a + b - a * b),
}


def loss(formula: Formula, situation: Situation, logic: Logic) -> torch.Tensor:
    """How far a constraint is from holding, [K, n]; 0 where it holds."""
    return logic.loss(_degree(formula, situation, logic, negated=False))


def opposed(formula: Formula, situation: Situation, logic: Logic) -> torch.Tensor:
    """The loss of the constraint less that of its negation, [K, n]: it has a slope where either is flat.

    An attack ascends it, from points where the constraint holds to points where it is violated far.
    """
    negation = logic.loss(_degree(formula, situation, logic, negated=True))
    return loss(formula, situation, logic) - negation


def holds(formula: Formula, situation: Situation) -> torch.Tensor:
    """Whether a constraint holds, bool [K, n]. What is not a number compares as false."""
    match formula:
        case And(parts):
            return torch.stack([holds(part, situation) for part in parts]).all(0)
        case Or(parts):
            return torch.stack([holds(part, situation) for part in parts]).any(0)
        case Not(part):
            return ~holds(part, situation)
        case Comparison(symbol, left, right):
            first, second = value(left, situation), value(right, situation)
            compared = {"<=": torch.le, "<": torch.lt, "==": torch.eq, "!=": torch.ne}
            return compared[symbol](first, second).expand(situation.logits.shape[:2])
    raise TypeError(formula)


def _degree(formula: Formula, situation: Situation, logic: Logic, negated: bool) -> torch.Tensor:
    match formula:
        case Not(part):
            return _degree(part, situation, logic, not negated)
        case And(parts) | Or(parts):
            joined = logic.both if isinstance(formula, And) != negated else logic.either
            return reduce(joined, (_degree(part, situation, logic, negated) for part in parts))
        case Comparison(symbol, left, right):
            a, b = torch.broadcast_tensors(value(left, situation), value(right, situation), situation.logits[..., 0])[
                :2
            ]
            return _compared(OPPOSITE[symbol] if negated else symbol, a, b, logic)
    raise TypeError(formula)


def _compared(symbol: str, a: torch.Tensor, b: torch.Tensor, logic: Logic) -> torch.Tensor:
    if symbol in (">", ">="):
        return _compared({">": "<", ">=": "<="}[symbol], b, a, logic)
    if symbol == "<=":
        return logic.at_most(a, b)
    if symbol == "==":
        return logic.equal(a, b)
    differ = torch.where(a == b, logic.false, logic.true)
    return differ if symbol == "!=" else logic.both(logic.at_most(a, b), differ)


def value(term: Term, situation: Situation) -> torch.Tensor:
    """A term's value: a number [K, n] (or one that broadcasts), a vector [K, n, classes], or an image."""
    if term not in situation.values:
        situation.values[term] = _computed(term, situation)
    return situation.values[term]


def _computed(term: Term, situation: Situation) -> torch.Tensor:
    match term:
        case Number(number):
            return situation.logits.new_tensor(number)
        case Input(name):
            of_name = {"f(x)": "logits", "f(x0)": "original", "x": "images", "x0": "centres"}
            return getattr(situation, of_name[name])
        case Entry(vector, index):
            return value(vector, situation).gather(-1, situation.classes(index)).squeeze(-1)
        case Arithmetic(symbol, left, right):
            a, b = _aligned(value(left, situation), value(right, situation))
            return ARITHMETIC[symbol](a, b)
        case Call("max_other", (vector,), index):
            others = value(vector, situation).scatter(-1, situation.classes(index), -torch.inf)
            return others.amax(-1)
        case Call(function, arguments):
            return FUNCTIONS[function](*(value(one, situation) for one in arguments))
    raise TypeError(term)


def _aligned(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two values of which one may be a number [K, n] and the other a vector or an image."""
    if a.ndim == 2 and b.ndim > 2:
        return a.view(*a.shape, *[1] * (b.ndim - 2)), b
    if b.ndim == 2 and a.ndim > 2:
        return a, b.view(*b.shape, *[1] * (a.ndim - 2))
    return a, b


def _extreme(pairwise: Callable[..., torch.Tensor], along: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(*values: torch.Tensor) -> torch.Tensor:
        return along(values[0], -1) if len(values) == 1 else reduce(pairwise, torch.broadcast_tensors(*values))

    return of


def _clamped(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.minimum(torch.maximum(*_aligned(values, low)), _aligned(values, high)[1])


ARITHMETIC: Mapping[str, Callable[..., torch.Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
}
FUNCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "linf": lambda values: values.flatten(2).abs().amax(-1),
    "l2": lambda values: torch.linalg.vector_norm(values.flatten(2), dim=-1),
    "l1": lambda values: values.flatten(2).abs().sum(-1),
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "max": _extreme(torch.maximum, torch.amax),
    "min": _extreme(torch.minimum, torch.amin),
    "clamp": _clamped,
    "softmax": lambda values: values.softmax(-1),
    "logsumexp": lambda values: values.logsumexp(-1),
}
