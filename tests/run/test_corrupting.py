"""The picture of a data set under every corruption, as the command draws it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltaball.cli.main import main


def test_a_picture_is_drawn_of_grey_and_coloured_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    colours = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), np.uint8)
    labels = np.arange(8) % 2
    np.savez(tmp_path / "mine.npz", x_train=colours, y_train=labels, x_test=colours, y_test=labels)
    assert main(["corruptions", "mine", "--data", str(tmp_path), "--output", str(tmp_path / "mine.png")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "mine.png")
    with Image.open(tmp_path / "mine.png") as picture:
        assert picture.width > 1000
        # In colour: the three channels differ somewhere.
        assert np.ptp(np.asarray(picture.convert("RGB"), int), axis=2).max() > 50


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["mnist5k", "--output", "a.txt"], "--output a.txt: a picture is a .png, .svg or .pdf"),
        (["mnist5"], "no data set 'mnist5': did you mean 'mnist5k' or 'mnist'?"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["corruptions", *given]) == 2
    assert message in capsys.readouterr().err
