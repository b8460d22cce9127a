"""What measuring costs on this machine: attacks on a pack, ours against a loop of foolbox over its networks.

    .venv/bin/python -m pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/measuring.py [DEPTHxWIDTH]

64 FCNs (default 2x64) are trained on mnist5k for some epochs, and each is attacked at 738 test points in the L∞ ball.
Both sides attack the predicted class with the same number of steps. "Equal work": cross-entropy, one restart, no early
exit. Ours then also finds the predicted class, judges every iterate, keeps the worst and judges that again; foolbox is
given the predicted class and judges the last iterate.

The median of several turns counts: on a CPU of the CPU times of one thread, which other jobs do not stretch; on a
GPU of the clock's.
"""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch
from training import seconds

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
from deltaball.run.libraries import prepare_torch
from deltaball.study.architectures import layers
from deltaball.training.objectives.cross_entropy import cross_entropy as training_loss
from deltaball.training.optimizers import sgd_step

NETWORKS, POINTS, TURNS = 64, 738, 5
EPOCHS, RATE, BATCH = 5, 0.1, 50
BALL = Ball("linf", 0.05)
STEPS, TRAVEL = 40, 2.5
# Networks and points that are attacked in one call: on a CPU, what a step makes of them stays in the cache.
NETWORKS_AT_ONCE = {"cpu": 16, "cuda": 64}
POINTS_AT_ONCE = {"cpu": 128, "cuda": 768}


@dataclass(frozen=True)
class Row:
    """One way of attacking a pack, and what it took."""

    attack: str
    who: str
    seconds: float
    ratio: float  # of foolbox' seconds to these
    changed: float  # share of the points whose class it changed


@dataclass(frozen=True)
class ClassChangeByCrossEntropy(ClassChange):
    """Attacked by the loss that foolbox ascends."""

    losses = (cross_entropy,)


def trained(network: Layers, dataset: Dataset, device: str, networks: int = NETWORKS, epochs: int = EPOCHS) -> Pack:
    """A pack of networks from different initial weights, trained by SGD on the same batches."""
    drawn = [initial_weights(network, np.random.default_rng(k)) for k in range(networks)]
    weights = Pack.of(network, drawn, device).weights
    x, y = (torch.from_numpy(one).to(device) for one in (dataset.x_train, dataset.y_train))
    rates = torch.full((networks,), RATE, device=device)
    for epoch in range(epochs):
        for batch in np.array_split(np.random.default_rng(epoch).permutation(len(x)), len(x) // BATCH):
            weights = tuple(weight.requires_grad_() for weight in weights)
            loss = training_loss(logits(network, weights, x[batch]), y[batch]).sum()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                sgd_step(weights, gradients, rates)
    return Pack(network, tuple(weight.detach() for weight in weights))


def ours(attack: Attack, pack: Pack, x: torch.Tensor, notion: ClassChange) -> torch.Tensor:
    """bool [K, n]: where a violation was found."""
    found = torch.empty(len(pack), len(x), dtype=torch.bool, device=x.device)
    networks, points = NETWORKS_AT_ONCE[x.device.type], POINTS_AT_ONCE[x.device.type]
    for start in range(0, len(pack), networks):
        some = pack.part(slice(start, start + networks))
        for first in range(0, len(x), points):
            block = x[first : first + points]
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
    models = [foolbox.PyTorchModel(as_module(pack, k), bounds=(0, 1), device=x.device) for k in range(len(pack))]

    def run() -> torch.Tensor:
        pairs = zip(models, predicted, strict=True)
        return torch.stack([attack(model, images, labels, epsilons=BALL.delta)[2] for model, labels in pairs])

    return run


def attacks(pack: Pack, x: torch.Tensor, turns: int = TURNS, steps: int = STEPS) -> Iterator[Row]:
    """What each attack took, by foolbox first where that is installed."""
    alike, both = ClassChangeByCrossEntropy(), ClassChange()
    equal = Pgd(steps=steps, restarts=1, early_exit=False)
    table = {
        "FGSM": {"equal work": lambda: ours(Fgsm(), pack, x, alike)},
        f"PGD-{steps}": {
            "equal work": lambda: ours(equal, pack, x, alike),
            "early exit": lambda: ours(Pgd(steps=steps, restarts=1), pack, x, alike),
            "as a study runs it: margin, then cross-entropy": lambda: ours(Pgd(steps=steps), pack, x, both),
        },
    }
    if find_spec("foolbox"):
        import foolbox
        from foolbox.attacks import LinfFastGradientAttack, LinfProjectedGradientDescentAttack

        pgd = LinfProjectedGradientDescentAttack(rel_stepsize=TRAVEL / steps, steps=steps, random_start=True)
        for name, attack in (("FGSM", LinfFastGradientAttack()), (f"PGD-{steps}", pgd)):
            table[name] = {f"foolbox {foolbox.__version__}": theirs(attack, pack, x), **table[name]}
    for name, columns in table.items():
        times = {who: [timed(run, x.device.type) for _ in range(turns)] for who, run in warmed(columns).items()}
        medians = {who: statistics.median(taken for taken, _ in turns) for who, turns in times.items()}
        reference = next((taken for who, taken in medians.items() if who.startswith("foolbox")), float("nan"))
        for who, taken in medians.items():
            yield Row(name, who, taken, reference / taken, times[who][-1][1])


def warmed(columns: dict[str, Callable[[], torch.Tensor]]) -> dict[str, Callable[[], torch.Tensor]]:
    for run in columns.values():
        run()
    return columns


def timed(run: Callable[[], torch.Tensor], device: str) -> tuple[float, float]:
    """Seconds of a call, and the share of points that it changed."""
    changed: list[torch.Tensor] = []
    return seconds(lambda: changed.append(run()), device), changed[0].float().mean().item()


def processor() -> str:
    """The processor's name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare_torch(device)
    shape = sys.argv[1] if len(sys.argv) > 1 else "2x64"
    depth, width = map(int, shape.split("x"))
    dataset = load("mnist5k", Path("data"))
    network = layers("fcn", {"depth": depth, "width": width, "activation": "relu"}, dataset.x_train.shape[1:], 10)
    pack = trained(network, dataset, device)
    x, tested, labels = (
        torch.from_numpy(one).to(device) for one in (dataset.x_test[:POINTS], dataset.x_test, dataset.y_test)
    )
    accuracy = (pack(tested).argmax(-1) == labels).float().mean()
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, 1 thread"
    print(f"{hardware}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{len(pack)} FCNs {shape}, relu, trained {EPOCHS} epochs on {dataset.facts.name}: accuracy {accuracy:.3f}")
    print(f"\nL∞, δ = {BALL.delta}, {len(pack)} networks × {len(x)} points; medians of {TURNS} turns\n")
    print(f"{'':9}{'':50}{'seconds':>9}{'× foolbox':>11}{'µs a point':>12}{'changed':>9}")
    for one in attacks(pack, x):
        each = one.seconds / len(pack) / len(x) * 1e6
        print(
            f"{one.attack:9}{one.who:50}{one.seconds:9.2f}{one.ratio:11.2f}{each:12.1f}{one.changed:9.4f}", flush=True
        )


if __name__ == "__main__":
    main()
