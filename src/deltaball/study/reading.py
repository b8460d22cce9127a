"""Reading a study file: YAML to a checked study, or one line that says what is wrong and what would be right."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from deltaball.base.errors import MOST_QUOTED, InputError, alternatives, shown
from deltaball.study import checking
from deltaball.study.autoencoders import AutoEncoder
from deltaball.study.axes import Strict
from deltaball.study.choosing import Choice
from deltaball.study.grids import PARTS, Grid, Sample, model_of
from deltaball.study.measures import ENTRIES, AnyMeasure, Convergence, Only, OwnGuarantee, notion_tag, tagged
from deltaball.study.notions import NOTIONS
from deltaball.study.study import Analysis, Compute, Guarantee, Study
from deltaball.study.transfers import Transfer


def load(path: Path, settings: Sequence[str] = ()) -> Study:
    """The study in a YAML file, with `settings` of single keys, such as grids.0.epochs=5, in place of what it says.

    Raises InputError with file, key path, value and remedy on one line.
    """
    return checked(content(path, settings), " ".join([str(path), *(f"--set {one}" for one in settings)]))


def content(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file holds, with settings; not checked yet. Raises InputError as `load` does."""
    try:
        found = parsed(path.read_text(encoding="utf-8"), str(path))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: should hold the keys of a study ({', '.join(Study.model_fields)})")
    for setting in settings:
        key, _, text = setting.partition("=")
        if not key or "=" not in setting:
            raise InputError(f"--set {setting}: should be KEY=VALUE, such as grids.0.epochs=5")
        found = _with(found, key.split("."), parsed(text, f"--set {setting}"), f"--set {setting}")
    return found


def checked(content: dict[str, Any], source: str) -> Study:
    """The study that a file's content is. Raises InputError, beginning with `source`, where it is none."""
    try:
        study = Study.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{source}: {_explained(problem, content)}") from None
    checking.check(study, source)
    return study


class Asked(Strict):
    """One measure by itself."""

    measure: tagged(ENTRIES, notion_tag)


def measure(content: dict[str, Any]) -> AnyMeasure:
    """A measure as a study's entry asks it. Raises InputError, beginning with the key, where it cannot be had."""
    whole = {"measure": content}
    try:
        return Asked.model_validate(whole).measure
    except ValidationError as problem:
        raise InputError(
            _explained(problem, whole).removeprefix("measure").removeprefix(": ").removeprefix(".")
        ) from None


def parsed(text: str, source: str) -> Any:
    """What YAML says. Raises InputError, beginning with `source`, where it is none."""
    try:
        return yaml.load(text, StudyLoader)
    except RecursionError:
        raise InputError(f"{source}: nested too deeply to be a study") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(problem, "problem", problem)).split())
        raise InputError(f"{source}{line}: not valid YAML ({reason})") from None


def _with(content: Any, keys: Sequence[str], value: Any, source: str, above: str = "") -> Any:
    """Content with another value at a path of keys, and of places in lists. What is not on the path is shared."""
    if not keys:
        return value
    key, *rest = keys
    where = f"{above}.{key}" if above else key
    if isinstance(content, list):
        if not key.isdecimal() or int(key) >= len(content):
            raise InputError(f"{source}: {above} has no place '{key}'; {_places(content)}")
        place = int(key)
        return [*content[:place], _with(content[place], rest, value, source, where), *content[place + 1 :]]
    if content is not None and not isinstance(content, dict):
        raise InputError(f"{source}: {above} is {shown(content)} and has no keys")
    found = content or {}
    return {**found, key: _with(found.get(key), rest, value, source, where)}


def _places(items: Sequence[Any]) -> str:
    """The places of a list, with the names of what stands there."""
    named = [
        f"{place} ({item['name']})" if isinstance(item, dict) and "name" in item else f"{place}"
        for place, item in enumerate(items)
    ]
    return f"possible: {', '.join(named)}" if named else "it is empty"


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
    "autoencoders": AutoEncoder,
    "transfers": Transfer,
}
_SECTIONS_WITHIN: dict[str, type[BaseModel]] = {
    "guarantee": OwnGuarantee,
    "only": Only,
    "sample": Sample,
    "choose": Choice,
}


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
            named = key if key.isprintable() and len(key) <= MOST_QUOTED else shown(key)
            where += f".{named}" if where else named
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
            return f"unknown key {shown(str(wrong))} (value {shown(value)}); {_instead(wrong, _model(around))}"
        case "missing":
            kind = _keys(_model(sections))[error["loc"][-1]].description
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


def _instead(wrong: str, model: type[BaseModel]) -> str:
    """What may have been meant by a key that a section does not know: the same key elsewhere, or another one here."""
    homes = _homes(wrong)
    if homes and not difflib.get_close_matches(wrong, _keys(model), cutoff=0.8):
        return f"it is a key of {' and of '.join(homes)}"
    return alternatives(wrong, _keys(model))


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a section as they are written."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _homes(key: str) -> list[str]:
    """The sections that know a key."""
    homes = [name for name, model in _SECTIONS.items() if key in model.model_fields]
    kinds = [notion for notion, model in ENTRIES.items() if key in model.model_fields]
    if kinds:
        homes.append("measures" if len(kinds) == len(ENTRIES) else f"measures of notion {' or '.join(kinds)}")
    if key in Grid.model_fields or key in PARTS:
        homes.append("grids")
    for tag, members in PARTS.items():
        kinds = [name for name, model in members.items() if key in _keys(model)]
        if kinds and key != tag:
            homes.append("grids" if len(kinds) == len(members) else f"grids of {tag} {' or '.join(kinds)}")
    homes += ["a grid's sample"] if key in Sample.model_fields else []
    return [*homes, "the study itself"] if key in Study.model_fields else homes


def _without_notion(measure: Any) -> str:
    if not isinstance(measure, dict):
        return f"{shown(measure)} should be a mapping with keys of its own"
    if "notion" not in measure:
        return f"missing key 'notion'; {alternatives('', NOTIONS)}"
    return f"notion {shown(measure['notion'])} is not known; {alternatives(measure['notion'], NOTIONS)}"
