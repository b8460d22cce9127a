"""Constraints are read by a small grammar: what is not in it is refused in one line, and nothing is evaluated."""

from pathlib import Path

import pytest
import yaml
from builders import grid, study
from hypothesis import given
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.study import reading
from deltaball.study.constraints import CONSTRAINTS, And, Comparison, Not, Or, canonical, parsed
from deltaball.study.study import Study

RADIUS = {"objective": "constrained", "beta": 0.2, "radius": 0.1}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_the_papers_constraints_can_be_read(name: str) -> None:
    assert isinstance(parsed(name), Comparison)
    assert canonical(name) == name
    assert canonical(CONSTRAINTS[name]) == CONSTRAINTS[name]


def test_spaces_make_no_other_constraint() -> None:
    assert canonical(" linf( f(x)-f(x0) )<=1") == canonical("linf(f(x) - f(x0)) <= 1") == "linf(f(x) - f(x0)) <= 1"


def test_what_joins_comparisons() -> None:
    one, two = parsed("f(x)[y] > 1"), parsed("f(x)[0] < 2")
    assert parsed("f(x)[y] > 1 and not f(x)[0] < 2") == And((one, Not(two)))
    assert parsed("implies(f(x)[y] > 1, f(x)[0] < 2)") == Or((Not(one), two))
    assert parsed("1 < f(x)[y] and f(x)[0] < 2") == parsed("f(x)[y] > 1 and 2 > f(x)[0]")
    assert parsed("0 <= f(x)[y] <= 1") == parsed("0 <= f(x)[y] and f(x)[y] <= 1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("robust", "neither true nor false"),
        ("f(x) <= 1", "'f(x)' is a vector; compare numbers"),
        ("linf(x - f(x)) <= 1", "mixes a vector of logits with an image"),
        ("x[y] < 1", "'x' is no vector"),
        ("f(x)[-1] < 1", "is no class"),
        ("f(x)[label] < 1", "'label' is no class; possible: y"),
        ("max_other(f(x)) < 1", "the class to leave out"),
        ("linf(1) < 1", "linf takes something else than a number"),
        ("f(x, y)[0] < 1", "is not known in a constraint"),
        ("g(x)[0] < 1", "is not known in a constraint"),
        ("linf(f(x)) is 1", "numbers compare by <="),
        ("linf(f(x) <= 1", "is no constraint: neither one of standard_robustness"),
        ("__import__('os').system('true') < 1", "is not known in a constraint"),
        ("f(x)[0].__class__ < 1", "is not known in a constraint"),
        ("(lambda: 1)() < 1", "is not known in a constraint"),
        ("f(x)[0] < 1" + " " * 500 + "+ 1", "at most 500"),
        ("-" * 450 + "1 < 2", "deeply"),
        ("1e999 < 2", "is not known in a constraint"),
    ],
)
def test_a_bad_constraint_is_one_clear_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as problem:
        canonical(text)
    assert said in str(problem.value)


PIECES = [*"fxy0123 ()[]<>=+-*/.,_'\n\t", "linf", "max_other(f(x), y)", "f(x)", " or not ", " and ", "[y] <", "f(x0)"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        once = canonical(text)
    except ValueError:
        return
    assert canonical(once) == once
    assert parsed(once) == parsed(text)


def loaded(folder: Path, **changed: object) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study(grid(**{**RADIUS, **changed}))))
    return reading.load(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"constraint": "f(x)[10] < 1"}, "constraint = 'f(x)[10] < 1': mnist5k has the classes 0 to 9"),
        ({"constraint": "f(x) < 1"}, "grids[0].constraint: 'f(x)' is a vector; compare numbers"),
        ({"constraint": "classification", "radius": 1.5}, "radius"),
        ({"constraint": "classification", "logic": "fuzzy"}, "logic"),
        ({"constraint": "classification", "beta": -1}, "beta"),
        ({"objective": "cross_entropy"}, "beta"),
    ],
)
def test_a_study_is_refused_by_the_key_that_is_wrong(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]*\Z") as problem:
        loaded(tmp_path, **changed)
    assert said in str(problem.value)


def test_a_study_has_a_constraint_of_ones_own_among_its_axes(tmp_path: Path) -> None:
    (one,) = loaded(tmp_path, constraint=["f(x)[9]<1", "classification"]).grids
    assert {axes["constraint"] for axes in one.networks()} == {"f(x)[9] < 1", "classification"}
