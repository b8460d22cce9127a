"""README's commands as a user first types them: a new home, and no environment variable but where programs are."""

import os
import subprocess
import sys
from pathlib import Path

import few_study
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NAMES = ("Snakefile", "rules", "envs", "src", "studies", "README.md")


@pytest.fixture
def clone(tmp_path: Path, data_folder: Path) -> Path:
    """A folder with the code and a study of seconds, which has a chain too."""
    hmc = {"name": "hmc", "dataset": "few", "method": "hmc", "architecture": "fcn", "depth": 1, "width": 4}
    hmc |= {"activation": "tanh", "step_size": 0.01, "leapfrog_steps": 2, "posterior_samples": 2}
    content = {**few_study.STUDY, "data": str(data_folder)}
    content["grids"] = [{**content["grids"][0], "epochs": 1}, hmc]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    for name in NAMES:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "home").mkdir()
    return tmp_path


def said(clone: Path, module: str, *arguments: str) -> str:
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(clone / "home")}
    # Where the tests find the package, if it is not installed.
    bare |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=clone, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands_work_in_a_bare_environment(clone: Path) -> None:
    assert "14,913 networks" in said(clone, "deltaball", "plan", "--study", "studies/paper.yaml")
    assert "738" in said(clone, "deltaball", "samples", "--epsilon", "0.05", "--confidence", "0.95")
    assert "2 networks (2 trained)" in said(clone, "deltaball", "run", "--time-limit", "9m")
    networks = pd.read_parquet(clone / "results/tiny/networks.parquet").set_index("method")
    assert set(networks["status"]) <= {"trained", "stuck"}
    assert "KERAS_BACKEND" in said(clone, "deltaball", "export", networks.loc["sgd", "network_id"])
    assert "2 networks" in said(clone, "deltaball", "merge")
    assert "complete" in said(clone, "snakemake", "--cores", "all", "-n")
