"""How long corrupting a whole data set takes: every image under every corruption at MNIST-C's severity.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/corrupting.py mnist [FOLDER_OF_DATA]

Printed are seconds of the processor per corruption, on one core, and how long it takes to read them when they are kept.
"""

import sys
import tempfile
import time
from pathlib import Path

from deltaball.data import datasets
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.study.corruptions import CORRUPTIONS


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    images = as_bytes(datasets.load(name, folder).x_train)
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


if __name__ == "__main__":
    main()
