"""Figures of synthetic tables, and what they say."""

import base64
import html
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import grid
from matplotlib import rcParams
from synthetic_tables import both_sides

from deltaball.analysis import writing
from deltaball.figures import drawing, style
from deltaball.plan.plan import Plan
from deltaball.report import page
from deltaball.workflow import stages

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def draw_all(plan: Plan) -> str:
    writing.write_tables(plan)
    drawing.draw(plan)
    return page.write(plan, Path("config.yaml")).read_text()


def draw_only(plan: Plan, *names: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stages, "figures", lambda _: list(names))
        drawing.draw(plan)


def page_without_pictures(plan: Plan, study: Path = Path("config.yaml")) -> Path:
    """The report of the plan's tables, with a pixel for every picture."""
    for name in stages.figures(plan):
        path = plan.study.folder / f"figures/{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PIXEL)
    return page.write(plan, study)


def small(folder: Path, **changed: Any) -> Plan:
    """`both_sides` with fewer networks, on few points."""
    grids = [grid(name="one", width=[64, 128], learning_rate=[0.1, 0.01]), grid("cnn", name="two", learning_rate=0.1)]
    return both_sides(folder, **{"grids": grids, "guarantee": {"epsilon": 0.1, "confidence": 0.95}, **changed})


def drawn(plan: Plan, name: str) -> tuple[pd.DataFrame, str]:
    """One figure's CSV, and what its SVG says (drawn as text)."""
    use = style.use

    def with_text() -> None:
        use()
        rcParams["svg.fonttype"] = "none"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(style, "use", with_text)
        draw_only(plan, name)
    folder = plan.study.folder / "figures"
    text = " ".join(re.findall(r">([^<>]+)</text>", (folder / f"{name}.svg").read_text()))
    return pd.read_csv(folder / f"{name}.csv"), html.unescape(text)
