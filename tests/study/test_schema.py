"""Editors check study files against the committed JSON schema: it must be the one the code has."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import grid, study

import deltaball
from deltaball.study import reading
from deltaball.study.schema import schema

COMMITTED = Path(deltaball.__file__).with_name("study.schema.json")


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(committed)
    return jsonschema.Draft202012Validator(committed)


def test_the_committed_schema_is_the_codes():
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == schema()


def test_every_committed_study_is_valid(root: Path, validator: jsonschema.Draft202012Validator):
    files = [root / "config.yaml", *sorted((root / "studies").glob("*.yaml"))]
    assert len(files) > 1
    for path in files:
        reading.load(path)
        validator.validate(as_written(path))


def as_written(path: Path) -> Any:
    return reading.yaml.load(path.read_text(encoding="utf-8"), reading.StudyLoader)


@pytest.mark.parametrize(
    "content",
    [
        study(colour="red"),
        study(grid(widht=64)),
        study(grid(depth=[])),
        study(grid(depth="2")),
        study(grid(activation="tahn")),
        study({**grid("cnn"), "method": "hmc"}),
        study({**grid(), "kernel": 3}),
        study(grid(without=("method",))),
        study(grid(objective="cross_entorpy")),
        study(measures=[{"notion": "class_change", "delta": -1}]),
        study(measures=[{"notion": "variation_above", "delta": 0.1}]),
        study(guarantee={"epsilon": 0.05}),
        study(study="../elsewhere"),
        study(grids="fcn"),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(content: dict, validator: jsonschema.Draft202012Validator):
    assert validator.is_valid(study())
    assert not validator.is_valid(content)
