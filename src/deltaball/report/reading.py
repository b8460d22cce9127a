"""What the page is made of, read from the study's folder."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from deltaball.base.errors import InputError

# A grid may be called 01 or NA; only an empty cell is null.
TEXT = (
    "network_id",
    "section",
    "grid",
    "dataset",
    "measure",
    "notion",
    "term",
    "proportion",
    "norm",
    "attack",
    "certificate",
)
REQUIRED = {"correlations": ["dataset", "measure"], "regressions": ["dataset", "measure", "term"]}
OF_DATASETS = ("completeness", "monotonicity", "pruning", "pruning_tests", "bayes", "enclosures", "convergence", "jobs")
WIDEST = 1900  # pixels of a picture on the page
QUALITY = 82


def csv(path: Path) -> pd.DataFrame:
    """A statistical table. Raises InputError when it is missing, empty or damaged."""
    try:
        table = pd.read_csv(
            path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXT, str), low_memory=False
        )
    except FileNotFoundError:
        raise InputError(f"{path} is not there; `deltaball analyse` makes it") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; `deltaball analyse` makes it again") from None
    if not set(REQUIRED.get(path.stem, ["dataset"] if path.stem in OF_DATASETS else [])).issubset(table.columns):
        raise InputError(f"{path} is damaged; `deltaball analyse` makes it again")
    return table


def picture(path: Path) -> dict[str, Any]:
    """A figure as the page holds it: WebP, a fifth of the PNG. Raises InputError when it is missing or damaged."""
    try:
        with Image.open(path) as image:
            image.load()
            title, told = image.info.get("Title", path.stem), image.info.get("Description", "")
            shown = image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path} is not there; `deltaball figures` makes it") from None
    except OSError:
        raise InputError(f"{path} is damaged; `deltaball figures` makes it again") from None
    shown.thumbnail((WIDEST, 4 * WIDEST))
    content = io.BytesIO()
    shown.save(content, "WEBP", quality=QUALITY, method=4)
    source = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
    return {
        "name": path.stem,
        "title": title,
        "told": told,
        "source": source,
        "width": shown.width,
        "height": shown.height,
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries, as templates read them."""
    return table.to_dict("records")
