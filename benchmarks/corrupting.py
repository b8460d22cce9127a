"""How long corrupting a whole data set takes: every image under every corruption at MNIST-C's severity.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/corrupting.py mnist [FOLDER_OF_DATA]

Printed are seconds of the processor per corruption, on one core, and how long it takes to read them when they are kept.
Then what corrupted images add to measuring a pack on 1,000 test points under the fifteen in turn: the first pack of a
study makes them, and every later one is shown what is kept.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

from deltaball.data import datasets
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.local.corruptions.kept import Kept
from deltaball.local.kernels.kernel import kernel
from deltaball.local.kernels.known import Known
from deltaball.study.corruptions import CORRUPTIONS, FIFTEEN
from deltaball.study.kernels import ChosenKernel

POINTS = 1000


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    dataset = datasets.load(name, folder)
    images = as_bytes(dataset.x_train)
    total = {"made": 0.0, "read": 0.0}
    with tempfile.TemporaryDirectory() as kept:
        for one in CORRUPTIONS:
            for what in total:
                start = time.process_time()
                corrupted(one, images, range(len(images)), folder=Path(kept))
                took = time.process_time() - start
                total[what] += took
                print(f"{one:15} {what} in {took:6.2f} s", flush=True)
    print(f"{len(images):,} images × {len(CORRUPTIONS)}: made in {total['made']:.0f} s, read in {total['read']:.0f} s")
    _measure(torch.from_numpy(dataset.x_test[:POINTS]))


def _measure(points: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as kept:
        for pack in ("first", "next"):
            corrupted = Kept(as_bytes(points.numpy()), Path(kept))
            known = Known(points.numpy(), points[:, 0, 0, 0].numpy(), corrupted=corrupted)
            start = time.process_time()
            for _ in islice(kernel(ChosenKernel("mnist_c"), known).draws(points, range(len(points))), len(FIFTEEN)):
                pass
            took = time.process_time() - start
            print(f"the {pack} pack measured on {len(points):,} points under the fifteen: {took:.2f} s of images")


if __name__ == "__main__":
    main()
