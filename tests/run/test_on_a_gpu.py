"""A whole study on a GPU: a pretended one everywhere, and the real one where there is one."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from builders import grid, study
from pretended_gpu import NAME, pretended

from deltaball.cli import main

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(params=["pretended", pytest.param("real", marks=[ON_A_GPU, pytest.mark.gpu])])
def gpu(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractContextManager]:
    """Makes the machine one with a GPU."""
    return pretended if request.param == "pretended" else contextlib.nullcontext


def run(folder: Path, data: Path, device: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of networks and of robustness of a small study that is run on a device."""
    folder.mkdir()
    common = {"dataset": "few", "learning_rate": [0.1, 0.05], "epochs": [1, 2]}
    grids = [
        grid(width=[6, 8], weights="evict", **common),
        grid("cnn", filters=2, fc_width=4, optimizer="adam", **common),
        grid(method="imp", dataset="few", width=6, depth=2, proportion=[0.5, 0.75], iterations=[1, 2], epochs=2),
    ]
    measures = [
        {"notion": "class_change", "delta": 0.1, "attack": ["fgsm"], "certificate": ["crown"]},
        {"notion": "softmax_variation", "delta": 0.1, "attack": ["pgd"], "steps": 3},
    ]
    content = study(*grids, measures=measures, data=str(data), guarantee={"epsilon": 0.25, "confidence": 0.95})
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with contextlib.chdir(folder):
        assert main.main(["run", "--device", device]) == 0
    return tuple(pd.read_parquet(folder / f"results/test/{name}.parquet") for name in ("networks", "robustness"))


def test_a_study_on_a_gpu_is_the_study(
    data_folder: Path, tmp_path: Path, gpu: Callable[[], contextlib.AbstractContextManager]
) -> None:
    networks, robustness = run(tmp_path / "here", data_folder, "cpu")
    with gpu():
        again, estimates = run(tmp_path / "there", data_folder, "cuda")
    assert again["status"].tolist() == ["trained"] * len(networks)
    assert again["network_id"].tolist() == networks["network_id"].tolist()
    for column in ("train_accuracy", "test_accuracy", "test_loss"):
        np.testing.assert_allclose(again[column], networks[column], atol=0.03, err_msg=column)
    assert estimates["measure"].tolist() == robustness["measure"].tolist()
    np.testing.assert_allclose(estimates["estimate"], robustness["estimate"], atol=0.06)
    said = [path.read_text() for path in (tmp_path / "there").rglob("*.log")]
    assert said
    assert not any("not captured" in text or "failed" in text for text in said)
    if gpu is pretended:
        assert any(NAME in path.read_text() for path in (tmp_path / "there").rglob("*.json"))
