"""What statistics, figures and report of the paper's study cost, and how fast its page opens.

    .venv/bin/python benchmarks/reporting.py [STUDY] [FOLDER]

The study's plan is the true one; its results are invented (a model in which accuracy and robustness follow from the
hyper-parameters), so the pictures mean nothing. Each stage runs as the command that users run, on one core; statistics
and figures side by side, as Snakemake runs them on two. The page is opened in headless Chromium where there is one. The
folder keeps what was made.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import yaml

from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns, frames

ROOT = Path(__file__).resolve().parent.parent
STAGES = (("analyse", "figures"), ("report",))  # what waits for what
HARDNESS = {"fashion_mnist": 0.10, "cifar10": 0.28}  # what of the accuracy a data set takes
# Runs a command and says on the last line what it took: seconds, those of a processor, and the largest memory, KiB.
TIMED = (
    "import json, resource, subprocess, sys, time; started = time.perf_counter(); "
    "subprocess.run(sys.argv[1:], check=True); "
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    "print(json.dumps([time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss]))"
)


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "studies/paper.yaml"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="reporting-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / source.name
    settings = yaml.safe_load(source.read_text(encoding="utf-8"))
    study.write_text(yaml.safe_dump({**settings, "results": str(folder)}, allow_unicode=True), encoding="utf-8")
    plan = loading.planned(study)
    invent(plan)
    rows = len(frames.read(plan.study.folder / "robustness.parquet"))
    print(f"{source}: {len(plan.networks):,} networks, {rows:,} estimates, in {folder}")
    started = time.perf_counter()
    for together in STAGES:
        running = [
            (stage, _timed([sys.executable, "-m", "deltaball", stage, "--study", str(study)])) for stage in together
        ]
        for stage, one in running:
            seconds, busy, memory = _took(one)
            print(f"{stage:10} {seconds:6.1f} s   processor {busy:6.1f} s   {memory / 2**20:.2f} GiB", flush=True)
    print(f"{'together':10} {time.perf_counter() - started:6.1f} s")
    page = plan.study.folder / "report.html"
    print(f"the page is {page.stat().st_size / 1e6:.1f} MB; {_opened(page)}")


def _timed(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", TIMED, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _took(process: subprocess.Popen[str]) -> tuple[float, float, int]:
    """Seconds of a stage, those of a processor, and the largest memory it had, KiB."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args[3:]} failed")
    seconds, busy, memory = json.loads(said.splitlines()[-1])
    return seconds, busy, memory


def _opened(page: Path) -> str:
    """How long a browser takes until everything on the page has been drawn, which the page itself notes."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "no Chromium is here to open it"
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={profile}"]
        flags += ["--window-size=1280,900", "--virtual-time-budget=20000", "--dump-dom"]
        started = time.perf_counter()
        found = subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, text=True)
        whole = time.perf_counter() - started
    drawn = re.search(r'data-drawn="(\d+)"', found.stdout)
    inside = f"drawn {int(drawn[1]) / 1000:.1f} s after navigation" if drawn else "its explorer was never drawn"
    return f"{inside}; {whole:.1f} s with the start of the browser"


def invent(plan: Plan) -> None:
    """Write the tables of a study in which nearly everything was trained and measured."""
    generator = np.random.default_rng(0)
    networks = frames.networks(plan, [])
    size = np.log2(networks["parameters"] / networks["parameters"].median()).to_numpy(float)
    rate = np.log2(networks["learning_rate"].fillna(0.005).astype(float) / 0.005).to_numpy()
    length = np.log2(networks["epochs"].astype("float64").fillna(10).to_numpy() / 10)
    slow = (networks["activation"] == "sigmoid").to_numpy() * (1.5 + np.maximum(0, -rate))
    progress = 2.2 + 0.5 * rate + 0.6 * length - slow + 0.1 * size + generator.normal(0, 0.4, len(networks))
    best = 0.985 - networks["dataset"].map(HARDNESS).fillna(0).to_numpy()
    chains = (networks["method"] == "hmc").to_numpy()
    pruned = networks["proportion"].astype("float64").fillna(0).to_numpy()
    accuracy = 0.1 + (best - 0.1) / (1 + np.exp(-progress)) - 0.03 * (pruned > 0.95)
    weakness = 0.5 * progress * np.where(chains, -0.6, 1) + 0.15 * size + generator.normal(0, 0.3, len(networks))
    known = generator.uniform(size=len(networks)) > 0.002
    facts = pd.DataFrame(
        {
            "network_id": networks["network_id"],
            "sparsity": pruned,
            "sparsity_total": 0.9 * pruned,
            "empty_layers": 0,
            "trunk_accuracy": np.where(pruned > 0, accuracy + generator.normal(0, 0.01, len(networks)), np.nan),
            "train_accuracy": np.minimum(1, accuracy + 0.01),
            "test_accuracy": accuracy.clip(0.05, 1),
            "test_loss": -np.log(accuracy.clip(0.05, 1)),
            "acceptance": np.where(chains, generator.uniform(0.05, 1, len(networks)), np.nan),
            "divergences": np.where(chains, generator.integers(0, 9, len(networks)), np.nan),
            "ess_min": np.where(chains, generator.lognormal(4.2, 0.8, len(networks)), np.nan),
            "rhat_max": np.where(chains, 1 + generator.lognormal(-3.4, 0.9, len(networks)), np.nan),
            "status": np.where(generator.uniform(size=len(networks)) > 0.001, "trained", "diverged"),
            "data_sha256": "invented",
            "software": "invented",
            "device": "none",
        }
    )
    parts = []
    for one in plan.measures:
        there = known & np.array([one.applies_to(network) for network in plan.networks])
        where = np.flatnonzero(there)
        shift = np.log(one.delta / 0.06) * 1.2 - (0 if one.gamma is None else one.gamma)
        broken = 1 / (1 + np.exp(-(weakness[where] + shift - 0.6 + generator.normal(0, 0.15, len(where)))))
        quantity = NOTIONS[one.notion].quantity
        mean = (broken if quantity == "D" else 1 - broken) * one.highest
        if quantity == "R":
            mean = np.round(mean * one.samples) / one.samples
        rows = {
            "network_id": networks["network_id"].to_numpy()[where],
            "measure": one.name,
            "notion": one.notion,
            "norm": one.norm,
            "delta": one.delta,
            "gamma": one.gamma,
            "attack": one.attack,
            "certificate": one.certificate,
            "samples": one.samples,
            "estimate": mean,
            "trunk_estimate": np.where(pruned[where] > 0, mean + generator.normal(0, 0.01, len(where)), np.nan),
            "lower": np.maximum(0, mean - one.epsilon),
            "upper": np.minimum(one.highest, mean + one.epsilon),
            "epsilon": one.epsilon,
            "confidence": one.confidence,
            "inequality": "hoeffding",
            "side": "lower" if bool(one.attack) == (quantity == "D") else "upper",
            "tight_lower": np.maximum(0, mean - 0.7 * one.epsilon),
            "tight_upper": np.minimum(one.highest, mean + 0.7 * one.epsilon),
            "tight_inequality": "betting" if quantity == "D" else "clopper_pearson",
            "undecided": pd.NA,
            "no_gradient": 0 if one.attack else pd.NA,
        }
        parts.append(pd.DataFrame(rows).astype(columns.ROBUSTNESS))
    robustness = frames.robustness(plan, parts)
    attacked = robustness.rename(columns={"estimate": "attacked"})
    folder = plan.study.folder
    frames.write(frames.networks(plan, [facts[known]]), folder / "networks.parquet")
    frames.write(robustness, folder / "robustness.parquet")
    frames.write(attacked.reindex(columns=list(columns.CURVES)).astype(columns.CURVES), folder / "curves.parquet")
    nothing = pd.DataFrame(columns=list(columns.CONVERGENCE)).astype(columns.CONVERGENCE)
    frames.write(nothing, folder / "convergence.parquet")


if __name__ == "__main__":
    main()
