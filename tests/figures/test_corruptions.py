"""The heat map of corruptions and the curves over severities."""

from pathlib import Path

import pandas as pd
import pytest
from builders import grid, planned
from corrupted_tables import measured
from matplotlib import rcParams

from deltaball.analysis.corruptions import corruptions as table
from deltaball.figures import corruptions, style

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
