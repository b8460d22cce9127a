"""A study by the notions of paper 001 and its three metrics, from training to the tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from few_study import STUDY, written

from deltaball.cli import main
from deltaball.run import collecting

DELTA = [0.01, 0.05]
LAYERED = {"certificate": ["ibp", "crown"]}
BOTH = {"delta": DELTA, "attack": ["fgsm", "pgd"], "sampling": "uniform", "steps": 8, "draws": 20}
MEASURES = [
    {"notion": "class_change", **BOTH, **LAYERED},
    {"notion": "classification", **BOTH, "certificate": ["crown", "exact"]},
    {"notion": "strong_classification", "eta": 0.3, **BOTH, **LAYERED},
    {"notion": "strong_classification", "eta": 0.3, "of": "logit", "reference": ["label", "predicted"], **BOTH},
    {"notion": "standard_robustness", "bound": [0.5, 2.0], "reference": ["output", "label"], **BOTH, **LAYERED},
    {"notion": "standard_robustness", "bound": 0.5, "distance": "l2", **BOTH, "certificate": "crown"},
    {"notion": "lipschitz_robustness", "lipschitz": [2.0, 40.0], **BOTH},
    {"notion": "softmax_variation", **BOTH},
]


@pytest.fixture(scope="module")
def results(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notions")
    grids = [{**STUDY["grids"][0], "epochs": [1, 8], "width": 16, "learning_rate": 0.2}]
    written(folder, data_folder, measures=MEASURES, grids=grids)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(collecting, "redraw", lambda *_: None)
        assert main.main(["run"]) == 0
    return folder / "results" / STUDY["study"]


@pytest.fixture(scope="module")
def values(results: Path) -> pd.DataFrame:
    """A row per network and measure with its outcomes as `values`."""
    outcomes = pd.read_parquet(results / "outcomes.parquet")
    rows = pd.read_parquet(results / "robustness.parquet")
    return rows.merge(outcomes, on=["network_id", "measure"], validate="one_to_one")


def stacked(rows: pd.DataFrame) -> np.ndarray:
    return np.stack(rows.sort_values("network_id")["values"].to_numpy())


def test_proven_is_below_attacked_and_both_below_the_mean_of_random_images(values: pd.DataFrame) -> None:
    of_shares = values[values["notion"] != "softmax_variation"]
    for (notion, _, _), members in of_shares.groupby(["notion", "gamma", "delta"], dropna=False):
        sampled = stacked(members[members["sampling"].notna()])
        for attack in members["attack"].dropna().unique():
            attacked = stacked(members[members["attack"] == attack])
            for certificate in members["certificate"].dropna().unique():
                proven = stacked(members[members["certificate"] == certificate])
                assert (np.where(np.isnan(proven), 0, proven) <= attacked).all(), notion
        # What is proven holds of every random image.
        for certificate in members["certificate"].dropna().unique():
            assert (sampled[stacked(members[members["certificate"] == certificate]) == 1] == 1).all(), notion


def test_an_attack_of_the_label_finds_what_one_of_the_prediction_finds(values: pd.DataFrame) -> None:
    """Where the two are the same class; elsewhere CR is violated by the point itself."""
    for delta in DELTA:
        names = [f"{notion}_linf_{delta!r}_pgd-8x2" for notion in ("classification", "class_change")]
        of_label, of_prediction = (stacked(values[values["measure"] == name]) for name in names)
        assert (of_label <= of_prediction).all()
        assert 0 < of_label.sum() < of_prediction.sum()


def test_each_metric_has_its_side_and_its_guarantee(values: pd.DataFrame) -> None:
    sampled = values[values["sampling"].notna()]
    assert set(sampled["sampling"]) == {"uniform-20"}
    assert sampled["attack"].isna().all()
    assert sampled["certificate"].isna().all()
    assert set(sampled.loc[sampled["notion"] != "softmax_variation", "side"]) == {"upper"}
    assert set(sampled.loc[sampled["notion"] == "softmax_variation", "side"]) == {"lower"}
    # N points, whatever the draws; the interval of shares of draws is one of numbers in [0, 1].
    assert set(values["samples"]) == {30}
    assert set(values["epsilon"]) == {0.25}
    assert set(sampled["tight_inequality"]) == {"betting"}
    whole_twentieths = np.concatenate(sampled.loc[sampled["notion"] == "classification", "values"].tolist()) * 20
    np.testing.assert_allclose(whole_twentieths, whole_twentieths.round(), atol=1e-4)


def test_curves_fall_and_have_no_samples(results: Path) -> None:
    curves = pd.read_parquet(results / "curves.parquet")
    assert {"classification", "strong_classification-logit", "standard_robustness-label"} <= set(curves["notion"])
    falling = curves[curves["notion"] != "softmax_variation"].sort_values("delta")
    for _, members in falling.groupby(["network_id", "notion", "gamma"], dropna=False):
        for side in ("attacked", "certified"):
            assert not (members[side].dropna().diff() > 0).any()


def test_what_cannot_be_asked_is_told_in_a_line(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for entry, expected in WRONG:
        written(tmp_path, data_folder, measures=[{"delta": 0.1, **entry}])
        assert main.main(["plan"]) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1


WRONG = [
    ({"notion": "strong_classification"}, "missing key 'eta'"),
    ({"notion": "strong_classification", "eta": 1.0}, "eta: 1.0 is wrong: input should be less than 1"),
    ({"notion": "standard_robustness", "bound": 0}, "bound: 0 is wrong"),
    ({"notion": "standard_robustness", "bound": 1, "reference": "predicted"}, "'predicted' is not known"),
    ({"notion": "lipschitz_robustness", "lipschitz": 1, "reference": "label"}, "unknown key 'reference'"),
    ({"notion": "lipschitz_robustness", "lipschitz": 1, "certificate": "exact"}, "what class an image is of"),
    ({"notion": "lipschitz_robustness", "lipschitz": 1, "delta": [0.1, 0.001]}, "compares no images closer than 0.001"),
    ({"notion": "strong_classification", "eta": 0.5, "certificate": "exact"}, "softmax is not piecewise linear"),
    ({"notion": "standard_robustness", "bound": 1, "certificate": "exact"}, "what class an image is of"),
    ({"notion": "standard_robustness", "bound": 1, "attack": "fmn"}, "what it looks for is another class"),
    ({"notion": "classification", "norm": "l2", "sampling": "uniform"}, "in linf alone; possible: linf"),
    ({"notion": "classification", "draws": 10}, "draws 10 is for one of uniform"),
    ({"notion": "margin", "sampling": "uniform"}, "it is a distance"),
]
