"""Reading a study file: YAML to a checked study, or one line that says what is wrong and what would be right."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deltaball.base.errors import InputError, alternatives
from deltaball.base.guarantees import epsilon_reached, samples_needed
from deltaball.base.implementations import is_implemented
from deltaball.data import catalogue
from deltaball.study.architectures import layers
from deltaball.study.grids import GRIDS, FcnHmc, Grid, Sample, how_many
from deltaball.study.judges import JUDGES, NetworkKind
from deltaball.study.measures import ENTRIES, AnyMeasure, Convergence, Only, OwnGuarantee
from deltaball.study.notions import NOTIONS
from deltaball.study.study import Analysis, Compute, Guarantee, Study

# A figure of the convergence of more networks than this is not read.
MOST_CONVERGING = 6

Members = Mapping[str, type[BaseModel]]


def load(path: Path) -> Study:
    """The study in a YAML file. Raises InputError with file, key path, value and remedy on one line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
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
        raise InputError(f"{path}: {_explained(problem)}") from None
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
        if grid.method == "hmc":
            _check_chains(grid, found, where)
        if grid.architecture != "fcn":
            deepest = {name: values[0] for name, values in grid if name in grid.axis_names()}
            deepest["conv_depth"] = max(grid.conv_depth)
            try:
                layers(grid.architecture, deepest, found.shape, found.classes)
            except InputError as problem:
                raise InputError(f"{where}.conv_depth: {problem}") from None
    for index, measure in enumerate(study.measures):
        where = f"{path}: measures[{index}]"
        grids = _check_measure(study, measure, where)
        smallest = min((facts[grid.dataset] for grid in grids), key=lambda one: one.test)
        own = measure.guarantee or OwnGuarantee()
        epsilon, confidence = own.epsilon or study.guarantee.epsilon, own.confidence or study.guarantee.confidence
        key = f"{where}.guarantee.epsilon" if own.epsilon else f"{path}: guarantee.epsilon"
        _check_epsilon(epsilon, confidence, study.estimates_at_once(), smallest, key)
    for index, experiment in enumerate(study.convergence):
        where = f"{path}: convergence[{index}]"
        grids = _check_measure(study, experiment.measure, f"{where}.measure")
        networks = sum(how_many(experiment.measure.wanted, grid) for grid in grids)
        if networks > MOST_CONVERGING:
            raise InputError(f"{where}.measure.only: chooses {networks} networks; at most {MOST_CONVERGING}")
        for grid in grids:
            for epsilon in experiment.epsilon:
                key = f"{where}.epsilon"
                _check_epsilon(epsilon, study.guarantee.confidence, 1, facts[grid.dataset], key)


def _check_chains(grid: FcnHmc, facts: catalogue.DatasetFacts, where: str) -> None:
    most = max((one for one in grid.train_points if one), default=0)
    if most > facts.train:
        raise InputError(f"{where}.train_points = {most}: {facts.name} has {facts.train}; null takes all")
    if min(grid.posterior_samples) < max(grid.thinning):
        raise InputError(
            f"{where}.thinning = {max(grid.thinning)} leaves none of {min(grid.posterior_samples)} posterior_samples"
        )


def _check_measure(study: Study, measure: AnyMeasure, where: str) -> list[Grid]:
    """The grids of which a measure concerns networks, at least one. Raises InputError if it cannot judge them."""
    _check_implementations(measure, where)
    for name, values in measure.wanted.items():
        there = {one for grid in study.grids for one in _values(grid, name)}
        absent = next((value for value in values if value not in there), None)
        if absent is not None:
            raise InputError(
                f"{where}.only: no network has {name} {absent!r}; {alternatives(str(absent), map(str, there))}"
            )
    grids = [grid for grid in study.grids if how_many(measure.wanted, grid)]
    if not grids:
        raise InputError(f"{where}.only: no network has all of {measure.wanted} at once")
    for grid in grids:
        _check_judges(measure, grid, where)
    return grids


def _values(grid: Grid, name: str) -> Sequence[Any]:
    """The values that the networks of a grid have on an axis or as a group."""
    if name in grid.groups():
        return [grid.groups()[name]]
    return getattr(grid, name) if name in grid.axis_names() else []


def _check_implementations(measure: AnyMeasure, where: str) -> None:
    """Refuse what the tables name and the code does not have."""
    judges = [JUDGES[name] for name in measure.judges]
    for key, entry in [("notion", NOTIONS[measure.notion]), *((judge.key, judge) for judge in judges)]:
        if not is_implemented(entry.implementation):
            raise InputError(f"{where}.{key}: '{entry.name}' is not implemented: there is no {entry.implementation}")


def _check_judges(measure: AnyMeasure, grid: Grid, where: str) -> None:
    """Refuse what cannot judge the networks of a grid."""
    wanted, notion = measure.wanted.get("activation", grid.activation), NOTIONS[measure.notion]
    network = NetworkKind(grid.method != "hmc", tuple(name for name in grid.activation if name in wanted))
    for judge in (JUDGES[name] for name in measure.judges):
        if reason := next((judge.refuses(notion, norm, network) for norm in measure.norm), None):
            named = f"'{judge.name}' cannot judge the networks of grid '{grid.name}'"
            raise InputError(f"{where}.{judge.key}: {named}: {reason}")


def _check_epsilon(epsilon: float, confidence: float, at_once: int, facts: catalogue.DatasetFacts, key: str) -> None:
    reached = epsilon_reached(facts.test, confidence, estimates=at_once)
    can_be_had = f"epsilon = {_rounded_up(reached)} can be had"
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


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_MEMBERS = {(Study, "grids"): GRIDS, (Study, "measures"): ENTRIES, (Convergence, "measure"): ENTRIES}
_MODELS = {
    (Study, "guarantee"): Guarantee,
    (Study, "compute"): Compute,
    (Study, "analysis"): Analysis,
    (Study, "convergence"): Convergence,
    (None, "guarantee"): OwnGuarantee,
    (None, "only"): Only,
    (None, "sample"): Sample,
}


def _explained(problem: ValidationError) -> str:
    """One error of a validation as `key.path: what is wrong; what would be right`.

    An unknown key comes first: it is often the reason why another one is missing.
    """
    errors = problem.errors()
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    model: type[BaseModel] = Study
    members: Members = {}
    where = ""
    path = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
    for key in path:
        if isinstance(key, int):
            where += f"[{key}]"
        elif key in members:
            model, members = members[key], {}
        else:
            where += f".{key}" if where else str(key)
            members = _MEMBERS.get((model, key), {})
            model = _MODELS.get((model if model is Study else None, key), model)
    text = _what(first, model, members)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {text}{more}" if where else f"{text}{more}"


def _what(error: Any, model: type[BaseModel], members: Members) -> str:
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            wrong = error["loc"][-1]
            return f"unknown key '{wrong}' (value {value!r}); {alternatives(wrong, model.model_fields)}"
        case "missing":
            kind = model.model_fields[error["loc"][-1]].description
            return f"missing key '{error['loc'][-1]}'" + (f" ({kind})" if kind else "")
        case "too_short":
            return "is empty; list at least one value"
        case "union_tag_not_found" | "union_tag_invalid":
            return _untagged(value, members)
        case "value_error":
            return str(context["error"])
        case "literal_error":
            names = re.findall(r"'([^']*)'", context["expected"])
            return f"{value!r} is not known; {alternatives(value, names)}"
        case "string_pattern_mismatch":
            return f"{value!r} cannot be a name; use letters, digits, '.', '_' and '-'"
    return f"{value!r} is wrong: {error['msg'][0].lower()}{error['msg'][1:]}"


def _untagged(value: Any, members: Members) -> str:
    if not isinstance(value, dict):
        return f"{value!r} should be a mapping with keys of its own"
    tags = ("notion",) if members is ENTRIES else ("architecture", "method")
    known = [name.split("-") for name in members]
    for position, tag in enumerate(tags):
        names = {parts[position] for parts in known}
        if tag not in value:
            return f"missing key '{tag}'; {alternatives('', names)}"
        if not isinstance(value[tag], str) or value[tag] not in names:
            return f"{tag} {value[tag]!r} is not known; {alternatives(value[tag], names)}"
    pairs = ", ".join(" with ".join(reversed(parts)) for parts in known)
    return f"method '{value['method']}' does not go with architecture '{value['architecture']}'; possible: {pairs}"


def schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
