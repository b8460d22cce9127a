"""Data for the page's scripts: compressed, so that a page of thousands of networks stays small."""

import base64
import gzip
import json
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 5  # significant ones, of a number on the page; the files have them all


def packed(content: bytes) -> str:
    """The content as base64 of gzip, the same text for the same content; page.js has the inverse."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def packed_table(table: pd.DataFrame) -> str:
    """A table as packed JSON: its ``columns`` and its ``rows``, null where there is no value."""
    columns = {name: _plain(values) for name, values in table.items()}
    rows = list(zip(*columns.values(), strict=True))
    return packed(json.dumps({"columns": list(columns), "rows": rows}, ensure_ascii=False, allow_nan=False).encode())


def _plain(values: pd.Series) -> list[Any]:
    if pd.api.types.is_float_dtype(values):
        return [
            float(f"{one:.{DIGITS}g}") if np.isfinite(one) else None for one in values.to_numpy(float, na_value=np.nan)
        ]
    return [None if pd.isna(one) else one for one in values.astype(object).tolist()]
