"""From tables, statistics and pictures to one page that opens anywhere."""

import base64
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

import deltaball
from deltaball import stages, tables
from deltaball.analysis import judges
from deltaball.analysis.bayes import ESS, RHAT, converged
from deltaball.analysis.completeness import STATUSES
from deltaball.analysis.enclosures import LEVEL, ROUNDING
from deltaball.errors import InputError
from deltaball.guarantees import spoken
from deltaball.plan import Plan
from deltaball.store import written_whole
from deltaball.study import all_axes

DRAWN_WITH = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib", "seaborn")
MISSING_SHOWN = 200
ENCLOSURES_SHOWN = 500
WORST_SHOWN = 5
INEQUALITIES = {"clopper_pearson": "Clopper–Pearson, for R", "betting": "betting, for D and M"}


def write(plan: Plan, study_path: Path) -> Path:
    """Write ``report.html``: everything inlined, nothing fetched. Returns its path.

    Raises InputError when a table or figure it shows is missing.
    """
    folder = plan.study.folder
    networks, robustness = tables.load(plan)
    measured = tables.measured(networks, robustness)
    found = {name: _csv(folder / "tables" / f"{name}.csv") for name in stages.TABLES}
    enclosed = found["enclosures"].dropna(subset="epsilon")
    correlations, other_correlations = _parted(found["correlations"], measured)
    regressions, other_regressions = _parted(found["regressions"], measured)
    figures = {name: _inlined(folder / "figures" / f"{name}.png") for name in stages.figures(plan)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deltaball", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "p_value": _p_value,
        "share": _share,
        "by": judges.spoken,
        "general": "{:g}".format,
    }
    page = environment.get_template("report.html.jinja").render(
        study=plan.study,
        guarantee=_guarantee(robustness),
        tight=_tight(robustness),
        attacks=judges.joined(robustness["attack"]),
        certificates=judges.joined(robustness["certificate"]),
        saturated=_saturated(robustness),
        completeness=_records(found["completeness"]),
        correlations=_side_by_side(correlations),
        other_correlations=_side_by_side(other_correlations),
        accuracy_from=dict(found["correlations"].groupby("dataset")["accuracy_from"].max()),
        on_accuracy=_terms(regressions, True),
        on_axes=_terms(regressions, False),
        other_regressions=_terms(other_regressions, True) + _terms(other_regressions, False),
        regressions=len(found["regressions"]),
        monotonicity=_records(found["monotonicity"]),
        bayes=_records(found["bayes"]),
        chains=_chains(networks),
        chain_figures=_of_kind(figures, "chains"),
        rhat=RHAT,
        ess=ESS,
        pruning=_records(found["pruning"]),
        pruning_tests=_records(found["pruning_tests"]),
        figures=_of_kind(figures, "tradeoff", "bayes", "pruning"),
        enclosures=_summary(enclosed),
        enclosed=_records(enclosed),
        enclosure_figures=_of_kind(figures, "enclosure"),
        convergence=_records(found["convergence"]),
        convergence_figures=_of_kind(figures, "convergence"),
        source=study_path.read_text(encoding="utf-8"),
        source_name=study_path.name,
        data=_data(plan, networks),
        software=sorted(networks["software"].dropna().unique()),
        devices=sorted(networks["device"].dropna().unique()),
        drawn=[f"deltaball {deltaball.__version__}", f"Python {platform.python_version()}"]
        + [f"{name} {version(name)}" for name in DRAWN_WITH],
        missing=_missing(networks, robustness),
        jobs=_jobs(found["jobs"]),
        unfinished=_records(found["jobs"][found["jobs"]["status"].isin(["partial", "failed"])]),
        networks=len(networks),
        trained=int((networks["status"] == "trained").sum()),
        measured=robustness["network_id"].nunique(),
        statuses=STATUSES,
        shown=MISSING_SHOWN,
        enclosures_shown=ENCLOSURES_SHOWN,
        worst_shown=WORST_SHOWN,
    )
    path = folder / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _csv(path: Path) -> pd.DataFrame:
    # A grid may be called 01 or NA; only an empty cell is null.
    text = dict.fromkeys(("network_id", "grid", "dataset", "measure", "notion", "term", "proportion"), str)
    text |= dict.fromkeys(("norm", "attack", "certificate"), str)
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=text)
    except FileNotFoundError:
        raise InputError(f"{path} is not there; `deltaball analyse` makes it") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; `deltaball analyse` makes it again") from None
    if "dataset" not in table or ("regressions" in path.name and "term" not in table):
        raise InputError(f"{path} is damaged; `deltaball analyse` makes it again")
    return table


def _inlined(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path} is not there; `deltaball figures` makes it")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _guarantee(robustness: pd.DataFrame) -> dict[str, Any] | None:
    """What the rows themselves promise; None when there are none."""
    if robustness.empty:
        return None
    epsilon = (robustness["epsilon"] / _ranges(robustness)).round(12)
    return {
        "epsilon": _span(epsilon, "{:g}".format),
        "confidence": _span(robustness["confidence"], spoken),
        "samples": _span(robustness["samples"], "{:,}".format),
        "margins": (robustness["notion"] == "margin").any(),
    }


def _ranges(rows: pd.DataFrame) -> pd.Series:
    """How far a measure's outcomes can lie apart: a margin's by δ, all others' by 1."""
    return rows["delta"].where(rows["notion"] == "margin", 1.0)


def _span(values: pd.Series, written: Callable[[Any], str]) -> str:
    low, high = written(values.min()), written(values.max())
    return low if low == high else f"{low} to {high}"


def _tight(robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Per inequality that reads the outcomes: median half-widths of its intervals and of Hoeffding's beside them."""
    rows = robustness.dropna(subset=["tight_lower", "tight_upper"])
    halves = pd.DataFrame(
        {
            "inequality": rows["tight_inequality"].map(INEQUALITIES),
            "tight": (rows["tight_upper"] - rows["tight_lower"]) / _ranges(rows) / 2,
            "hoeffding": (rows["upper"] - rows["lower"]) / _ranges(rows) / 2,
        }
    )
    return _records(halves.groupby("inequality").median().reset_index())


def _saturated(robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Per attack that had no gradient somewhere: how many networks and points, and the worst networks."""
    rows = []
    for attack, members in robustness.dropna(subset="attack").groupby("attack"):
        # Measures share their points: the worst of them counts.
        found = members.sort_values("no_gradient").drop_duplicates("network_id", keep="last")
        without = found[found["no_gradient"] > 0].sort_values(["no_gradient", "network_id"], ascending=[False, True])
        if len(without):
            worst = _records(without[["network_id", "no_gradient", "samples"]].head(WORST_SHOWN))
            points = {"points": int(without["no_gradient"].sum()), "of_points": int(without["samples"].sum())}
            rows.append({"attack": attack, "networks": len(without), "of": len(found), **points, "worst": worst})
    return sorted(rows, key=lambda row: judges.strength(row["attack"]))


def _parted(table: pd.DataFrame, measured: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table's rows of the attack that the figures show, and the others; all are shown where nothing is attacked."""
    chosen = judges.judged(measured)
    shown = pd.MultiIndex.from_frame(table[["dataset", "measure"]]).isin(
        pd.MultiIndex.from_frame(chosen[["dataset", "measure"]])
    )
    shown |= ~table["dataset"].isin(chosen["dataset"]).to_numpy()
    return table[shown], table[~shown]


def _terms(regressions: pd.DataFrame, accuracy: bool) -> list[dict[str, Any]]:
    there = (regressions["term"] == "test_accuracy") == accuracy
    return _records(regressions[there & (regressions["networks_of"] == "all")])


def _of_kind(figures: dict[str, str], *kinds: str) -> list[tuple[str, str]]:
    return [(name, image) for name, image in figures.items() if name.partition("_")[0] in kinds]


def _summary(enclosed: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set × notion × norm × γ × δ: networks, medians of both sides and their gap, how many are decided."""
    rows = []
    for key, members in enclosed.groupby(["dataset", *LEVEL], sort=False, dropna=False):
        medians = members[["certified", "attacked", "gap", "open", "fgsm"]].median()
        decided = int((members["gap"] < ROUNDING).sum())
        counts = {"networks": len(members), "decided": decided}
        rows.append({**dict(zip(["dataset", *LEVEL], key, strict=True)), **medians, **counts})
    return rows


def _side_by_side(correlations: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per group with the columns of all networks and, as `learned`, those of the networks that learned."""
    keys = ["dataset", "method", "architecture", "measure"]
    learned = correlations[correlations["networks_of"] == "learned"].set_index(keys).to_dict("index")
    every = correlations[correlations["networks_of"] == "all"]
    return [{**row, "learned": learned[tuple(row[key] for key in keys)]} for row in _records(every)]


def _data(plan: Plan, networks: pd.DataFrame) -> list[dict[str, Any]]:
    """Per data set, the hashes of the arrays that its networks were trained on (one, unless something is wrong)."""
    hashes = networks.dropna(subset="data_sha256").groupby("dataset")["data_sha256"].unique()
    return [
        {"name": name, "train": facts.train, "test": facts.test, "sha256": sorted(hashes.get(name, []))}
        for name, facts in plan.facts.items()
    ]


def _missing(networks: pd.DataFrame, robustness: pd.DataFrame) -> list[dict[str, Any]]:
    """Every network without a measure: its id, grid, hyper-parameters and why."""
    absent = networks[~networks["network_id"].isin(robustness["network_id"])]
    rows = []
    for row in _records(absent):
        axes = ", ".join(f"{axis} {row[axis]}" for axis in all_axes() if not pd.isna(row[axis]))
        why = "not measured" if row["status"] == "trained" else row["status"]
        if not pd.isna(row["reason"]):
            why += f": {row['reason']}"
        rows.append({"id": row["network_id"], "grid": row["grid"], "axes": axes, "why": why})
    return rows


def _jobs(jobs: pd.DataFrame) -> list[dict[str, Any]]:
    """Per stage × host × device: how many runs of jobs, what they took in all, and the largest memory of one."""
    rows = []
    for key, runs in jobs[jobs["status"] != "running"].groupby(["stage", "host", "device"], dropna=False):
        hours = {"wall": runs["wall_seconds"].sum() / 3600, "device_hours": runs["device_seconds"].sum() / 3600}
        rows.append(
            {
                **dict(zip(("stage", "host", "device"), key, strict=True)),
                "runs": len(runs),
                "failed": int((runs["status"] == "failed").sum()),
                **hours,
                "memory": runs["memory_mb"].max(),
                "device_memory": runs["device_memory_mb"].max(),
            }
        )
    return rows


def _chains(networks: pd.DataFrame) -> list[dict[str, Any]]:
    """The longest network of every chain that has been sampled, and whether the chain has converged by then."""
    sampled = networks[networks["acceptance"].notna()].assign(converged=converged(networks))
    return _records(sampled.sort_values("posterior_samples").groupby("trajectory_id", sort=False).tail(1).sort_index())


def _number(value: float, digits: int = 2) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _p_value(value: float) -> str:
    if pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f} %"
