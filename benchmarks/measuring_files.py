"""What `deltaball measure-file` takes for a Keras file of a 784-256-256-10 network: FGSM, PGD and CROWN on 738 points.

    .venv/bin/python benchmarks/measuring_files.py [TURNS]

The network is trained for two epochs on mnist5k by Keras. The command is a process of its own, so its time has starting
up in it; its processor time is what other work on the machine leaves alone. One thread; the goal is 20 s.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "MKL_CBWR": "AUTO"}

import keras

from deltaball.data.datasets import load

GOAL = 20.0
ASKED = ["--dataset", "mnist5k", "--epsilon", "0.05", "--confidence", "0.95", "--delta", "0.05"]
JUDGES = ["--attack", "fgsm", "pgd", "--certificate", "crown"]


def trained(path: Path) -> None:
    data = load("mnist5k", Path("data"))
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(256, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(data.x_train.reshape(-1, 784), data.y_train, epochs=2, verbose=0)
    model.save(path)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(turns: int) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.keras"
        trained(file)
        for turn in range(turns):
            began, before = time.perf_counter(), processor_seconds()
            command = [sys.executable, "-m", "deltaball", "measure-file", str(file), *ASKED, *JUDGES]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken, used = time.perf_counter() - began, processor_seconds() - before
            if not turn:
                print(said)
            print(f"{taken:.1f} s, of which {used:.1f} s of processor time ({used / GOAL:.2f} of the goal); ", end="")
            print(f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
