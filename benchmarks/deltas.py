"""Where do a study's networks differ? Each measure on training images, so that δ's are not chosen on test points.

    .venv/bin/python benchmarks/deltas.py [STUDY]

The study must have been trained: its weights are read from the store.

Prints, over the trained networks of each data set, the 10 %, 50 % and 90 % quantiles of R or D on 320 images of the
training split. Nothing is kept.
"""

import os
import sys
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")

import numpy as np

from deltaball.estimation.outcomes import outcomes
from deltaball.networks.packs import Pack
from deltaball.plan import loading
from deltaball.store.store import Store

IMAGES = 320


def main() -> None:
    study = Path(sys.argv[1] if len(sys.argv) > 1 else "config.yaml")
    plan = loading.planned(study)
    store, found = Store(plan.study.store), defaultdict(list)
    for pack in plan.packed((one.trajectory_id, one.checkpoint) for one in plan.networks):
        facts = plan.facts[pack[0].dataset]
        images = store.load_dataset(facts).x_train
        chosen = images[np.random.default_rng(0).permutation(len(images))[:IMAGES]]
        places = [(one.id, step) for one in pack for step in one.checkpoints]
        trained = [place for place in places if store.has(*place) and store.facts(*place)["status"] == "trained"]
        (first, *_) = plan.networks_of(pack)
        asked = plan.measures_of(first)
        if trained and asked:
            networks = Pack.of(plan.layers(pack[0]), [store.load(*place).weights for place in trained])
            for measure, judged in outcomes(networks, chosen, asked, "cpu").items():
                found[facts.name, measure.name].extend(judged.outcomes.mean(1))
    for (dataset, measure), values in found.items():
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(f"{dataset}  {measure:40} {low:.2f}  {middle:.2f}  {high:.2f}   {len(values)} networks")


if __name__ == "__main__":
    main()
