"""Do the rows of a table say enough to train their networks again? 20 of them, drawn at random, from their rows alone.

    .venv/bin/python benchmarks/retraining.py [STUDY] [NETWORKS] [SEED]

Reads networks.parquet and robustness.parquet of STUDY (studies/small-paper.yaml), draws NETWORKS (20) of the trained
networks by SEED (0), from each grid about as many, writes a study of their hyper-parameters alone into an empty folder,
and trains and measures it there with `deltaball run`, on the same test points. Of the study itself only the data
folder, ε, the confidence and the seed of the points are used. Fails unless every network has its id again, an accuracy
within 1 point, and every R of an attack within a margin that is fixed before anything is trained: 2.8 standard
deviations between networks that differ in their seed alone, pooled over the groups of such networks in the table, the
largest over the measures; of a study that repeats no seed, those of small-paper. Two networks of different seeds lie
closer together than that 19 times out of 20 (the reproducibility limit of ISO 5725), so a retrained network must at
least be as close as that. On a processor of the same make it is the same, bit for bit: each row says which one trained
it first.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from deltaball.base.hardware import processor
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.study.grids import all_axes
from deltaball.tables import frames

os.environ.setdefault("OMP_NUM_THREADS", "1")

ACCURACY_MARGIN = 0.01
REPRODUCIBILITY = 2.8  # 1.96 √2
SEEDS = Path("studies/small-paper.yaml")  # what repeats seeds


def main() -> None:
    given = dict(enumerate(sys.argv))
    study, count, seed = Path(given.get(1, "studies/small-paper.yaml")), int(given.get(2, 20)), int(given.get(3, 0))
    plan = loading.planned(study)
    networks, robustness = tables(plan)
    spread = spread_of_seeds(networks, robustness)
    if spread is None:
        spread = spread_of_seeds(*tables(loading.planned(SEEDS)))
    if spread is None:
        sys.exit(f"no two networks of {study} or {SEEDS} differ in their seed alone: no margin can be had from them")
    margin = REPRODUCIBILITY * spread
    print(f"margins: {ACCURACY_MARGIN} in accuracy, {margin:.3f} in R; this is a {processor()}", flush=True)
    drawn = drawn_evenly(networks[networks["status"] == "trained"], count, seed)
    asked = robustness[robustness["network_id"].isin(drawn["network_id"])]
    with tempfile.TemporaryDirectory() as name:
        again, estimates = retrained(plan, drawn, asked, Path(name))
    sys.exit(compared(drawn, again, asked, estimates, margin))


def tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Networks, and what FGSM and PGD leave of R."""
    networks, robustness = frames.load(plan)
    robustness = robustness[robustness["notion"].isin(["class_change", "variation_above"])]
    return networks, robustness[robustness["attack"].isin(["fgsm", "pgd"])]


def drawn_evenly(networks: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many rows in random order, one grid after the other in turns."""
    shuffled = networks.iloc[np.random.default_rng(seed).permutation(len(networks))]
    turns = shuffled.groupby("grid").cumcount().to_numpy()
    return shuffled.iloc[np.argsort(turns, kind="stable")[:count]]


def spread_of_seeds(networks: pd.DataFrame, robustness: pd.DataFrame) -> float | None:
    """The standard deviation of R between networks that differ in their seed alone; of the measure that has most.

    None if there are no such networks.
    """
    axes = [name for name in ["dataset", "method", "architecture", *all_axes()] if name != "seed"]
    rows = robustness.merge(networks[["network_id", *axes]], on="network_id")
    groups = rows.groupby(["measure", *axes], dropna=False)["estimate"].agg(["var", "count"])
    groups = groups[groups["count"] > 1]
    if groups.empty:
        return None
    weighted = (groups["var"] * (groups["count"] - 1)).groupby("measure").sum()
    return float(np.sqrt(weighted / (groups["count"] - 1).groupby("measure").sum()).max())


def retrained(plan: Plan, drawn: pd.DataFrame, asked: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of the drawn networks, trained and measured again."""
    grids = []
    for number, row in enumerate(drawn.to_dict("records")):
        axes = {name: row[name] for name in all_axes() if not pd.isna(row[name])}
        places = {name: row[name] for name in ("dataset", "method", "architecture")}
        grids.append({"name": f"row{number}", **places, **axes})
    grid_of = {identity: grid["name"] for identity, grid in zip(drawn["network_id"], grids, strict=True)}
    measures = []
    for key, rows in asked.groupby(["notion", "gamma", "norm", "delta", "attack"], dropna=False):
        named = dict(zip(["notion", "gamma", "norm", "delta", "attack"], key, strict=True))
        only = {"grid": [grid_of[identity] for identity in rows["network_id"]]}
        measures.append({**{name: one for name, one in named.items() if not pd.isna(one)}, "only": only})
    content = {
        "study": "again",
        "data": str(Path(plan.study.data).resolve()),
        "guarantee": plan.study.guarantee.model_dump(),
        "measures": measures,
        "grids": grids,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    subprocess.run([sys.executable, "-m", "deltaball", "run"], cwd=folder, check=True)
    found = folder / "results/again"
    return pd.read_parquet(found / "networks.parquet"), pd.read_parquet(found / "robustness.parquet")


def compared(
    drawn: pd.DataFrame, again: pd.DataFrame, asked: pd.DataFrame, estimates: pd.DataFrame, margin: float
) -> int:
    """Print how far apart both are; the exit status, 1 where it is too far."""
    pairs = drawn.merge(again, on="network_id", how="left", suffixes=("", "_again"))
    accuracy = (pairs["test_accuracy_again"] - pairs["test_accuracy"]).abs()
    keys = ["network_id", "measure"]
    both = asked.merge(estimates[[*keys, "estimate"]], on=keys, how="left", suffixes=("", "_again"))
    apart = (both["estimate_again"] - both["estimate"]).abs()
    of_network = apart.groupby(both["network_id"]).max()
    for row, difference in zip(pairs.to_dict("records"), accuracy, strict=True):
        identity = row["network_id"]
        print(
            f"{identity}  {row['grid']:6}  accuracy {row['test_accuracy']:.4f}, apart {difference:.4f}  "
            f"R apart {of_network.get(identity, float('nan')):.4f}  first {row['device']}, now {row['device_again']}"
        )
    missing = int(accuracy.isna().sum() + apart.isna().sum())
    far = int((accuracy > ACCURACY_MARGIN).sum() + (apart > margin).sum())
    print(
        f"{len(pairs)} networks, {len(both)} estimates of R: {int((accuracy == 0).sum())} accuracies and "
        f"{int((apart == 0).sum())} estimates are equal; the farthest are {accuracy.max():.4f} and {apart.max():.4f} "
        f"apart; {far} too far, {missing} missing"
    )
    return int(bool(far or missing))


if __name__ == "__main__":
    main()
