"""How the templates of this package are read, and how they write numbers."""

from importlib.resources import files

import jinja2
import pandas as pd

from deltaball.analysis import judges
from deltaball.study.axes import radius_text


def environment() -> jinja2.Environment:
    """What renders the templates: HTML and SVG escaped, Markdown as it is."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("deltaball", "report"),
        autoescape=lambda name: name is None or not name.endswith(".md.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "number": _number,
        "count": lambda value: _number(value, 0),
        "p_value": _p_value,
        "share": _share,
        "by": judges.display_name,
        "general": "{:g}".format,
        "radius": radius_text,
        "cell": lambda text: text.replace("|", r"\|"),
        "sentence": lambda text: f"{text[:1].upper()}{text[1:].rstrip('.')}.",
    }
    found.globals["asset"] = lambda name: (files(__package__) / name).read_text(encoding="utf-8")
    return found


def _number(value: float, digits: int = 2) -> str:
    return "–" if pd.isna(value) else f"{value:,.{digits}f}".replace("-", "−")


def _p_value(value: float) -> str:
    if pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f} %"
