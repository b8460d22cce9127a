"""Do the tables and ids of an earlier version still come out, bit for bit? For changes that must change no behaviour.

    .venv/bin/python benchmarks/freezing.py freeze OUT RESULTS_FOLDER... [--ids STUDY.yaml...]
    .venv/bin/python benchmarks/freezing.py compare OUT RESULTS_FOLDER... [--ids STUDY.yaml...]

`freeze` copies the tables of each results folder into OUT, with a digest per column beside them, and writes there what
each study plans: ids of networks and trajectories, and measures with their N, ε and confidence. A results folder is
known by its last name (`results/demo` as `demo`), a study by its file's, so that `compare` may be given other paths.
What OUT holds already is never overwritten. `compare` prints a line per table, the first differences in words, and the
number of all; its exit status is 1 where there are any, and 2 where it could not compare.

Compared are every value of the parquet tables, of tables/*.csv and of tables/scorecard.json, in the order of the rows;
names, order and types of columns; and what CSV and JSON look like otherwise, as quotes. Floats are equal where their
bytes are. Left out are tables/jobs.csv, a log of runs with their times, figures and the report. Software, device and
data are compared too, so both sides must be made on one kind of machine, and with OMP_NUM_THREADS=1, as Snakemake does:
products on two threads round otherwise. In columns called `software`, deltaball's own version is not compared, since a
release changes it and nothing else.
"""

import argparse
import csv
import hashlib
import json
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = ("networks", "robustness", "outcomes", "curves", "convergence")
LEFT_OUT = ("tables/jobs.csv",)
KEYS = ("id", "name", "place", "network_id", "grid", "dataset", "claim", "part", "measure", "notion", "delta", "draw")
SHOWN = 5  # differences of a table that are told in words
WIDTH = 160  # characters of a value that are shown


@dataclass(frozen=True)
class Column:
    """Cells are equal where their values are, bit for bit: None, or what a person reads, or the bytes of a list."""

    kind: str
    cells: list[Any]
    element: np.dtype | None = None  # of lists


Table = dict[str, Column]


def planned(study: str) -> Any:
    """The plan of a study file: the one thing here that knows where deltaball keeps it."""
    from deltaball.plan import loading

    return loading.planned(Path(study))


def ids(study: str) -> dict[str, dict[str, list[Any]]]:
    """What a study plans, as tables of texts."""
    plan = planned(study)
    networks = [(one.id, one.trajectory_id, str(one.checkpoint)) for one in plan.networks]
    trajectories = [
        (
            key,
            one.id,
            " ".join(map(str, one.checkpoints)),
            " ".join("@".join(map(str, parent)) for parent in one.parents) or "none",
            one.origin,
        )
        for key, one in plan.trajectories.items()
    ]
    measures = [(one.name, str(one.samples), number(one.epsilon), number(one.confidence)) for one in plan.measures]
    return {
        "networks": {"columns": ["id", "trajectory_id", "checkpoint"], "rows": networks},
        "trajectories": {"columns": ["key", "id", "checkpoints", "parent", "origin"], "rows": trajectories},
        "measures": {"columns": ["name", "samples", "epsilon", "confidence"], "rows": measures},
    }


def number(value: Any) -> str:
    """A float as a person reads it, and its bytes."""
    form = {2: ">e", 4: ">f"}.get(getattr(value, "itemsize", 8), ">d")
    return f"{value.item() if isinstance(value, np.generic) else value!r} ({struct.pack(form, value).hex()})"


def read(path: Path) -> Table:
    """A table of a file, by its ending."""
    if path.suffix == ".parquet":
        return of_parquet(path)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            heads, *rows = csv.reader(file)
        return of_texts(heads, rows)
    return of_texts(["place", "value"], list(leaves(json.loads(path.read_text(encoding="utf-8")))))


def of_texts(heads: list[str], rows: list[Any]) -> Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in heads]
    return {head: Column("text", list(cells)) for head, cells in zip(heads, columns, strict=True)}


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The values of a JSON document, each with its place."""
    if not (isinstance(value, dict | list) and value):
        yield place, json.dumps(value, ensure_ascii=False)
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, f"{place}/{key}")


def of_parquet(path: Path) -> Table:
    table = pq.read_table(path)
    known = {one["name"]: one["numpy_type"] for one in (table.schema.pandas_metadata or {}).get("columns", ())}
    found = {}
    for field, values in zip(table.schema, table.columns, strict=True):
        kind = f"{field.type}, in pandas {known.get(field.name)}"
        listed = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        element = np.dtype(field.type.value_type.to_pandas_dtype()) if listed else None
        found[field.name] = Column(kind, list(cells(field.name, values)), element)
    return found


def cells(name: str, values: pa.ChunkedArray) -> Iterator[Any]:
    kind = values.type
    for one in values:
        if not one.is_valid:
            yield None
        elif pa.types.is_floating(kind):
            yield number(kind.to_pandas_dtype()(one.as_py()))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if one.values.null_count:
                sys.exit(f"column {name} has nulls inside its lists, which are not told from NaN here")
            yield one.values.to_numpy(zero_copy_only=False).tobytes()
        elif name == "software":
            yield re.sub(r"deltaball [^,]+", "deltaball (any version)", one.as_py())
        else:
            yield str(one.as_py())


def digests(table: Table) -> dict[str, list[Any]]:
    """Of each column: its type, its number of rows, and a hash of its cells."""
    return {
        name: [one.kind, len(one.cells), hashlib.sha256("\n".join(map(repr, one.cells)).encode()).hexdigest()]
        for name, one in table.items()
    }


def files(folder: Path) -> list[str]:
    """The tables of a results folder, by their paths in it. Those that every study has are named even if missing."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.glob("tables/*.csv"))
    named = [*(f"{name}.parquet" for name in PARQUET), "tables/scorecard.json"]
    return [*named, *(name for name in found if name not in LEFT_OUT)]


def freeze(out: Path, folders: dict[str, Path], studies: dict[str, str]) -> int:
    for taken in [out / "results" / name for name in folders] + [out / "ids" / f"{name}.json" for name in studies]:
        if taken.exists():
            return unable(f"{taken} is there already; freeze into another folder, or delete it first")
    for name, folder in folders.items():
        if missing := [file for file in files(folder) if not (folder / file).exists()]:
            return unable(f"{folder} has no {', '.join(missing)}")
        found = {}
        for file in files(folder):
            copy = out / "results" / name / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, copy)
            found[file] = digests(read(copy))
            print(f"{name}/{file}: {rows(read(copy)):,} rows, {len(found[file])} columns")
        write(out / "results" / name / "digests.json", found)
    for name, study in studies.items():
        found = ids(study)
        write(out / "ids" / f"{name}.json", found)
        print(f"ids of {name}: " + ", ".join(f"{len(one['rows']):,} {part}" for part, one in found.items()))
    return 0


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rows(table: Table) -> int:
    return max((len(one.cells) for one in table.values()), default=0)


def compare(out: Path, folders: dict[str, Path], studies: dict[str, str]) -> int:
    total = 0
    for name, folder in folders.items():
        old = out / "results" / name
        if not old.is_dir():
            return unable(f"{old} is not there: {name} was never frozen")
        frozen = json.loads((old / "digests.json").read_text(encoding="utf-8"))
        for file in dict.fromkeys([*frozen, *files(folder)]):
            if file in frozen and digests(read(old / file)) != frozen[file]:
                return unable(f"{old / file} is no longer what was frozen")
            total += told(f"{name}/{file}", list(of_files(old / file, folder / file)))
    for name, study in studies.items():
        path = out / "ids" / f"{name}.json"
        if not path.exists():
            return unable(f"{path} is not there: the ids of {name} were never frozen")
        old, new = json.loads(path.read_text(encoding="utf-8")), ids(study)
        for part in new:
            both = [of_texts(one[part]["columns"], one[part]["rows"]) for one in (old, new)]
            total += told(f"ids of {name}, {part}", list(differences(*both)))
    for kind, given in (("results", folders), ("ids", studies)):
        left = sorted(one.stem for one in (out / kind).glob("*") if one.stem not in given)
        if left:
            print(f"not compared, though frozen: {kind} of {', '.join(left)}")
    print(f"{total} differences")
    return int(total > 0)


def of_files(old: Path, new: Path) -> Iterator[str]:
    """The differences of two files."""
    if not (old.exists() and new.exists()):
        yield "is new" if new.exists() else "is missing"
        return
    found = list(differences(read(old), read(new)))
    yield from found
    if not found and old.suffix != ".parquet" and old.read_bytes() != new.read_bytes():
        yield "the same values, but not the same bytes: quotes, spaces or ends of lines differ"


def differences(old: Table, new: Table) -> Iterator[str]:
    """What differs, in words; each cell, column or missing row is one difference."""
    yield from (f"column {name} is missing" for name in old if name not in new)
    yield from (f"column {name} is new" for name in new if name not in old)
    shared = [name for name in old if name in new]
    if shared != [name for name in new if name in old]:
        yield f"columns have another order: {', '.join(old)} → {', '.join(new)}"
    before, after = rows(old), rows(new)
    for row in range(min(before, after), max(before, after)):
        yield f"row {row} is {'missing' if before > after else 'new'} ({before:,} → {after:,} rows)"
    for name in shared:
        one, other = old[name], new[name]
        if one.kind != other.kind:
            yield f"column {name} has another type, so its values are not compared: {one.kind} → {other.kind}"
            continue
        for row, (was, now) in enumerate(zip(one.cells, other.cells, strict=False)):
            if was != now:
                yield f"row {row} ({named(old, row)}), column {name}: {change(was, now, one.element)}"


def named(table: Table, row: int) -> str:
    """The row, by what a person knows it by."""
    found = ((key, table[key].cells[row]) for key in KEYS if key in table)
    return ", ".join(f"{key} {value}" for key, value in found if value not in (None, "")) or "no key"


def change(was: Any, now: Any, element: np.dtype | None) -> str:
    if element is None or was is None or now is None:
        return f"{shown(was, element)} → {shown(now, element)}"
    old, new = np.frombuffer(was, element), np.frombuffer(now, element)
    if len(old) != len(new):
        return f"{len(old):,} → {len(new):,} numbers"
    bits = f"u{element.itemsize}"
    apart = np.flatnonzero(old.view(bits) != new.view(bits))
    first = apart[0]
    return f"{len(apart):,} of {len(old):,} numbers, first number {first}: {shown(old[first])} → {shown(new[first])}"


def shown(value: Any, element: np.dtype | None = None) -> str:
    if value is None:
        return "null"
    if element is not None:
        return f"a list of {len(value) // element.itemsize:,} numbers"
    text = number(value) if isinstance(value, np.floating) else str(value)
    return (text if len(text) <= WIDTH else text[:WIDTH] + "…") or "nothing"


def told(name: str, found: list[str]) -> int:
    """Print the differences of one table. Returns how many there are."""
    print(f"{name}: {len(found)} differences")
    for one in found[:SHOWN]:
        print(f"    {one}")
    if len(found) > SHOWN:
        print(f"    and {len(found) - SHOWN:,} more")
    return len(found)


def unable(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command in (freeze, compare):
        one = commands.add_parser(command.__name__)
        one.set_defaults(run=command)
        one.add_argument("out", type=Path)
        one.add_argument("folders", type=Path, nargs="+", metavar="RESULTS_FOLDER")
        one.add_argument("--ids", nargs="+", default=[], metavar="STUDY")
    chosen = parser.parse_args()
    folders = {folder.resolve().name: folder for folder in chosen.folders}
    studies = {Path(study).stem: study for study in chosen.ids}
    if len(folders) < len(chosen.folders) or len(studies) < len(chosen.ids):
        return unable("two of the folders, or of the studies, have one name")
    return chosen.run(chosen.out, folders, studies)


if __name__ == "__main__":
    sys.exit(main())
