"""What a light table names by a dotted path, module and class: the class, and whether it is there. Standard library."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def implementation(path: str) -> Any:
    """The class at ``package.module.Class``; imports its module."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_implemented(path: str) -> bool:
    """Whether there is a module with such a class. Reads the module and does not import it, so it stays light."""
    module, _, name = path.rpartition(".")
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of a package above it
        return False
    if spec is None or not spec.origin:
        return False
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in body)
