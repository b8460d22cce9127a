"""Study files that cannot be read, or ask what nobody means, get one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import grid, study

from deltaball.base.errors import InputError
from deltaball.plan.loading import planned
from deltaball.study import reading
from deltaball.study.axes import radius_text


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        reading.load(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 2000,
        "a: " + "[" * 800 + "]" * 800,
        f"seed: {'9' * 5000}",
        "date: 2021-02-31",
        "n: !!int abc",
        "n: !!float abc",
        'n: !!int ""',
        "n: !!bool maybe",
        "n: !!map [1, 2]",
        "n: !!timestamp soon",
        "? [1, 2]\n: 3",
    ],
)
def test_what_yaml_cannot_read_is_one_line(tmp_path: Path, text: str) -> None:
    refusal(tmp_path / "study.yaml", text)


@pytest.mark.parametrize("key", ["depth", "width", "epochs", "batch_size", "seed"])
def test_numbers_that_nobody_means_are_refused(tmp_path: Path, key: str) -> None:
    message = refusal(tmp_path / "study.yaml", yaml.safe_dump(study(grid(**{key: 10**30}))))
    assert f"grids[0].{key}" in message


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    message = refusal(tmp_path / "study.yaml", yaml.safe_dump(study(nonsense=[*range(5000)])))
    assert "unknown key 'nonsense'" in message


def test_a_radius_may_be_a_quotient(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study(measures=[{"notion": "class_change", "delta": ["8/255", "16 / 255"]}])))
    assert [one.delta for one in planned(path).measures] == [8 / 255, 16 / 255]
    names = [one.name for one in planned(path).measures]
    path.write_text(yaml.safe_dump(study(measures=[{"notion": "class_change", "delta": [8 / 255, 16 / 255]}])))
    assert [one.name for one in planned(path).measures] == names
    assert "8/0" in refusal(path, yaml.safe_dump(study(measures=[{"notion": "class_change", "delta": "8/0"}])))


def own(folder: Path, images: tuple[int, ...], labels: list[object]) -> str:
    """A study on own.npz, whose images have this shape and cycle through these labels."""
    x, y = np.zeros((40, *images), np.uint8), np.array([labels[index % len(labels)] for index in range(40)])
    np.savez(folder / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    guarantee = {"epsilon": 0.25, "confidence": 0.95}
    return yaml.safe_dump(study({**grid(), "dataset": "own"}, data=str(folder), guarantee=guarantee))


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ((8, 8), [1, 2, 3], "no image has class 0"),
        ((8, 8), [0, 1, 200], "no image has class 2"),
        ((8, 8), [0], "two classes"),
        ((3, 6, 6), [0, 1], "channels first"),
        ((8, 8), ["cat", "dog"], "it should hold one integer class"),
    ],
)
def test_a_data_set_that_is_surely_not_meant_is_refused(
    tmp_path: Path, images: tuple[int, ...], labels: list[object], said: str
) -> None:
    assert said in refusal(tmp_path / "study.yaml", own(tmp_path, images, labels))


@pytest.mark.parametrize(
    ("scaled", "said"),
    [
        (lambda x: x * 255, "from 0 to 255; float images must lie in [0, 1]: divide by 255"),
        (lambda x: 2 * x - 1, "from -1 to 1; float images must lie in [0, 1]: save (x + 1) / 2"),
        (lambda x: np.where(x == 0, np.float32("nan"), x), "not a number"),
        (lambda x: np.where(x == 1, np.float32("inf"), x), "from 0 to inf"),
    ],
)
def test_pixels_of_another_range_are_refused_when_planning(tmp_path: Path, scaled: Callable, said: str) -> None:
    text = own(tmp_path, (8, 8), [0, 1])
    arrays = dict(np.load(tmp_path / "own.npz"))
    x = np.linspace(0, 1, 40 * 64, dtype=np.float32).reshape(40, 8, 8)
    np.savez(tmp_path / "own.npz", **{**arrays, "x_train": x, "x_test": -x * 0.0})
    (tmp_path / "study.yaml").write_text(text)
    reading.load(tmp_path / "study.yaml")
    np.savez(tmp_path / "own.npz", **{**arrays, "x_train": x, "x_test": scaled(x).astype(np.float32)})
    message = refusal(tmp_path / "study.yaml", text)
    assert "x_test" in message
    assert said in message


def test_one_test_point_gives_no_epsilon(tmp_path: Path) -> None:
    text = own(tmp_path, (8, 8), [0, 1])
    arrays = dict(np.load(tmp_path / "own.npz"))
    arrays |= {"x_test": arrays["x_test"][:1], "y_test": arrays["y_test"][:1]}
    np.savez(tmp_path / "own.npz", **arrays)
    assert "no epsilon below 1 can be had" in refusal(tmp_path / "study.yaml", text)


def test_mutated_studies_are_planned_or_refused_in_one_line(root: Path) -> None:
    fuzz = [sys.executable, str(root / "benchmarks/fuzzing.py"), "200", "3"]
    done = subprocess.run(fuzz, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("200 files: ")


def test_a_radius_is_told_as_it_is_read_most_easily() -> None:
    told = {20 / 255: "20/255", float(np.float32(8 / 255)): "8/255", 0.2: "0.2", 0.05: "0.05", 0.0123456: "0.0123456"}
    assert [radius_text(value) for value in told] == list(told.values())
