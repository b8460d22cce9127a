"""What a user's environment sets changes no number, and stops no command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders import grid, study

SAID = "import sys; from deltaball.cli.main import main; sys.exit(main(sys.argv[1:]))"


def bare(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a new user: a home without files, and no variable that the tests set."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "HOME": str(home), **variables}


def deltaball(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SAID, *arguments]
    return subprocess.run(
        command, cwd=folder, env=bare(folder, **variables), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("backend", [None, "tensorflow"])
def test_a_download_is_tried_whatever_keras_is_told(tmp_path: Path, backend: str | None) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study({**grid(), "dataset": "mnist"})))
    # Nothing listens there, so the download fails, and that is what must be said.
    variables = {"https_proxy": "http://127.0.0.1:9", **({"KERAS_BACKEND": backend} if backend else {})}
    done = deltaball(tmp_path, "data", "mnist", **variables)
    assert done.returncode == 2
    assert "data set 'mnist' could not be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_output_cannot_encode_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study()))
    for command in (["plan"], ["samples", "--epsilon", "0.05", "--confidence", "0.95"]):
        done = deltaball(tmp_path, *command, PYTHONIOENCODING="ascii", LC_ALL="C")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()


def test_variables_that_change_numbers_are_set_back(tmp_path: Path) -> None:
    said = (
        "import os; from deltaball.base import environment; environment.pin(); import jax, jax.numpy as jnp; "
        "print(os.environ['OMP_NUM_THREADS'], jnp.ones(1, float).dtype, jax.random.PRNGKey(0).shape)"
    )
    variables = {"OMP_NUM_THREADS": "7", "JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", said], env=bare(tmp_path, **variables), capture_output=True, text=True, check=True
    )
    assert done.stdout.split(maxsplit=2) == ["1", "float32", "(2,)\n"]


def test_a_model_is_in_float32_whatever_keras_json_says(tmp_path: Path) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text('{"floatx": "float16", "backend": "tensorflow", "epsilon": 1e-7}')
    said = (
        "from deltaball.base import environment; environment.pin(); "
        "from deltaball.networks.keras_models import keras_model; from deltaball.networks.layers import *; "
        "model = keras_model(Layers((2, 2, 1), (Flatten(), Dense(3)))); "
        "print({weight.dtype for weight in model.weights}, model.compute_dtype)"
    )
    done = subprocess.run([sys.executable, "-c", said], env=bare(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout == "{'float32'} float32\n"
