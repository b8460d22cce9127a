"""A study of seconds on few.npz, as `deltaball run` reads it from a folder."""

from pathlib import Path

import yaml

STUDY = {
    "study": "tiny",
    "guarantee": {"epsilon": 0.25, "confidence": 0.95},
    "measures": [{"notion": "class_change", "delta": [0.1, 0.2]}],
    "grids": [
        {
            "name": "one",
            "dataset": "few",
            "method": "sgd",
            "architecture": "fcn",
            "depth": 1,
            "width": 8,
            "activation": "relu",
            "batch_size": 32,
            "learning_rate": 0.1,
            "epochs": [1, 2],
        }
    ],
}


def written(folder: Path, data: Path, **changed: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**STUDY, "data": str(data), **changed}))
