"""docs/your-networks.md, executed: what it says to write is read from it, and what it promises is looked for."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from deltaball.cli.main import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/your-networks.md").read_text(encoding="utf-8")
(MADE,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(COMMAND,) = re.findall(r"```\ndeltaball (.*?)\n```", PAGE)
STUDY, DESCRIPTION = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(MADE, {})
    assert main(shlex.split(COMMAND)) == 0
    said = capsys.readouterr().out
    assert "softmax is taken off" in said
    rows = {
        judge: re.search(rf"by {judge} +([\d.]+) +\[.*\] +\[.*\] +is no (\w+)", said) for judge in ("fgsm", "crown")
    }
    assert [rows[judge][2] for judge in ("fgsm", "crown")] == ["larger", "smaller"]
    assert "lies in [" in said

    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/other.yaml").write_text(DESCRIPTION)
    drawn = np.random.default_rng(0)
    shapes = {"first.weight": (3, 1, 5, 5), "first.bias": (3,), "last.weight": (10, 3 * 14 * 14), "last.bias": (10,)}
    weights = {name: drawn.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "zoo/other.safetensors")
    (tmp_path / "config.yaml").write_text(STUDY)
    assert main(["run"]) == 0
    networks = pd.read_parquet("results/brought/networks.parquet").set_index("network_id")
    assert [*networks["file"]] == ["mine.keras", "zoo/other.safetensors"]
    assert [*networks["status"]] == ["trained", "trained"]
    found = pd.read_parquet("results/brought/robustness.parquet")
    mine = found[found["network_id"].map(networks["file"]) == "mine.keras"]
    for judge in ("fgsm", "crown"):
        (estimate,) = mine["estimate"][mine["measure"].str.endswith(f"_{judge}")]
        assert f"{estimate:.4f}" == rows[judge][1]

    # By content: a new name changes no id, and other content makes another network.
    (tmp_path / "mine.keras").rename(tmp_path / "again.keras")
    save_file({**weights, "last.bias": weights["last.bias"] + 1}, tmp_path / "zoo/other.safetensors")
    (tmp_path / "config.yaml").write_text(STUDY.replace("mine.keras", "again.keras"))
    assert main(["run"]) == 0
    after = pd.read_parquet("results/brought/networks.parquet").set_index("file")["network_id"]
    assert after["again.keras"] == networks.index[0]
    assert after["zoo/other.safetensors"] != networks.index[1]
