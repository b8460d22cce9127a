"""What every study whose tables are in the repository is held to."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from deltaball.plan.plan import Plan
from deltaball.run import merging, pieces
from deltaball.tables import frames
from deltaball.workflow import stages


def assert_complete(plan: Plan) -> None:
    """Every planned network is trained and measured, on data that the catalogue knows, by committed code."""
    networks, robustness = frames.load(plan)
    assert set(networks["status"]) == {"trained"}
    seen = set(networks[["dataset", "data_sha256"]].itertuples(index=False, name=None))
    assert seen == {(name, facts.fingerprint) for name, facts in plan.facts.items()}
    assert merging.lacking(plan, pieces.of_folder(plan.study.folder)) == set()
    assert len(robustness) == sum(len(plan.measures_of(network)) for network in plan.networks)
    assert "-dirty" not in (plan.study.folder / "PROVENANCE.md").read_text()


def assert_made_of(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """The tables in the folder are the given ones: their words to the letter, their numbers to rounding."""
    for name, made in tables.items():
        shipped = pd.read_csv(folder / f"tables/{name}.csv")
        words = [column for column in made if made[column].dtype.kind not in "fiu"]
        said = made[words].astype("str").replace({"None": "nan", "<NA>": "nan"})
        assert said.equals(shipped[words].astype("str")), name
        numbers = [column for column in made if column not in words]
        pd.testing.assert_frame_equal(
            made[numbers].astype(float), shipped[numbers].astype(float), rtol=1e-6, atol=1e-9, check_dtype=False
        )


def assert_drawn(plan: Plan) -> None:
    """Every figure of the study is there, and what is in the folder itself stays small."""
    for name in stages.figures(plan):
        for kind in ("png", "svg", "csv"):
            assert (plan.study.folder / f"figures/{name}.{kind}").stat().st_size > 0
    left_out = Path(".gitignore").read_text().split()
    kept = [path for path in plan.study.folder.glob("*.*") if f"/{path}" not in left_out]
    assert sum(path.stat().st_size for path in kept) < 6e6
