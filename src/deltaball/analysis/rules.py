"""The claims of each paper and the rules for them, written down in YAML before any study is looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deltaball.study.papers import PAPERS


def _read(name: str) -> Mapping[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


SHARED = _read("rules.yaml")
CONFIDENCE: float = SHARED["confidence"]  # of intervals
RULES = {number: _read(f"claims_{number}.yaml") for number in PAPERS}
