"""Reading a study file: YAML to a checked study, or one line that says what is wrong and what would be right."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deltaball.base.errors import InputError, alternatives
from deltaball.base.guarantees import epsilon_reached, samples_needed
from deltaball.base.implementations import is_implemented
from deltaball.data import catalogue
from deltaball.data.catalogue import DatasetFacts
from deltaball.study.architectures import ARCHITECTURES
from deltaball.study.grids import Grid, Sample, count_matching, model_of
from deltaball.study.judges import JUDGES, NetworkKind
from deltaball.study.measures import ENTRIES, AnyMeasure, Convergence, Only, OwnGuarantee
from deltaball.study.notions import NOTIONS
from deltaball.study.objectives import OBJECTIVES
from deltaball.study.study import Analysis, Compute, Guarantee, Study

# Characters of a value that a message quotes.
MOST_QUOTED = 80
# A figure of the convergence of more networks than this is not read.
MOST_CONVERGING = 6


def load(path: Path) -> Study:
    """The study in a YAML file. Raises InputError with file, key path, value and remedy on one line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), StudyLoader)
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a study") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(problem, "problem", problem)).split())
        raise InputError(f"{path}{line}: not valid YAML ({reason})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: should hold the keys of a study ({', '.join(Study.model_fields)})")
    try:
        study = Study.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{path}: {_explained(problem, content)}") from None
    _check(study, path)
    return study


def _check(study: Study, path: Path) -> None:
    facts = {}
    for index, grid in enumerate(study.grids):
        where = f"{path}: grids[{index}] ({grid.name})"
        try:
            facts[grid.dataset] = found = catalogue.facts(grid.dataset, Path(study.data))
        except InputError as problem:
            raise InputError(f"{where}.dataset: {problem}") from None
        objective = OBJECTIVES[grid.objective].implementation
        if not is_implemented(objective):
            raise InputError(f"{where}.objective: '{grid.objective}' is not implemented: there is no {objective}")
        try:
            grid.check_points(found)
            grid.check_images(found)
        except InputError as problem:
            raise InputError(f"{where}.{problem}") from None
    for index, measure in enumerate(study.measures):
        where = f"{path}: measures[{index}]"
        grids = _check_measure(study, measure, facts, where)
        smallest = min((facts[grid.dataset] for grid in grids), key=lambda one: one.test)
        own = measure.guarantee or OwnGuarantee()
        epsilon, confidence = own.epsilon or study.guarantee.epsilon, own.confidence or study.guarantee.confidence
        key = f"{where}.guarantee.epsilon" if own.epsilon else f"{path}: guarantee.epsilon"
        _check_epsilon(epsilon, confidence, study.estimates_at_once(), smallest, key)
    for index, experiment in enumerate(study.convergence):
        where = f"{path}: convergence[{index}]"
        grids = _check_measure(study, experiment.measure, facts, f"{where}.measure")
        networks = sum(count_matching(experiment.measure.wanted, grid) for grid in grids)
        if networks > MOST_CONVERGING:
            raise InputError(f"{where}.measure.only: chooses {networks} networks; at most {MOST_CONVERGING}")
        for grid in grids:
            for epsilon in experiment.epsilon:
                key = f"{where}.epsilon"
                _check_epsilon(epsilon, study.guarantee.confidence, 1, facts[grid.dataset], key)


def _check_measure(study: Study, measure: AnyMeasure, facts: Mapping[str, DatasetFacts], where: str) -> list[Grid]:
    """The grids of which a measure concerns networks, at least one. Raises InputError if it cannot judge them."""
    _check_implementations(measure, where)
    for name, values in measure.wanted.items():
        there = {one for grid in study.grids for one in _values(grid, name)}
        absent = next((value for value in values if value not in there), None)
        if absent is not None:
            raise InputError(
                f"{where}.only: no network has {name} {absent!r}; {alternatives(str(absent), map(str, there))}"
            )
    grids = [grid for grid in study.grids if count_matching(measure.wanted, grid)]
    if not grids:
        raise InputError(f"{where}.only: no network has all of {measure.wanted} at once")
    for grid in grids:
        _check_judges(measure, grid, where)
        _check_sizes(measure, grid, facts[grid.dataset], where)
    return grids


def _values(grid: Grid, name: str) -> Sequence[Any]:
    """The values that the networks of a grid have on an axis or as a group."""
    if name in grid.groups():
        return [grid.groups()[name]]
    return grid.values(name) if name in grid.axis_names() else []


def _check_implementations(measure: AnyMeasure, where: str) -> None:
    """Refuse what the tables name and the code does not have."""
    judges = [JUDGES[name] for name in measure.judges]
    for key, entry in [("notion", NOTIONS[measure.notion]), *((judge.key, judge) for judge in judges)]:
        if not is_implemented(entry.implementation):
            raise InputError(f"{where}.{key}: '{entry.name}' is not implemented: there is no {entry.implementation}")


def _check_judges(measure: AnyMeasure, grid: Grid, where: str) -> None:
    """Refuse what cannot judge the networks of a grid."""
    wanted, notion = measure.wanted.get("activation", grid.activation), NOTIONS[measure.notion]
    activations = tuple(name for name in grid.activation if name in wanted)
    network = NetworkKind(layered=not grid.averages_samples, activations=activations)
    for judge in (JUDGES[name] for name in measure.judges):
        if reason := next((judge.refuses(notion, norm, network) for norm in measure.norm), None):
            named = f"'{judge.name}' cannot judge the networks of grid '{grid.name}'"
            raise InputError(f"{where}.{judge.key}: {named}: {reason}")


def _check_sizes(measure: AnyMeasure, grid: Grid, facts: DatasetFacts, where: str) -> None:
    """Refuse a judge of which a network of a grid is too large."""
    notion = NOTIONS[measure.notion]
    for judge in (JUDGES[name] for name in measure.judges if JUDGES[name].minds_size):
        for axes in _shapes(grid, measure.wanted):
            layers = ARCHITECTURES[grid.architecture].layers(axes, facts.shape, facts.classes)
            network = NetworkKind(activations=(axes["activation"],), layers=layers)
            if reason := next((judge.refuses(notion, norm, network) for norm in measure.norm), None):
                named = ", ".join(f"{name} {value}" for name, value in axes.items())
                raise InputError(
                    f"{where}.{judge.key}: '{judge.name}' cannot judge the network {named} of grid '{grid.name}' on "
                    f"{facts.name}: {reason}"
                )


def _shapes(grid: Grid, wanted: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The axes of every architecture of a grid that has wanted networks."""
    names = [name for name in ARCHITECTURES[grid.architecture].model_fields if name != "architecture"]
    for values in itertools.product(*(grid.values(name) for name in names)):
        axes = dict(zip(names, values, strict=True))
        if all(value in wanted.get(name, [value]) for name, value in axes.items()):
            yield axes


def _check_epsilon(epsilon: float, confidence: float, at_once: int, facts: DatasetFacts, key: str) -> None:
    reached = epsilon_reached(facts.test, confidence, estimates=at_once)
    least = _rounded_up(reached)
    can_be_had = f"epsilon = {least} can be had" if least < 1 else "no epsilon below 1 can be had"
    try:
        needed = samples_needed(epsilon, confidence, estimates=at_once)
    except ValueError:
        raise InputError(f"{key} = {epsilon} needs more test points than can be counted; {can_be_had}") from None
    if needed > facts.test:
        raise InputError(
            f"{key} = {epsilon} needs {needed} test points and {facts.name} has {facts.test}; {can_be_had}"
        )


def _rounded_up(epsilon: float) -> float:
    return round(epsilon + 0.00005, 4)


def shown(value: Any) -> str:
    """A value as a message quotes it: what would fill a page is cut."""
    text = repr(value)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


class StudyLoader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and a repeated key is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        # What Python's own readers raise: of a number of too many digits, of the 31st of June, of `!!bool maybe`.
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
            kind, text = node.tag.rpartition(":")[2], shown(node.value)
            reason = f"{text} cannot be read as {kind}; put quotes around it if it is a word"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "it should be a mapping", node.start_mark)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


StudyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


# The models of the sections of a study file, by their keys; a grid's and a measure's depend on what they hold.
_SECTIONS: dict[str, type[BaseModel]] = {
    "guarantee": Guarantee,
    "compute": Compute,
    "analysis": Analysis,
    "convergence": Convergence,
}
_SECTIONS_WITHIN: dict[str, type[BaseModel]] = {"guarantee": OwnGuarantee, "only": Only, "sample": Sample}


def _explained(problem: ValidationError, content: Any) -> str:
    """One error of a validation as `key.path: what is wrong; what would be right`.

    An unknown key comes first: it is often the reason why another one is missing.
    """
    errors = problem.errors()
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    where, section = _located(first["loc"][:-1] if first["type"] == "missing" else first["loc"], content)
    text = _what(first, section)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {text}{more}" if where else f"{text}{more}"


def _located(location: Sequence[str | int], content: Any) -> tuple[str, list[tuple[str, Any]]]:
    """A place in a study's content, as a path of keys; and the sections around it, each with its key.

    What is no key of the content (the tag of a measure, the index of a value that stands alone) is passed over.
    """
    where, key, sections = "", "", []
    for step in location:
        if isinstance(content, dict) and step in content:
            key = str(step)
            where += f".{key}" if where else key
        elif isinstance(content, list) and isinstance(step, int):
            where += f"[{step}]"
        else:
            continue
        content = content[step]
        if isinstance(content, dict):
            sections.append((key, content))
    return where, sections


def _model(sections: Sequence[tuple[str, Any]]) -> type[BaseModel]:
    """The model of the innermost of some sections."""
    if not sections:
        return Study
    key, content = sections[-1]
    if key == "grids":
        return model_of(content)
    if key in ("measures", "measure"):
        return ENTRIES[content["notion"]]
    return (_SECTIONS if len(sections) == 1 else _SECTIONS_WITHIN)[key]


def _what(error: Any, sections: list[tuple[str, Any]]) -> str:
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            wrong = error["loc"][-1]
            around = sections[:-1] if isinstance(value, dict) else sections
            return f"unknown key '{wrong}' (value {shown(value)}); {alternatives(wrong, _model(around).model_fields)}"
        case "missing":
            kind = _model(sections).model_fields[error["loc"][-1]].description
            return f"missing key '{error['loc'][-1]}'" + (f" ({kind})" if kind else "")
        case "too_short":
            return "is empty; list at least one value"
        case "union_tag_not_found" | "union_tag_invalid":
            return _without_notion(value)
        case "value_error":
            return str(context["error"])
        case "literal_error":
            names = re.findall(r"'([^']*)'", context["expected"])
            return f"{shown(value)} is not known; {alternatives(value, names)}"
        case "string_pattern_mismatch":
            return f"{shown(value)} cannot be a name; use letters, digits, '.', '_' and '-'"
    return f"{shown(value)} is wrong: {error['msg'][0].lower()}{error['msg'][1:]}"


def _without_notion(measure: Any) -> str:
    if not isinstance(measure, dict):
        return f"{shown(measure)} should be a mapping with keys of its own"
    if "notion" not in measure:
        return f"missing key 'notion'; {alternatives('', NOTIONS)}"
    return f"notion {shown(measure['notion'])} is not known; {alternatives(measure['notion'], NOTIONS)}"
