"""Constraints on what a network gives near an image: how a study writes them, and what they say. Light.

A constraint compares numbers that are made of the logits `f(x)` at a perturbed image and `f(x0)` at the image itself,
of the images `x` and `x0`, and of the class `y` of the image's label (or `predicted`, the network's own at x0):

    linf(f(x) - f(x0)) <= 10 * linf(x - x0)
    f(x)[y] > max_other(f(x), y) and softmax(f(x))[y] >= 0.52

It is read by Python's own parser and then node by node: what is not listed here is refused, and nothing is evaluated.
"""

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

LONGEST = 500  # characters of a constraint

Kind = Literal["number", "vector", "image"]
Index = int | Literal["y", "predicted"]

# The properties of paper 001 (Definitions 1 to 4), with its constants. SR and LR refer to f(x0), as in its authors'
# code; SCR also as their code has it. They cut logits at ±100: here a network does that, by `output: clamp`.
CONSTRAINTS = {
    "standard_robustness": "linf(f(x) - f(x0)) <= 10",
    "lipschitz_robustness": "linf(f(x) - f(x0)) <= 10 * linf(x - x0)",
    "classification": "f(x)[y] > max_other(f(x), y)",
    "strong_classification": "softmax(f(x))[y] >= 0.52",
    "strong_classification_of_logits": "f(x)[y] >= log(0.3)",
}


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    value: float


@dataclass(frozen=True)
class Input:
    """One of INPUTS."""

    name: str


@dataclass(frozen=True)
class Entry:
    """The entry of a vector that belongs to a class."""

    vector: "Term"
    index: Index


@dataclass(frozen=True)
class Call:
    """A function of FUNCTIONS of terms; `index` is the class that max_other leaves out."""

    function: str
    arguments: tuple["Term", ...]
    index: Index | None = None


@dataclass(frozen=True)
class Arithmetic:
    """Two terms by one of + - * /, entry by entry."""

    symbol: str
    left: "Term"
    right: "Term"


Term = Number | Input | Entry | Call | Arithmetic


@dataclass(frozen=True)
class Comparison:
    """Two numbers by one of <= < == !=; > and >= are written with their sides exchanged."""

    symbol: str
    left: Term
    right: Term


@dataclass(frozen=True)
class And:
    parts: tuple["Formula", ...]


@dataclass(frozen=True)
class Or:
    parts: tuple["Formula", ...]


@dataclass(frozen=True)
class Not:
    part: "Formula"


Formula = Comparison | And | Or | Not

INPUTS: dict[str, Kind] = {"f(x)": "vector", "f(x0)": "vector", "x": "image", "x0": "image"}


def _same(kinds: Sequence[Kind]) -> Kind | None:
    return kinds[0] if len(kinds) == 1 else None


def _to_number(kinds: Sequence[Kind]) -> Kind | None:
    return "number" if len(kinds) == 1 and kinds[0] != "number" else None


def _of_vector(result: Kind) -> Callable[[Sequence[Kind]], Kind | None]:
    return lambda kinds: result if [*kinds] == ["vector"] else None


def _extreme(kinds: Sequence[Kind]) -> Kind | None:
    return "number" if [*kinds] == ["vector"] or (len(kinds) > 1 and {*kinds} == {"number"}) else None


def _clamped(kinds: Sequence[Kind]) -> Kind | None:
    return kinds[0] if len(kinds) == 3 and [*kinds[1:]] == ["number", "number"] else None


# Of each function, what it gives for arguments of which kinds; None where it takes no such arguments.
FUNCTIONS: dict[str, Callable[[Sequence[Kind]], Kind | None]] = {
    "linf": _to_number,
    "l2": _to_number,
    "l1": _to_number,
    "abs": _same,
    "exp": _same,
    "log": _same,
    "max": _extreme,
    "min": _extreme,
    "clamp": _clamped,
    "softmax": _of_vector("vector"),
    "logsumexp": _of_vector("number"),
    "max_other": _of_vector("number"),
}
ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARED = {ast.LtE: "<=", ast.Lt: "<", ast.Eq: "==", ast.NotEq: "!="}
EXCHANGED = {ast.GtE: "<=", ast.Gt: "<"}

_KNOWN = "f(x), f(x0), x, x0, f(x)[y], numbers, + - * /, <= < == != >= >, and, or, not, implies(a, b), " + ", ".join(
    FUNCTIONS
)


def canonical(text: str) -> str:
    """A constraint as ids and tables have it: a name of CONSTRAINTS, or an expression with one way to put its spaces.

    Raises ValueError where it is neither.
    """
    if text in CONSTRAINTS:
        return text
    parsed(text)
    try:
        return ast.unparse(ast.parse(text.strip(), mode="eval"))
    except RecursionError:
        raise ValueError(f"{text[:40]!r}… is nested too deeply") from None


def parsed(text: str) -> Formula:
    """What a constraint says, given its name or an expression. Raises ValueError that says what is wrong with it."""
    text = CONSTRAINTS.get(text, text).strip()
    if len(text) > LONGEST:
        raise ValueError(f"a constraint of {len(text)} characters; at most {LONGEST}")
    try:
        return _formula(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        names = ", ".join(CONSTRAINTS)
        raise ValueError(f"{text!r} is no constraint: neither one of {names}, nor an expression of {_KNOWN}") from None


def _formula(node: ast.expr) -> Formula:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return And(tuple(map(_formula, values)))
        case ast.BoolOp(op=ast.Or(), values=values):
            return Or(tuple(map(_formula, values)))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_formula(operand))
        case ast.Call(func=ast.Name(id="implies"), args=[first, then], keywords=[]):
            return Or((Not(_formula(first)), _formula(then)))
        case ast.Compare(left=left, ops=operators, comparators=rights):
            sides = [left, *rights]
            pairs = zip(operators, sides[:-1], sides[1:], strict=True)
            compared = tuple(_comparison(operator, *pair) for operator, *pair in pairs)
            return compared[0] if len(compared) == 1 else And(compared)
    raise ValueError(
        f"{ast.unparse(node)!r} is neither true nor false; compare numbers, as in linf(f(x) - f(x0)) <= 10"
    )


def _comparison(operator: ast.cmpop, left: ast.expr, right: ast.expr) -> Comparison:
    for side in (left, right):
        if kind_of(_term(side)) != "number":
            raise ValueError(
                f"{ast.unparse(side)!r} is a {kind_of(_term(side))}; compare numbers, such as its linf(...)"
            )
    if type(operator) in COMPARED:
        return Comparison(COMPARED[type(operator)], _term(left), _term(right))
    if type(operator) in EXCHANGED:
        return Comparison(EXCHANGED[type(operator)], _term(right), _term(left))
    raise ValueError(f"numbers compare by <= < == != >= >, and not as in {ast.unparse(left)!r} …")


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and _is_finite(value):
            return Number(float(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Arithmetic("-", Number(0.0), _term(operand))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            term = Arithmetic(ARITHMETIC[type(operator)], _term(left), _term(right))
            if {kind_of(term.left), kind_of(term.right)} >= {"vector", "image"}:
                raise ValueError(f"{ast.unparse(node)!r} mixes a vector of logits with an image")
            return term
        case ast.Subscript(value=value, slice=index):
            vector = _term(value)
            if kind_of(vector) != "vector":
                raise ValueError(f"{ast.unparse(value)!r} is no vector; f(x)[y] is the logit of the label")
            return Entry(vector, _index(index))
        case ast.Call(func=ast.Name(id=name), args=[*arguments], keywords=[]):
            return _call(node, name, arguments)
        case ast.Name(id=name) if name in INPUTS:
            return Input(name)
    raise ValueError(f"{ast.unparse(node)!r} is not known in a constraint; known: {_KNOWN}")


def _call(node: ast.Call, name: str, arguments: list[ast.expr]) -> Term:
    if name == "f" and ast.unparse(node) in INPUTS:
        return Input(ast.unparse(node))
    if name not in FUNCTIONS:
        raise ValueError(f"{ast.unparse(node)!r} is not known in a constraint; known: {_KNOWN}")
    index = _index(arguments.pop()) if name == "max_other" and len(arguments) == 2 else None
    if (name == "max_other") != (index is not None):
        raise ValueError(
            f"{ast.unparse(node)!r}: max_other takes a vector and the class to leave out: max_other(f(x), y)"
        )
    call = Call(name, tuple(map(_term, arguments)), index)
    kinds = [kind_of(one) for one in call.arguments]
    if FUNCTIONS[name](kinds) is None:
        given = ", ".join(f"a {kind}" for kind in kinds) or "nothing"
        raise ValueError(f"{ast.unparse(node)!r}: {name} takes something else than {given}")
    return call


def _index(node: ast.expr) -> Index:
    match node:
        case ast.Name(id="y" | "predicted" as name):
            return name
        case ast.Constant(value=int() as value) if not isinstance(value, bool) and value >= 0:
            return value
    raise ValueError(f"{ast.unparse(node)!r} is no class; possible: y (the label), predicted, or a number from 0")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def kind_of(term: Term) -> Kind:
    """What a term is: a number, a vector of a number for each class, or an image."""
    match term:
        case Input(name):
            return INPUTS[name]
        case Call(function, arguments):
            return FUNCTIONS[function]([kind_of(one) for one in arguments])
        case Arithmetic(_, left, right):
            return next((kind for kind in (kind_of(left), kind_of(right)) if kind != "number"), "number")
    return "number"


def largest_class(formula: Formula | Term) -> int:
    """The largest class that a constraint names by its number; -1 where it names none."""
    match formula:
        case And(parts) | Or(parts):
            return max(map(largest_class, parts))
        case Not(part):
            return largest_class(part)
        case Comparison(_, left, right) | Arithmetic(_, left, right):
            return max(largest_class(left), largest_class(right))
        case Entry(vector, index):
            return max(largest_class(vector), index if isinstance(index, int) else -1)
        case Call(_, arguments, index):
            return max([index if isinstance(index, int) else -1, *map(largest_class, arguments)])
    return -1
