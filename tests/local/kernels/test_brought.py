"""Corrupted sets that a user brings: measured as they are, whatever their order; and what is refused, in a line."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import grid, planned_few
from few_study import STUDY, written

from deltaball.base.errors import InputError
from deltaball.cli.main import main
from deltaball.data import corrupted_sets
from deltaball.estimation.points import draw_points
from deltaball.local.kernels.brought import of_points
from deltaball.local.kernels.kernel import kernel
from deltaball.local.kernels.known import Known
from deltaball.plan import loading
from deltaball.study.kernels import ChosenKernel
from deltaball.study.reading import load
from deltaball.tables import frames

GRID = grid(width=16, activation="relu", batch_size=32, epochs=1)


@pytest.fixture
def folder(few_arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """few.npz and, in another order, two darkened images of every test image: mine.npz."""
    np.savez(tmp_path / "few.npz", **few_arrays)
    indices = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 2))
    np.savez(tmp_path / "mine.npz", images=few_arrays["x_test"][indices] // 2, indices=indices)
    return tmp_path


def test_images_of_points_come_in_the_order_of_the_file():
    indices = np.array([3, 0, 1, 3, 0, 1, 2, 2, 0])
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    found = of_points(images, indices, np.array([3, 0, 2]), 2)
    assert found[..., 0, 0, 0].tolist() == [[0, 3], [1, 4], [6, 7]]
    brought = Known(np.empty(0), np.empty(0), brought={"ab": found})
    drawn = kernel(ChosenKernel("mine", (("content", "ab"),)), brought).sample(torch.zeros(2, 1, 1, 1), [2, 0], 3)
    assert (255 * drawn[..., 0, 0, 0]).round().tolist() == [[6, 7, 6], [0, 3, 0]]


def test_a_set_is_measured_and_named_by_what_it_holds(folder: Path, few_arrays: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    written(folder, folder, grids=[{**STUDY["grids"][0], "epochs": 1}])
    path = folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["measures"] = [
        {"notion": "classification", "perturbation": "mine", "draws": 2},
        {"notion": "classification", "perturbation": "same"},
    ]
    np.savez(folder / "same.npz", images=few_arrays["x_test"], indices=np.arange(40))
    path.write_text(yaml.safe_dump(content))
    assert main(["run"]) == 0
    plan = loading.planned(path)
    networks, robustness = frames.load(plan)
    both = robustness.merge(networks[["network_id", "test_accuracy"]]).set_index("measure")
    names = [one.name for one in plan.measures]
    assert names[0].startswith("classification_mine_")
    drawn = draw_points(plan.facts["few"], plan.measures[0].samples, plan.study.guarantee.seed)
    assert len(set(drawn)) == plan.measures[0].samples
    # Images that are not changed are as accurate as the points are.
    assert both.loc[names[1], "estimate"] == pytest.approx(both.loc[names[1], "test_accuracy"], abs=3 / 37)
    # Other images under the same name are asked by another name.
    np.savez(folder / "same.npz", images=few_arrays["x_test"] // 3, indices=np.arange(40))
    assert loading.planned(path).measures[1].name != names[1]


def test_a_file_that_changed_meanwhile_is_refused(folder: Path, few_arrays: dict[str, np.ndarray]):
    known = corrupted_sets.facts("mine", folder)
    images, indices = corrupted_sets.load(known)
    np.testing.assert_array_equal(images[..., 0], few_arrays["x_test"][indices] // 2)
    np.savez(folder / "mine.npz", images=few_arrays["x_test"], indices=np.arange(40))
    with pytest.raises(InputError, match="was changed since the study was planned"):
        corrupted_sets.load(known)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "no 'mine': alternatives"),
        ({"images": np.zeros((40, 14, 14), np.uint8)}, "no array indices; needed: numpy.savez with uint8 images"),
        ({"images": np.zeros((40, 14, 14)), "indices": np.arange(40)}, "images is <f8 of shape (40, 14, 14)"),
        ({"images": np.zeros((40, 14, 14), np.uint8), "indices": np.arange(39)}, "indices is <i8 of shape (39,)"),
        ({"images": np.zeros((40, 14, 14), np.uint8), "indices": np.arange(40) - 1}, "indices holds -1"),
        (
            {"images": np.zeros((40, 28, 28), np.uint8), "indices": np.arange(40)},
            "images are [28, 28, 1], and those of",
        ),
        ({"images": np.zeros((40, 14, 14), np.uint8), "indices": np.arange(40) + 1}, "index 40 is beyond"),
        ({"images": np.zeros((39, 14, 14), np.uint8), "indices": np.arange(39)}, "of test image 39 of few it holds 0"),
        (b"not an archive", "not a readable .npz file"),
    ],
)
def test_what_is_no_set_of_the_study_is_refused_in_a_line(
    arrays: dict[str, np.ndarray] | bytes | None, message: str, folder: Path
):
    (folder / "mine.npz").unlink()
    if isinstance(arrays, bytes):
        (folder / "mine.npz").write_bytes(arrays)
    elif arrays is not None:
        np.savez(folder / "mine.npz", **arrays)
    path = folder / "study.yaml"
    content = {
        "study": "one",
        "data": str(folder),
        "guarantee": {"epsilon": 0.25, "confidence": 0.95},
        "measures": [{"notion": "classification", "perturbation": "mine"}],
        "grids": [{**GRID, "dataset": "few"}],
    }
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as refused:
        load(path)
    assert message.replace("alternatives", "") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_of_several_data_sets_a_measure_says_which(folder: Path, few_arrays: dict[str, np.ndarray]):
    np.savez(folder / "other.npz", **few_arrays)
    grids = [{**GRID, "dataset": "few"}, {**GRID, "name": "other", "dataset": "other"}]
    entry = {"notion": "classification", "perturbation": "mine"}
    content = {
        "study": "one",
        "data": str(folder),
        "guarantee": {"epsilon": 0.25, "confidence": 0.95},
        "measures": [entry],
        "grids": grids,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="say of which by only"):
        load(path)
    path.write_text(yaml.safe_dump({**content, "measures": [{**entry, "only": {"dataset": "few"}}]}))
    assert len(load(path).measures) == 1


def test_as_many_images_are_drawn_as_there_are(folder: Path):
    for draws, refused in ((2, False), (3, True)):
        path = folder / f"{draws}.yaml"
        content = {
            "study": "one",
            "data": str(folder),
            "guarantee": {"epsilon": 0.25, "confidence": 0.95},
            "measures": [{"notion": "classification", "perturbation": "mine", "draws": draws}],
            "grids": [{**GRID, "dataset": "few"}],
        }
        path.write_text(yaml.safe_dump(content))
        if refused:
            with pytest.raises(InputError, match="draws 3 are asked"):
                load(path)
        else:
            assert load(path).measures[0].draws == 2
    plan = planned_few(folder, GRID, measures=[{"notion": "class_change", "perturbation": "mine"}])
    assert plan.measures[0].corrupts
