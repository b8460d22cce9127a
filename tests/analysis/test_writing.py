"""Every study ends in tables, figures and a report, whatever varies in it and whatever became of its networks."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import FILES, grid, planned
from drawn_figures import draw_all, drawn, page_without_pictures
from pydantic import TypeAdapter
from synthetic_tables import write_tables

from deltaball.analysis import writing
from deltaball.plan.plan import Plan
from deltaball.study.grids import combinations, grid_model
from deltaball.study.methods import METHODS
from deltaball.study.objectives import DEFAULT
from deltaball.tables import frames
from deltaball.workflow import stages

FEW = {"guarantee": {"epsilon": 0.2, "confidence": 0.95}, "measures": [{"notion": "class_change", "delta": 0.1}]}
ALONG = {"epochs": 5, "posterior_samples": 100}  # one each, where they do not vary
NOTHING = {"test_accuracy": np.nan, "train_accuracy": np.nan, "test_loss": np.nan, "trunk_accuracy": np.nan}


@pytest.fixture(autouse=True)
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: test\n")


TRANSFER = {"name": "clean", "dataset": "mnist5k", "corrupted_images": 0}


def constant(architecture: str, method: str, **changed: Any) -> dict[str, Any]:
    """A grid of one network, but for what is changed."""
    names = grid_model(architecture, method).axis_names()
    return grid(architecture, method, **{name: ALONG[name] for name in names if name in ALONG} | changed)


def two_values(architecture: str, method: str, axis: str) -> list[Any]:
    """Two values that an axis may have."""
    if axis == "file":
        return [str(FILES / name) for name in ("one.safetensors", "other.safetensors")]
    if axis == "transfer":
        return ["none", TRANSFER["name"]]
    if axis == "schedule":
        return ["constant", "step(1; 0.1)"]
    annotation = grid_model(architecture, method).model_fields[axis].annotation
    schema = str(TypeAdapter(annotation).json_schema())
    named = re.search(r"'enum': \[([^\]]+)\]", schema)
    if named:
        return [one.strip(" '") for one in named[1].split(",")][:2]
    return [1, 2] if "'integer'" in schema else [0.1, 0.2]


def axes() -> Iterator[tuple[str, str, str]]:
    """Every axis once of each method that declares it, and once of any architecture, with both."""
    seen = set()
    for architecture, method, objective in combinations():
        for axis in grid_model(architecture, method, objective).axis_names():
            owner = next((one for one in METHODS[method].__mro__ if axis in vars(one).get("__annotations__", ())), None)
            if objective == DEFAULT and axis != "objective" and (owner, axis) not in seen:
                seen.add((owner, axis))
                yield architecture, method, axis


def tables_of(plan: Plan) -> dict[str, pd.DataFrame]:
    """The statistical tables, written and read."""
    writing.write_tables(plan)
    return {name: pd.read_csv(plan.study.folder / f"tables/{name}.csv") for name in stages.TABLES}


@pytest.mark.parametrize(("architecture", "method", "axis"), axes())
def test_an_axis_that_varies_alone_has_tables(architecture: str, method: str, axis: str, tmp_path: Path) -> None:
    key = grid_model(architecture, method).model_fields[axis].alias or axis
    varied = constant(architecture, method, **{key: two_values(architecture, method, axis)})
    transfers = [TRANSFER] if axis == "transfer" else []
    plan = planned(varied, results=str(tmp_path), transfers=transfers, **FEW)
    assert len(plan.networks) == 2
    write_tables(plan)
    tables = tables_of(plan)
    terms = tables["regressions"]["term"].str.partition(":")[0]
    assert axis in set(terms)
    assert tables["correlations"]["networks"].max() == 2


def test_a_study_whose_one_axis_has_three_values_is_drawn_and_reported(tmp_path: Path) -> None:
    """filters: [4, 6, 8], one epoch, one seed: as a first study is."""
    plan = planned(constant("cnn", "sgd", filters=[4, 6, 8]), results=str(tmp_path), **FEW)
    write_tables(plan)
    said = draw_all(plan)
    assert "3 of 3" in said or "3 networks" in said
    scored = pd.read_csv(plan.study.folder / "tables/scorecard.csv").set_index("claim")
    why = scored.loc["capacity_and_training_matter_most", "why"]
    assert "no other hyper-parameter varies, or one of these does not" in why.iloc[-1]


@pytest.mark.parametrize("method", METHODS)
def test_one_network_has_tables_figures_and_a_report(method: str, tmp_path: Path) -> None:
    (architecture, *_) = METHODS[method].architectures or ("fcn",)
    plan = planned(constant(architecture, method), results=str(tmp_path), **FEW)
    assert len(plan.networks) == 1
    write_tables(plan)
    draw_all(plan)
    assert tables_of(plan)["completeness"][["networks", "measured"]].to_numpy().tolist() == [[1, 1]]


# ---- what may have become of the networks


def diverged(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return networks.assign(status="diverged", reason="its loss is not finite", **NOTHING), robustness[:0]


def failed(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    absent = dict.fromkeys(("data_sha256", "software", "device"))
    return networks.assign(status="failed", reason="out of memory", **NOTHING, **absent), robustness[:0]


def only_one_trained(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    others, _ = diverged(networks[1:], robustness)
    return pd.concat([networks[:1], others]), robustness[robustness["network_id"] == networks["network_id"].iloc[0]]


def one_data_set_diverged(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    bad = networks["dataset"] == "cifar10"
    lost, _ = diverged(networks[bad], robustness)
    return pd.concat([networks[~bad], lost]), robustness[~robustness["network_id"].isin(lost["network_id"])]


def not_measured(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return networks, robustness[:0]


def stuck(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    chains = networks["method"] == "hmc"
    found = {"status": "stuck", "acceptance": 0.0, "energies": "100.0"}
    return networks.assign(**{name: networks[name].where(~chains, value) for name, value in found.items()}), robustness


def all_robust(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    trunks = robustness["trunk_estimate"].where(robustness["trunk_estimate"].isna(), 1.0)
    return networks, robustness.assign(estimate=1.0, trunk_estimate=trunks)


def none_robust(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    trunks = robustness["trunk_estimate"].where(robustness["trunk_estimate"].isna(), 0.0)
    return networks, robustness.assign(estimate=0.0, trunk_estimate=trunks)


def all_accurate(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return networks.assign(test_accuracy=1.0, train_accuracy=1.0), robustness


def none_accurate(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return networks.assign(test_accuracy=0.0, train_accuracy=0.0), robustness


def on_a_line(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    accuracy = networks.set_index("network_id")["test_accuracy"]
    return networks, robustness.assign(estimate=1 - robustness["network_id"].map(accuracy))


def without_trunks(networks: pd.DataFrame, robustness: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return networks.assign(trunk_accuracy=np.nan), robustness.assign(trunk_estimate=np.nan)


Fate = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]
FATES: list[Fate] = [diverged, failed, only_one_trained, one_data_set_diverged, not_measured, stuck, all_robust]
FATES += [none_robust, all_accurate, none_accurate, on_a_line, without_trunks]


def of_every_method(folder: Path, **changed: Any) -> Plan:
    """Networks of every method, enough of them to be tested, and a second data set."""
    grids = [
        grid(name="one", width=[8, 16], seed=[0, 1, 2], epochs=[5, 10]),
        grid("fcn", "imp", name="two", proportion=[0.5, 0.9], seed=[0, 1, 2, 3, 4]),
        grid("fcn", "hmc", name="three", width=[8, 16], seed=[0, 1, 2]),
        grid("cnn", name="four", dataset="cifar10", filters=[4, 8], epochs=5),
    ]
    return planned(*grids, **{"results": str(folder), **FEW, **changed})


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: fate.__name__)
def test_whatever_became_of_the_networks_there_are_tables_and_a_report(fate: Fate, tmp_path: Path) -> None:
    plan = of_every_method(tmp_path)
    write_tables(plan)
    paths = [plan.study.folder / f"{name}.parquet" for name in ("networks", "robustness")]
    networks, robustness = fate(*map(frames.read, paths))
    for table, path in zip((networks, robustness), paths, strict=True):
        frames.write(table, path)
    tables = tables_of(plan)
    assert tables["completeness"]["networks"].sum() == len(plan.networks)
    assert tables["completeness"]["measured"].sum() == robustness["network_id"].nunique()
    assert tables["regressions"]["p"].dropna().between(0, 1).all()
    assert tables["correlations"][["pearson", "pearson_lower", "pearson_upper"]].stack().dropna().between(-1, 1).all()
    page_without_pictures(plan)


@pytest.mark.parametrize("fate", [only_one_trained, all_robust], ids=lambda fate: fate.__name__)
def test_whatever_became_of_the_networks_there_are_figures(fate: Fate, tmp_path: Path) -> None:
    plan = of_every_method(tmp_path)
    write_tables(plan)
    paths = [plan.study.folder / f"{name}.parquet" for name in ("networks", "robustness")]
    for table, path in zip(fate(*map(frames.read, paths)), paths, strict=True):
        frames.write(table, path)
    draw_all(plan)


# ---- what may be measured

ALONE = [
    {"notion": "class_change", "delta": 0.1, "norm": ["l2", "l1"], "attack": "pgd"},
    {"notion": "class_change", "delta": 0.1, "certificate": ["crown", "exact"]},
    {"notion": "softmax_variation", "delta": [0.05, 0.1], "attack": ["fgsm", "pgd"], "certificate": "crown"},
    {"notion": "variation_above", "delta": 0.1, "gamma": [0.3, 0.5]},
    {"notion": "margin", "delta": 0.1, "attack": "fmn"},
    {"notion": "class_change", "delta": 0.1, "only": {"method": "hmc"}},
]


@pytest.mark.parametrize(
    "measure", ALONE, ids=lambda one: f"{one['notion']}-{one.get('attack', one.get('certificate'))}"
)
def test_one_kind_of_measure_alone_has_tables_and_a_report(measure: dict[str, Any], tmp_path: Path) -> None:
    plan = of_every_method(tmp_path, measures=[measure])
    write_tables(plan)
    measures = {one.name for one in plan.measures}
    assert set(tables_of(plan)["correlations"]["measure"]) == measures
    page_without_pictures(plan)


@pytest.mark.parametrize("paper", ["004", "001"])
def test_kernels_alone_have_scores_and_a_report(paper: str, tmp_path: Path) -> None:
    entry = {"perturbation": "gaussian", "sigma": [0.1, 0.2]}
    asked = [{"notion": "class_change", **entry, "sampling": ["mean", "cvar"]}, {"notion": "classification", **entry}]
    plan = of_every_method(tmp_path, measures=asked, paper=paper)
    write_tables(plan)
    assert tables_of(plan)["correlations"].empty  # which are about the worst images of balls
    found = pd.read_csv(plan.study.folder / "tables/scores.csv")
    assert set(found["measure"]) == {one.name for one in plan.measures if one.notion == "class_change"}
    said = page_without_pictures(plan).read_text(encoding="utf-8")
    assert "Gaussian noise, σ = 0.1" in said
    assert "provided that Q keeps the" in said


def test_an_experiment_of_one_network_one_epsilon_and_two_draws_is_reported(tmp_path: Path) -> None:
    experiment = {"measure": FEW["measures"][0], "epsilon": 0.2, "draws": 2}
    plan = planned(constant("fcn", "sgd"), results=str(tmp_path), convergence=[experiment], **FEW)
    write_tables(plan)
    draw_all(plan)
    assert tables_of(plan)["convergence"]["draws"].tolist() == [2]


def test_a_network_that_several_rows_name_counts_once(tmp_path: Path) -> None:
    ways = {"proportion": [0.0, 0.5], "iterations": [1, 2], "ranking": ["global", "layer"], "seed": [0, 1, 2, 3, 4, 5]}
    plan = planned(grid("fcn", "imp", **ways), results=str(tmp_path), **FEW)
    write_tables(plan)
    tables = tables_of(plan)
    assert tables["completeness"][["networks", "measured"]].iloc[0].tolist() == [8 * 6, 8 * 6]
    for name in ("correlations", "regressions", "learned", "importances", "mixed", "diagnostics"):
        found = tables[name].query("networks_of == 'all'")
        assert set(found["networks"]) == {5 * 6}, name
    shown, said = drawn(plan, "figure3")
    assert len(shown) == 5 * 6
    assert "30 of 30 planned networks" in said
