"""The JSON schema of a study file, for editors."""

import json
from collections import Counter
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from deltaball.study.study import Study


class _Untitled(GenerateJsonSchema):
    """Schemas in which a key has no title beside its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """The schema. What several sections have alike stands in it once."""
    whole = Study.model_json_schema(schema_generator=_Untitled)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_shared(whole)}


def _shared(whole: dict[str, Any]) -> dict[str, Any]:
    """A schema whose sections refer to one definition for a key that they have alike."""
    sections = {name: one["properties"] for name, one in whole["$defs"].items() if "properties" in one}
    counts = Counter(_text(key, value) for keys in sections.values() for key, value in keys.items())
    names: dict[str, str] = {}
    for section, keys in sections.items():
        for key, value in keys.items():
            text = _text(key, value)
            if counts[text] > 1 and set(value) - {"$ref"}:
                name = names.setdefault(text, f"{section}.{key}")
                whole["$defs"].setdefault(name, value)
                keys[key] = {"$ref": f"#/$defs/{name}"}
    return whole


def _text(key: str, value: Any) -> str:
    return json.dumps([key, value], sort_keys=True)
