"""What measuring costs on this machine: attacks on a pack, ours against a loop of foolbox over its networks.

    .venv/bin/python -m pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/measuring.py [DEPTHxWIDTH]

64 FCNs (default 2x64) are trained on mnist5k for some epochs, and each is attacked at 738 test points in the L∞ ball.
Both sides attack the predicted class with the same number of steps. "Equal work": cross-entropy, one restart, no early
exit. Ours then also finds the predicted class, judges every iterate, keeps the worst and judges that again; foolbox is
given the predicted class and judges the last iterate.

They take turns on one thread, and the median of their CPU times counts: other jobs on the machine do not.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch

from deltaball.data.datasets import Dataset, load
from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.losses import cross_entropy
from deltaball.local.notions import ClassChange
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers
from deltaball.networks.packs import Pack, logits
from deltaball.study.architectures import layers
from deltaball.training.objectives.cross_entropy import cross_entropy as training_loss
from deltaball.training.optimizers import sgd_step

NETWORKS, POINTS, TURNS = 64, 738, 5
EPOCHS, RATE, BATCH = 5, 0.1, 50
BALL = Ball("linf", 0.05)
STEPS, TRAVEL = 40, 2.5
# Networks of a pack that are attacked in one call: their images, and what a step makes of them, stay in the cache.
NETWORKS_AT_ONCE = 16
POINTS_AT_ONCE = 128


@dataclass(frozen=True)
class ClassChangeByCrossEntropy(ClassChange):
    """Attacked by the loss that foolbox ascends."""

    losses = (cross_entropy,)


def trained(network: Layers, dataset: Dataset) -> Pack:
    """A pack of networks from different initial weights, trained by SGD on the same batches."""
    weights = Pack.of(network, [initial_weights(network, np.random.default_rng(k)) for k in range(NETWORKS)]).weights
    x, y = torch.from_numpy(dataset.x_train), torch.from_numpy(dataset.y_train)
    rates = torch.full((NETWORKS,), RATE)
    for epoch in range(EPOCHS):
        for batch in np.array_split(np.random.default_rng(epoch).permutation(len(x)), len(x) // BATCH):
            weights = tuple(weight.requires_grad_() for weight in weights)
            loss = training_loss(logits(network, weights, x[batch]), y[batch]).sum()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                sgd_step(weights, gradients, rates)
    return Pack(network, tuple(weight.detach() for weight in weights))


def ours(attack: Attack, pack: Pack, x: torch.Tensor, notion: ClassChange) -> torch.Tensor:
    """bool [K, n]: where a violation was found."""
    found = torch.empty(len(pack), len(x), dtype=torch.bool)
    for start in range(0, len(pack), NETWORKS_AT_ONCE):
        some = pack.part(slice(start, start + NETWORKS_AT_ONCE))
        for first in range(0, len(x), POINTS_AT_ONCE):
            block = x[first : first + POINTS_AT_ONCE]
            keys = range(first, first + len(block))
            ((_, _, one),) = attack(some, block, {BALL: [notion]}, keys)
            found[start : start + len(some), first : first + len(block)] = one.outcome == 0
    return found


def as_module(pack: Pack, k: int) -> torch.nn.Module:
    """Network k of a pack of FCNs, for foolbox."""
    modules = []
    for layer, shape, weights in pack.layers.with_weights(pack.weights):
        match layer:
            case Flatten():
                modules.append(torch.nn.Flatten())
            case Dense():
                linear, (kernel, bias) = torch.nn.Linear(*shape, layer.outputs), weights
                linear.weight.data, linear.bias.data = kernel[k].T.contiguous(), bias[k].clone()
                modules.append(linear)
            case Activation():
                modules.append(
                    {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}[layer.name]()
                )
    # Without gradients of the weights, which foolbox would compute and not use.
    return torch.nn.Sequential(*modules).eval().requires_grad_(False)


def theirs(attack: object, pack: Pack, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The same by foolbox, network by network."""
    import foolbox

    images = x.permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        predicted = pack(x).argmax(-1)
    models = [foolbox.PyTorchModel(as_module(pack, k), bounds=(0, 1), device="cpu") for k in range(len(pack))]

    def run() -> torch.Tensor:
        pairs = zip(models, predicted, strict=True)
        return torch.stack([attack(model, images, labels, epsilons=BALL.delta)[2] for model, labels in pairs])

    return run


def attacks(pack: Pack, x: torch.Tensor) -> None:
    """Print a table of times and success rates."""
    import foolbox
    from foolbox.attacks import LinfFastGradientAttack, LinfProjectedGradientDescentAttack

    alike, both = ClassChangeByCrossEntropy(), ClassChange()
    pgd = LinfProjectedGradientDescentAttack(rel_stepsize=TRAVEL / STEPS, steps=STEPS, random_start=True)
    equal = Pgd(steps=STEPS, restarts=1, early_exit=False)
    rows = {
        "FGSM": {
            f"foolbox {foolbox.__version__}": theirs(LinfFastGradientAttack(), pack, x),
            "equal work": lambda: ours(Fgsm(), pack, x, alike),
        },
        f"PGD-{STEPS}": {
            f"foolbox {foolbox.__version__}": theirs(pgd, pack, x),
            "equal work": lambda: ours(equal, pack, x, alike),
            "early exit": lambda: ours(Pgd(steps=STEPS, restarts=1), pack, x, alike),
            "as a study runs it: margin, then cross-entropy": lambda: ours(Pgd(steps=STEPS), pack, x, both),
        },
    }
    print(f"\nL∞, δ = {BALL.delta}, {len(pack)} networks × {len(x)} points; medians of {TURNS} turns\n")
    print(f"{'':9}{'':50}{'seconds':>9}{'× foolbox':>11}{'µs a point':>12}{'changed':>9}")
    for name, columns in rows.items():
        seconds: dict[str, list[float]] = {column: [] for column in columns}
        changed = {}
        for turn in range(TURNS + 1):  # the first warms up
            for column, run in columns.items():
                started = time.process_time()
                changed[column] = run()
                if turn:
                    seconds[column].append(time.process_time() - started)
        reference = statistics.median(next(iter(seconds.values())))
        for column, times in seconds.items():
            median = statistics.median(times)
            each = median / len(pack) / len(x) * 1e6
            share = changed[column].float().mean().item()
            print(f"{name:9}{column:50}{median:9.2f}{reference / median:11.2f}{each:12.1f}{share:9.4f}")


def processor() -> str:
    """The processor's name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    torch.set_num_threads(1)
    shape = sys.argv[1] if len(sys.argv) > 1 else "2x64"
    depth, width = map(int, shape.split("x"))
    dataset = load("mnist5k", Path("data"))
    network = layers("fcn", {"depth": depth, "width": width, "activation": "relu"}, dataset.x_train.shape[1:], 10)
    pack = trained(network, dataset)
    x = torch.from_numpy(dataset.x_test[:POINTS])
    accuracy = (pack(torch.from_numpy(dataset.x_test)).argmax(-1) == torch.from_numpy(dataset.y_test)).float().mean()
    print(f"{processor()}, 1 thread, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{len(pack)} FCNs {shape}, relu, trained {EPOCHS} epochs on {dataset.facts.name}: accuracy {accuracy:.3f}")
    attacks(pack, x)


if __name__ == "__main__":
    main()
