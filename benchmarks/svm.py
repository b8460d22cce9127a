"""How long a support vector machine takes on a whole data set, and how accurate it is (paper 003: γ = 0.05, C = 5).

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/svm.py mnist [FOLDER_OF_DATA]

Printed are seconds of the processor on one core, and test accuracy.
"""

import sys
import time
from pathlib import Path

import torch

from deltaball.data import datasets
from deltaball.networks.layers import Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.networks.support_vectors import SupportVectors
from deltaball.training.svm import fitted

GAMMA, PENALTY = 0.05, 5.0


@torch.no_grad()
def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    data = datasets.load(name, folder)
    machine = SupportVectors(GAMMA, data.facts.classes)
    start = time.process_time()
    weights = fitted(data.x_train.reshape(len(data.x_train), -1), data.y_train, machine, PENALTY)
    print(f"{len(weights[0]):,} support vectors in {time.process_time() - start:.0f} s", flush=True)
    network = Pack.of(Layers(data.facts.shape, (Flatten(), machine)), [weights])
    start = time.process_time()
    right = network(torch.from_numpy(data.x_test))[0].argmax(1).numpy() == data.y_test
    took = time.process_time() - start
    print(f"{right.mean():.2%} of {len(right):,} test images are right, in {took:.0f} s")


if __name__ == "__main__":
    main()
