"""Studies, grids and plans as the tests write them: a complete default, of which a test states what it changes."""

from pathlib import Path
from typing import Any

from deltaball.plan.plan import Plan, plan
from deltaball.study.study import Study

FILES = Path(__file__).parent / "files"  # of two networks that somebody brought
ELSEWHERE = "no-such-folder"  # a data folder that is not there: facts come from the catalogue alone

ARCHITECTURES = {
    "fcn": {"depth": 1, "width": 64, "activation": "relu"},
    "cnn": {"fc_depth": 1, "fc_width": 16, "activation": "relu", "filters": 4, "kernel": 3, "conv_depth": 1},
}
ARCHITECTURES["vgg"] = ARCHITECTURES["cnn"]
ARCHITECTURES |= {"resnet20": {"width": 2}, "nin": {"width": 6}, "conv5": {"filters": 4, "fc_width": 8}}
ARCHITECTURES |= {"lenet": {}, "mnist_c_cnn": {}, "rbf_svm": {}}
ARCHITECTURES["file"] = {"files": str(FILES / "one.safetensors")}
METHODS = {
    "sgd": {"learning_rate": 0.01, "epochs": [5, 10]},
    "imp": {"proportion": 0.5, "iterations": 1, "learning_rate": 0.01, "epochs": 5},
    "finetune": {"rounds": 2, "adversary": "fgsm", "learning_rate": 0.01, "epochs": 5},
    "hmc": {"step_size": 0.001, "leapfrog_steps": 10, "posterior_samples": [100, 200]},
    "adapt": {"adaptation": "coral", "corruption": "fog", "corrupted_images": 8, "learning_rate": 0.01, "epochs": 5},
    "svm": {},
    "given": {},
}
OBJECTIVES = {
    "augmented": {"radius": 0.1},
    "adversarial": {"radius": 0.1},
    "constrained": {"radius": 0.1, "beta": 0.2, "constraint": "standard_robustness"},
    "trades": {"radius": 0.1, "beta": 6},
    "cross_lipschitz": {"beta": 0.5},
    "cotraining": {"beta": 0.5, "generator_filters": 2, "generator_depth": 1},
    "on_manifold": {"beta": 0.5, "autoencoder": "one"},
    "on_manifold_adversarial": {"autoencoder": "one", "attack_steps": 2},
    "mart": {"radius": 0.1, "beta": 5},
    "ibp": {"radius": 0.1, "ramp_epochs": 3},
    "crown_ibp": {"radius": 0.1, "ramp_epochs": 3},
}


def grid(architecture: str = "fcn", method: str = "sgd", without: tuple[str, ...] = (), **changed: Any) -> dict:
    """A grid as YAML gives it."""
    whole = {
        "name": f"{architecture}-{method}",
        "dataset": "mnist5k",
        "method": method,
        "architecture": architecture,
        **ARCHITECTURES[architecture],
        **METHODS[method],
        **OBJECTIVES.get(changed.get("objective", ""), {}),
        **changed,
    }
    return {key: value for key, value in whole.items() if key not in without}


def study(*grids: dict, **changed: Any) -> dict:
    """A study as YAML gives it, with the auto-encoders that its grids name."""
    named = {(one["autoencoder"], one["dataset"]) for one in grids if "autoencoder" in one}
    coders = [{"name": name, "dataset": dataset, "latent": 2, "filters": 2, "epochs": 1} for name, dataset in named]
    return {
        "study": "test",
        "data": ELSEWHERE,
        "guarantee": {"epsilon": 0.05, "confidence": 0.95},
        "measures": [{"notion": "class_change", "delta": 0.1}],
        "grids": list(grids) or [grid()],
        **({"autoencoders": coders} if coders else {}),
        **changed,
    }


def planned(*grids: dict, **changed: Any) -> Plan:
    return plan(Study.model_validate(study(*grids, **changed)))


def network_ids(*grids: dict, **changed: Any) -> list[str]:
    return [network.id for network in planned(*grids, **changed).networks]


def planned_few(folder: Path, *grids: dict, **changed: Any) -> Plan:
    """A plan on few.npz, whose 40 test points give ε = 0.25 at 0.95 (37 of them)."""
    on_few = [{**one, "dataset": "few"} for one in grids]
    return planned(*on_few, **{"data": str(folder), "guarantee": {"epsilon": 0.25, "confidence": 0.95}, **changed})
