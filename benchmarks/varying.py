"""How closely softmax variation is enclosed by branch and bound, by CROWN and PGD alone, and by α-CROWN.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/varying.py FOLDER [SECONDS [POINTS]]

Networks of studies/small-paper.yaml (its grid `seeds`, first seed, 5 epochs), trained on FOLDER/mnist.npz, at POINTS
(default: 100) random test images and the paper's δ. Printed are D(ḡ) and the share of points below γ = 0.5 as PGD
leaves them and as they are certified, with the processor time of each; branch and bound has SECONDS (default: 0.5) for
each point that is left. Certified must be no better than attacked at every point, or the benchmark fails.
"""

import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np
import torch

from deltaball.data.datasets import load
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.branched import Branched
from deltaball.local.certificates.certificate import AlphaCrown, Crown
from deltaball.local.judge import Judge
from deltaball.local.notions import Notion, SoftmaxVariation, VariationAbove
from deltaball.networks.packs import Pack
from deltaball.plan import loading
from deltaball.store.store import Store
from deltaball.training import sgd

STUDY = Path(__file__).parent.parent / "studies/small-paper.yaml"
SEED, EPOCHS = 1, 5
DELTAS = (0.05, 0.1)


def main() -> None:
    folder = Path(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
    points = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    torch.set_num_threads(1)
    planned, data = loading.planned(STUDY), load("mnist", folder)
    chosen = np.random.default_rng(0).permutation(len(data.x_test))[:points]
    x = torch.from_numpy(data.x_test[chosen])
    networks = [
        one
        for one in planned.networks
        if one.grid == "seeds" and one.axes["seed"] == SEED and one.axes["epochs"] == EPOCHS
    ]
    print(f"{points} points, one core; {seconds} s for each point that is left; processor seconds in brackets")
    for network in networks:
        (pack,) = planned.packed([(network.trajectory_id, network.checkpoint)])
        with tempfile.TemporaryDirectory() as results:
            store = Store(Path(results))
            with redirect_stdout(sys.stderr):
                sgd.train(pack, planned.layers(network), data, store, "cpu")
            trained = store.load(network.trajectory_id, network.checkpoint)
        model = Pack.of(planned.layers(network), [trained.weights])
        axes = network.axes
        title = f"{axes['depth']}×{axes['width']} {axes['activation']}, rate {axes['learning_rate']}"
        for delta in DELTAS:
            for notion in (SoftmaxVariation(), VariationAbove(0.5)):
                report(f"{title}, δ = {delta}, {notion.entry.quantity}", model, x, Ball("linf", delta), notion, seconds)


def report(title: str, model: Pack, x: torch.Tensor, ball: Ball, notion: Notion, seconds: float) -> None:
    judges = {"PGD": Pgd(), "CROWN": Crown(), "α-CROWN": AlphaCrown(), "branch and bound": Branched(seconds)}
    outcomes, taken = {}, {}
    for name, judge in judges.items():
        outcomes[name], taken[name] = timed(judge, model, x, ball, notion)
    attacked = outcomes["PGD"]
    for name, outcome in outcomes.items():
        beyond = outcome - attacked if notion.entry.violations_raise else attacked - outcome
        assert (beyond >= 0).all(), f"{title}: {name} contradicts PGD"
    found = ", ".join(f"{name} {outcomes[name].mean():.3f} ({taken[name]:.1f})" for name in judges)
    print(f"{title}: {found}", flush=True)


def timed(judge: Judge, model: Pack, x: torch.Tensor, ball: Ball, notion: Notion) -> tuple[torch.Tensor, float]:
    started = time.process_time()
    ((_, _, verdict),) = judge(model, x, {ball: [notion]}, range(len(x)))
    return verdict.outcome[0], time.process_time() - started


if __name__ == "__main__":
    main()
