"""Figures of synthetic tables, and what they say."""

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


def draw_all(plan: Plan) -> str:
    writing.write_tables(plan)
    drawing.draw(plan)
    return page.write(plan, Path("config.yaml")).read_text()


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
        patched.setattr(stages, "figures", lambda _: [name])
        patched.setattr(style, "use", with_text)
        drawing.draw(plan)
    folder = plan.study.folder / "figures"
    text = " ".join(re.findall(r">([^<>]+)</text>", (folder / f"{name}.svg").read_text()))
    return pd.read_csv(folder / f"{name}.csv"), html.unescape(text)
