"""How near the ensemble's closest violations are, beside those of foolbox on the same networks and points.

    .venv/bin/python -m pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/distances.py [POINTS] [FOLDER]

An FCN, one on noisy images and a CNN are trained on mnist5k, and on as much of Fashion-MNIST (from FOLDER, or as Keras
has it), and attacked at the first test points (200 if not told otherwise) in L2 and L∞. Of foolbox counts the nearest
image that its FGSM or PGD finds at any of 30 radii, each 1.2 times the one before, or its DeepFool, as it hands them
back. Printed is for each network the median of both, the share of points where ours is further, and which of our
attacks won; of all points the shares at the end. The predicted class is attacked.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import foolbox
import numpy as np
import torch
from foolbox import attacks
from measuring import trained

from deltaball.data.datasets import Dataset, load
from deltaball.local.attacks.ensemble import Ensemble
from deltaball.local.balls import GEOMETRY, Ball
from deltaball.local.notions import Margin
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers
from deltaball.study.judges import JUDGES

AXES = {"activation": "relu", "depth": 2, "width": 64, "filters": 8, "kernel": 3, "conv_depth": 2}
AXES |= {"fc_depth": 1, "fc_width": 64}
RADII = {"l2": 0.05 * 1.2 ** np.arange(30), "linf": 0.002 * 1.2 ** np.arange(30)}
THEIRS = {
    "l2": (attacks.L2FastGradientAttack(), attacks.L2PGD(steps=40), attacks.L2DeepFoolAttack()),
    "linf": (attacks.LinfFastGradientAttack(), attacks.LinfPGD(steps=40), attacks.LinfDeepFoolAttack()),
}
BLOCK, TRAINED_ON = 32, 4000
# What rounding may make of two equal distances.
EQUAL = 1e-5


class AsModule(torch.nn.Module):
    """One network of a pack."""

    def __init__(self, pack: Pack) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pack(x[None])[0]


def theirs(pack: Pack, x: torch.Tensor, norm: str) -> torch.Tensor:
    """The distance [n] of the nearest image that foolbox finds; infinite where there is none."""
    model = foolbox.PyTorchModel(AsModule(pack).eval(), bounds=(0, 1), device="cpu")
    predicted, least = pack(x[None])[0].argmax(-1), torch.full((len(x),), torch.inf)
    for attack in THEIRS[norm]:
        is_deepfool = isinstance(attack, attacks.deepfool.DeepFoolAttack)
        radii = [None] if is_deepfool else RADII[norm].tolist()
        _, images, changed = attack(model, x, predicted, epsilons=radii)
        for one, there in zip(images, changed, strict=True):
            distance = GEOMETRY[norm].length(one - x)
            least = torch.where(there, torch.minimum(least, distance), least)
    return least


def ours(pack: Pack, x: torch.Tensor, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The distance [n] of the nearest image that the ensemble finds, and which of its attacks found it."""
    most, verdicts = GEOMETRY[norm].length(torch.ones_like(x[0])).item(), []
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        asked = {Ball(norm, most): [Margin(most)]}
        verdicts += [verdict for _, _, verdict in Ensemble()(pack, block, asked, range(len(block)))]
    return tuple(torch.cat([getattr(one, name)[0] for one in verdicts]) for name in ("outcome", "found_by"))


def networks(dataset: Dataset) -> dict[str, Pack]:
    found: dict[str, Layers] = {name: layers(name, AXES, dataset.x_train.shape[1:], 10) for name in ("fcn", "cnn")}
    random = np.random.default_rng(0)
    noisy = (dataset.x_train + random.normal(0, 0.3, dataset.x_train.shape)).clip(0, 1).astype(np.float32)
    return {
        "FCN": trained(found["fcn"], dataset, "cpu", 1, 10),
        "FCN on noise": trained(found["fcn"], replace(dataset, x_train=noisy), "cpu", 1, 10),
        "CNN": trained(found["cnn"], dataset, "cpu", 1, 5),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    members, further, points = JUDGES["ensemble"].members, {"l2": 0, "linf": 0}, {"l2": 0, "linf": 0}
    print(f"{'':30}{'norm':>6}{'ours':>9}{'foolbox':>9}{'further':>9}{'s, ours':>9}{'theirs':>8}  won")
    for name in ("mnist5k", "fashion_mnist"):
        dataset = load(name, Path(sys.argv[2] if len(sys.argv) > 2 else "data"))
        dataset = replace(dataset, x_train=dataset.x_train[:TRAINED_ON], y_train=dataset.y_train[:TRAINED_ON])
        for title, pack in networks(dataset).items():
            x = torch.from_numpy(dataset.x_test[:count])
            for norm in RADII:
                started = time.process_time()
                own, found_by = ours(pack, x, norm)
                middle = time.process_time()
                other = theirs(pack, x, norm)
                ended = time.process_time()
                worse = own > other * (1 + EQUAL)
                further[norm] += int(worse.sum())
                points[norm] += len(x)
                won = ", ".join(f"{JUDGES[one].title} {(found_by == k).sum()}" for k, one in enumerate(members))
                print(
                    f"{name + ', ' + title:30}{norm:>6}{own.median():9.4f}{other.median():9.4f}"
                    f"{worse.float().mean():9.1%}{middle - started:9.1f}{ended - middle:8.1f}  {won}",
                    flush=True,
                )
    for norm in RADII:
        print(f"{norm}: ours is further at {further[norm] / points[norm]:.2%} of {points[norm]} points")


if __name__ == "__main__":
    main()
