"""Reading a study file: YAML to a checked study, or one line that says what is wrong and what would be right."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deltaball import catalogue
from deltaball.architectures import layers
from deltaball.errors import InputError, alternatives
from deltaball.guarantees import epsilon_reached, samples_needed
from deltaball.study import GRIDS, NOTIONS, Analysis, Compute, Guarantee, Study

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
        if grid.architecture != "fcn":
            deepest = {name: values[0] for name, values in grid if name in grid.axis_names()}
            deepest["conv_depth"] = max(grid.conv_depth)
            try:
                layers(grid.architecture, deepest, found.shape, found.classes)
            except InputError as problem:
                raise InputError(f"{where}.conv_depth: {problem}") from None
    for index, measure in enumerate(study.measures):
        for name in measure.datasets or ():
            if name not in facts:
                raise InputError(
                    f"{path}: measures[{index}].datasets: no grid trains on '{name}'; {alternatives(name, facts)}"
                )
    _check_guarantee(study, min(facts.values(), key=lambda found: found.test), path)


def _check_guarantee(study: Study, smallest: catalogue.DatasetFacts, path: Path) -> None:
    guarantee, at_once = study.guarantee, study.estimates_at_once()
    where = f"{path}: guarantee.epsilon = {guarantee.epsilon}"
    reached = epsilon_reached(smallest.test, guarantee.confidence, estimates=at_once)
    can_be_had = f"epsilon = {_rounded_up(reached)} can be had"
    try:
        needed = samples_needed(guarantee.epsilon, guarantee.confidence, estimates=at_once)
    except ValueError:
        raise InputError(f"{where} needs more test points than can be counted; {can_be_had}") from None
    if needed > smallest.test:
        raise InputError(f"{where} needs {needed} test points and {smallest.name} has {smallest.test}; {can_be_had}")


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
            members = {"grids": GRIDS, "measures": NOTIONS}.get(key, {}) if model is Study else {}
            model = (
                {"guarantee": Guarantee, "compute": Compute, "analysis": Analysis}.get(key, model)
                if model is Study
                else model
            )
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
    tags = ("notion",) if members is NOTIONS else ("architecture", "method")
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
