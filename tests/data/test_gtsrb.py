import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltaball.base.errors import InputError
from deltaball.cli.main import main
from deltaball.data import gtsrb
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import load
from deltaball.study.methods import METHODS

TRACKS, FRAMES, TESTED = 2, 3, 2


def colour(label: int, track: int, frame: int) -> tuple[int, int, int]:
    return (5 * label, 40 * track + frame, 255 - label)


def unpacked(folder: Path, training: str = gtsrb.TRAINING[0]) -> Path:
    """A tiny GTSRB laid out as its archives are: sides of 9 to 12 pixels, one colour each."""
    heading = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"

    def line(path: Path, label: int, *which: int) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (9 + label % 4, 10)
        Image.new("RGB", size, colour(label, *which)).save(path)
        return f"{path.name};{size[0]};{size[1]};1;1;8;8;{label}\n"

    for label in range(43):
        place = folder / training / f"{label:05d}"
        lines = [
            line(place / f"{track:05d}_{frame:05d}.ppm", label, track, frame)
            for track in range(TRACKS)
            for frame in range(FRAMES)
        ]
        (place / f"GT-{label:05d}.csv").write_text(heading + "".join(lines))
    numbers = [label for label in range(43) for _ in range(TESTED)]
    tested = [line(folder / gtsrb.TEST / f"{n:05d}.ppm", label, 5, n) for n, label in enumerate(numbers)]
    (folder / gtsrb.TEST_LABELS).write_text(heading + "".join(tested))
    return folder


def made(*arguments: object) -> int:
    return main(["gtsrb", *map(str, arguments)])


@pytest.mark.parametrize("training", gtsrb.TRAINING)
def test_archives_become_data_sets(tmp_path: Path, training: str):
    data = tmp_path / "data"
    assert made(unpacked(tmp_path / "archives", training), "--data", data, "--size", 8) == 0
    whole, ten = load("gtsrb", data), load("gtsrb10", data)
    assert whole.x_train.shape == (43 * TRACKS * FRAMES, 8, 8, 3)
    assert whole.x_test.shape == (43 * TESTED, 8, 8, 3)
    assert ten.x_train.shape == (10 * TRACKS * FRAMES, 8, 8, 1)
    assert np.bincount(ten.y_test).tolist() == 10 * [TESTED]
    place = next(i for i in range(len(whole.y_train)) if whole.y_train[i] == 14)
    np.testing.assert_allclose(whole.x_train[place, 0, 0] * 255, colour(14, 0, 0), atol=1e-4)
    grey = round(np.dot(colour(14, 0, 0), (0.299, 0.587, 0.114)))
    np.testing.assert_allclose(ten.x_train[ten.y_train == gtsrb.TEN.index(14)][0] * 255, grey, atol=1e-4)


def test_no_track_is_on_both_sides_of_a_split():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 90).astype(np.uint8)
    # The same numbers in every class are other signs.
    tracks = np.concatenate([np.repeat(np.arange(count), 30)[:90] for count in (3, 3, 3, 3, 3)])
    tracks[:90] = generator.permutation(np.repeat(np.arange(15), 6))
    images = generator.integers(0, 256, (450, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = labels, tracks
    split = gtsrb.by_track({"x_train": images, "y_train": labels, "track_train": tracks})
    sides = [{(x[0, 0, 0], x[0, 0, 1]) for x in split[f"x_{side}"]} for side in ("train", "test")]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(zip(labels.tolist(), tracks.tolist(), strict=True))
    assert len(split["x_train"]) + len(split["x_test"]) == 450
    assert {label: sum(label == one for one, _ in sides[1]) for label in range(5)} == {0: 3, 1: 1, 2: 1, 3: 1, 4: 1}
    for side in ("train", "test"):
        np.testing.assert_array_equal(split[f"y_{side}"], split[f"x_{side}"][:, 0, 0, 0])


def test_the_others_are_made_from_a_file_that_stays(tmp_path: Path):
    arrays = gtsrb.from_folder(unpacked(tmp_path / "archives"), 8)
    np.savez(tmp_path / "gtsrb.npz", **arrays)
    before = (tmp_path / "gtsrb.npz").read_bytes()
    assert made("--data", tmp_path) == 0
    assert (tmp_path / "gtsrb.npz").read_bytes() == before
    validation = load("gtsrb10_validation", tmp_path)
    assert validation.facts.train == validation.facts.test == 10 * FRAMES
    assert {path.stem for path in tmp_path.glob("*.npz")} == {
        "gtsrb",
        "gtsrb10",
        "gtsrb_validation",
        "gtsrb10_validation",
    }


def without_tracks(arrays: dict[str, np.ndarray]) -> None:
    del arrays["track_train"]


def short_tracks(arrays: dict[str, np.ndarray]) -> None:
    arrays["track_train"] = arrays["track_train"][1:]


def one_track(arrays: dict[str, np.ndarray]) -> None:
    arrays["track_train"][arrays["y_train"] == 3] = 7


def floats(arrays: dict[str, np.ndarray]) -> None:
    arrays["x_train"] = (arrays["x_train"] / 255).astype(np.float32)


def few_classes(arrays: dict[str, np.ndarray]) -> None:
    for split in ("train", "test"):
        arrays[f"y_{split}"] = np.minimum(arrays[f"y_{split}"], 9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_tracks, "no array track_train"),
        (short_tracks, "track_train is uint16 of shape (257,); it should hold an integer for each of the 258"),
        (one_track, "class 3 has one track, 7, which cannot be on both sides"),
        (floats, "images of float32 and uint8; uint8 is needed"),
        (few_classes, "it has 10 classes; GTSRB has 43"),
    ],
)
def test_a_file_that_cannot_be_split_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[dict[str, np.ndarray]], None], message: str
):
    count = 43 * TRACKS * FRAMES
    arrays = {
        "x_train": np.zeros((count, 8, 8, 3), np.uint8),
        "y_train": (np.arange(count) % 43).astype(np.uint8),
        "x_test": np.zeros((43, 8, 8, 3), np.uint8),
        "y_test": np.arange(43, dtype=np.uint8),
        "track_train": (np.arange(count) // 43).astype(np.uint16),
    }
    damage(arrays)
    np.savez(tmp_path / "own.npz", **arrays)
    assert made(tmp_path / "own.npz", "--data", tmp_path / "data") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def cut_image(folder: Path) -> None:
    path = next((folder / gtsrb.TEST).glob("*.ppm"))
    path.write_bytes(path.read_bytes()[:50])


def no_labels(folder: Path) -> None:
    (folder / gtsrb.TEST_LABELS).write_text("Filename;Width\n00000.ppm;9\n")


def missing_class(folder: Path) -> None:
    (folder / gtsrb.TRAINING[0] / "00042" / "GT-00042.csv").unlink()


def missing_image(folder: Path) -> None:
    next((folder / gtsrb.TRAINING[0] / "00007").glob("*.ppm")).unlink()


def nothing(folder: Path) -> None:
    (folder / "GTSRB").rename(folder / "signs")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_image, "not a readable image"),
        (no_labels, "not an annotation file of GTSRB"),
        (missing_class, "GT-00042.csv: not there"),
        (missing_image, "not there, though it is listed"),
        (nothing, "no folder GTSRB/Final_Training/Images or GTSRB/Training in it"),
    ],
)
def test_archives_that_are_not_whole_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
):
    folder = unpacked(tmp_path / "archives")
    damage(folder)
    assert made(folder, "--data", tmp_path / "data") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_another_file_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "gtsrb.npz").write_bytes(b"mine")
    assert made(unpacked(tmp_path / "archives"), "--data", tmp_path) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "gtsrb.npz").read_bytes() == b"mine"


def test_archives_are_downloaded_checked_and_unpacked(tmp_path: Path):
    """From a folder of this machine in place of the server."""
    source, server = unpacked(tmp_path / "source"), tmp_path / "server"
    server.mkdir()
    sums = {}
    for name, inside in (("Training.zip", gtsrb.TRAINING[0]), ("Test.zip", gtsrb.TEST), ("GT.zip", gtsrb.TEST_LABELS)):
        with zipfile.ZipFile(server / name, "w") as archive:
            for path in sorted([source / inside, *(source / inside).rglob("*")]):
                archive.write(path, path.relative_to(source))
        sums[name] = hashlib.md5((server / name).read_bytes()).hexdigest()
    where = f"{server.as_uri()}/"
    folder = gtsrb.download(tmp_path / "gtsrb", where, sums)
    expected = gtsrb.from_folder(source, 8)
    for name, array in gtsrb.from_folder(folder, 8).items():
        np.testing.assert_array_equal(array, expected[name])
    with pytest.raises(InputError, match=r"GT\.zip: its md5 is .* and should be 0"):
        gtsrb.download(tmp_path / "other", where, {"GT.zip": "0"})
    with pytest.raises(InputError, match=r"none\.zip could not be downloaded .* unpack none\.zip in"):
        gtsrb.download(tmp_path / "other", where, {"none.zip": "0"})
    assert not list((tmp_path / "other").iterdir())


def test_a_study_that_lacks_them_is_told_how_they_are_made(tmp_path: Path):
    with pytest.raises(InputError, match=r"no data set 'gtsrb10': `deltaball gtsrb` makes .*gtsrb10\.npz"):
        load("gtsrb10", tmp_path)


@pytest.mark.parametrize("name", ["gtsrb10", "gtsrb10_validation"])
def test_images_of_tracks_are_not_held_out_one_by_one(name: str):
    facts = DatasetFacts(name, (32, 32, 1), 10, 12660, 4170, "")
    held = {"method": "sgd", "learning_rate": [0.1], "epochs": [1], "validation": [0, 500]}
    with pytest.raises(InputError, match=r"^validation = 500: .* come in tracks .* choose with gtsrb10_validation, "):
        METHODS["sgd"](**held).check_points(facts)
    METHODS["sgd"](**{**held, "validation": [0]}).check_points(facts)
