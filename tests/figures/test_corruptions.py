"""The heat map of corruptions and the curves over severities."""

from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned
from corrupted_tables import measured
from matplotlib import rcParams

from deltaball.analysis.corruptions import corruptions as table
from deltaball.figures import adaptations, corruptions, style
from deltaball.study.corruptions import FIFTEEN
from deltaball.workflow import stages

GRIDS = [grid(name="one", epochs=5), grid("cnn", name="two", epochs=5)]
PLAN = planned(
    *GRIDS,
    measures=[
        {"notion": "class_change", "perturbation": ["identity", "fog", "stripe", "mnist_c"]},
        {"notion": "classification", "perturbation": ["fog", "mnist_c"]},
        {"notion": "classification", "perturbation": "shear", "severity": [1, 3, 5]},
    ],
)
ESTIMATES = {"classification_fog_mean-1": (0.234, 0.876), "class_change_stripe_mean-1": (0.111, 0.456)}
NAMES = {"corruptions_mnist5k": corruptions.heat_map, "severities_mnist5k": corruptions.severities}


def drawn(name: str, folder: Path, shown: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The figure's CSV, and what its SVG says."""
    networks = pd.DataFrame([one.groups for one in PLAN.networks])
    style.use()
    rcParams["svg.fonttype"] = "none"
    NAMES[name](name, plan=PLAN, networks=networks, corrupted=shown, folder=folder)
    said = (folder / f"{name}.svg").read_text()
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.stat().st_size > 1 else pd.DataFrame(), said


def test_the_heat_map_has_a_row_per_kind_and_a_column_per_corruption(tmp_path: Path):
    shown, said = drawn("corruptions_mnist5k", tmp_path, table(measured(PLAN, ESTIMATES), PLAN))
    assert set(shown["corruption"]) == {"identity", "fog", "stripe", "mnist_c"}
    for text in ("agreement with the clean prediction", "accuracy", "mean of 15", "CNN", "FCN", "2 of 2 planned"):
        assert text in said
    for number in ("23", "88", "11", "46"):
        assert f">{number}<" in said
    assert "Under corruption agreement is lowest under stripe, 28 % on average over kinds" in " ".join(said.split())


def test_curves_are_of_corruptions_with_several_severities(tmp_path: Path):
    shown, said = drawn("severities_mnist5k", tmp_path, table(measured(PLAN, ESTIMATES), PLAN))
    assert set(shown["corruption"]) == {"shear"}
    assert set(shown["severity"]) == {1, 3, 5}
    assert "shear, accuracy" in said


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_measured_a_figure_says_so(name: str, tmp_path: Path):
    nothing = table(measured(PLAN, ESTIMATES).iloc[:0], PLAN)
    assert "0 of 2 planned networks: nothing is measured yet." in drawn(name, tmp_path, nothing)[1]


def test_accuracy_is_drawn_over_the_corrupted_images_seen(tmp_path: Path):
    adapted = {"adaptation": "coral", "corruption": [*FIFTEEN, "mnist_c"], "corrupted_images": [8, 128]}
    plan = planned(
        grid(name="plain", epochs=5),
        grid("cnn", name="other", epochs=5),
        grid("fcn", "adapt", name="adapted", **adapted),
        measures=[{"notion": "classification", "perturbation": [*FIFTEEN, "mnist_c"]}],
    )
    assert "adaptations_mnist5k" in stages.figures(plan)
    assert "adaptations_mnist5k" not in stages.figures(PLAN)
    rows = measured(plan, {})
    rows["estimate"] += 0.1 * (rows["corruption"] == "mnist_c") + 0.05 * (rows["corrupted_images"] == 128)
    networks = pd.DataFrame([{**one.groups, "corruption": one.axes.get("corruption")} for one in plan.networks])
    style.use()
    rcParams["svg.fonttype"] = "none"
    adaptations.draw("adaptations_mnist5k", plan, networks, table(rows, plan), tmp_path)
    shown = pd.read_csv(tmp_path / "adaptations_mnist5k.csv")
    assert set(shown["architecture"]) == {"fcn"}  # no CNN is adapted
    assert sorted(shown["corrupted_images"].dropna()) == [8, 8, 128, 128]
    said = " ".join((tmp_path / "adaptations_mnist5k.svg").read_text().split())
    for text in ("not adapted", "CORAL, separate", "CORAL, joint", "corrupted images of each corruption"):
        assert text in said
    assert "70.0 % as it is: CORAL, joint +15.0, CORAL, separate +5.0 points" in said


def test_without_rows_the_figure_of_adaptations_says_so(tmp_path: Path):
    nothing = table(measured(PLAN, ESTIMATES).iloc[:0], PLAN)
    networks = pd.DataFrame([one.groups for one in PLAN.networks])
    adaptations.draw("adaptations_mnist5k", PLAN, networks, nothing, tmp_path)
    assert "nothing is measured yet" in (tmp_path / "adaptations_mnist5k.svg").read_text()
