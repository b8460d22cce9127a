"""Tables written so that each says whose it is (`workflow.seals`)."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet

from deltaball.workflow import seals


def to_file(table: pd.DataFrame, path: Path, identity: dict[str, str], **options: Any) -> None:
    """Write a table with a seal; `options` are pyarrow's."""
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    seal = {"deltaball": seals.blank(identity)}
    written = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, **seal}), written, **options)
    path.write_bytes(seals.sealed(written.getvalue().to_pybytes()))
