"""ResNet20 trained by deltaball and by plain torch, one network as a torch user writes it, in one run on one core.

    .venv/bin/python benchmarks/residual.py [WIDTH]

Batches of 128 images of 32×32×3, SGD without momentum, whole epochs with their shuffling; processor time, the median of
TURNS epochs in turn after a first one of each. Other work on the machine stretches both alike, as far as it does.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from tempfile import TemporaryDirectory

import training  # it sets what must be set before torch is imported

from deltaball.run.libraries import prepare_torch
from deltaball.study.architectures import layers

POINTS, TURNS = 256, 3


def plain_torch(width: int, channels_last: bool = False) -> Callable[[], object]:
    """An epoch of the same network in torch's own modules; in memory its channels come first or last."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, entering: int, filters: int) -> None:
            super().__init__()
            self.halves, self.missing = filters != entering, filters - entering
            self.body = nn.Sequential(
                nn.Conv2d(entering, filters, 3, 2 if self.halves else 1, 1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shortcut = x[:, :, ::2, ::2] if self.halves else x
            before = self.missing // 2
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.missing - before)) if self.halves else x
            return functional.relu(self.body(x) + shortcut)

    filters = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
    blocks = [Block(entering, leaving) for entering, leaving in pairwise(filters)]
    start = (nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))
    model = nn.Sequential(*start, *blocks, *end)
    network = layers("resnet20", {"width": width}, (32, 32, 3), 10)
    assert sum(one.numel() for one in model.parameters()) == network.parameters
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, labels = training.arrays(network.shape, POINTS)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels).long()
    memory = torch.channels_last if channels_last else torch.contiguous_format
    model, x = model.to(memory_format=memory), x.contiguous(memory_format=memory)

    def epoch() -> None:
        for chosen in torch.randperm(len(x)).split(training.BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()

    return epoch


def main(width: int) -> None:
    prepare_torch("cpu")
    training.NETWORKS["ResNet20"] = (layers("resnet20", {"width": width}, (32, 32, 3), 10), POINTS)
    with TemporaryDirectory() as one, TemporaryDirectory() as four:
        work = {
            "plain torch": (1, plain_torch(width)),
            "plain torch, channels last": (1, plain_torch(width, channels_last=True)),
            "deltaball, pack of 1": (1, training.ours("ResNet20", "cpu", 1, one)),
            "deltaball, pack of 4": (4, training.ours("ResNet20", "cpu", 4, four)),
        }
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(1 + TURNS):
            for name, (networks, epoch) in work.items():
                began = time.process_time()
                epoch()
                taken[name].append((time.process_time() - began) / networks)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    print(f"ResNet20 of width {width}, batches of {training.BATCH}; load {os.getloadavg()[0]:.1f}")
    first, last = (medians[name] for name in ("plain torch", "plain torch, channels last"))
    for name, seconds in medians.items():
        print(f"{name:26} {POINTS / seconds:8,.0f} sample-steps/s of a network, ", end="")
        print(f"{first / seconds:5.2f} times plain torch, {last / seconds:5.2f} times that with channels last")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 16)
