"""What a GPU is to show, in one call of at most nine minutes, whatever fails: `make gpu`.

    make gpu                        every part, each in a process of its own and within its own time
    make gpu PART=training          one part, with all the time; what it finds joins what is there
    make gpu DEVICE=cpu BUDGET=tiny the rehearsal: every part, on a CPU and tiny; its numbers mean nothing

Made for a machine that has Python, torch and JAX with a GPU and nothing else: wheels that lie in the folder WHEELS
(`make gpu-wheels` fills it elsewhere) are put into a folder of their own first. The data sets mnist and fashion_mnist
are read from data/; where they are not, noise of their shape is trained on, which takes as long and learns nothing.

The folder OUT has at most eight files: summary.md, the goals beside what was measured; results.jsonl, every number with
its hardware; log.txt; rates-cuda.json, for `deltaball plan`; trials.json, which convolutions were the fastest;
networks.csv, the networks of the slice of the study.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(os.environ.get("OUT") or "gpu-results").resolve()
WHEELS = Path(os.environ.get("WHEELS") or ROOT / "gpu-wheels").resolve()
SITE = Path(os.environ.get("SITE") or "/tmp/deltaball-gpu-site")
DEVICE = os.environ.get("DEVICE") or "cuda"
TINY = os.environ.get("BUDGET") == "tiny"
WHOLE = float(os.environ.get("SECONDS") or 540)  # of a call
SPARE = 15.0  # of these, for the wheels and the summary

# Seconds of each part, in the order in which they run; a call with less time has less of each.
PARTS = {"tests": 70, "training": 110, "hmc": 60, "measure": 45, "certify": 30, "study": 120, "calibrate": 90}


@dataclass(frozen=True)
class Goal:
    """What was set before anything was measured."""

    part: str
    name: str
    wanted: float
    unit: str
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.wanted if self.at_most else value >= self.wanted


GOALS = (
    Goal("training", "FCN 256×2", 3.4e7, "sample-steps/s"),
    Goal("training", "FCN 64×1", 1.4e8, "sample-steps/s"),
    Goal("training", "CNN 20 k5 ×2", 9e5, "sample-steps/s"),
    Goal("training", "VGG 48 k3 ×2", 3.2e5, "sample-steps/s"),
    Goal("hmc", "HMC 512×2", 40, "TFLOP/s"),
    Goal("measure", "PGD-40 beside a loop of foolbox", 20, "×"),
    Goal("study", "B.1–B.4", 18, "minutes", at_most=True),
)

# What the parts import beyond the standard library.
NEEDED = (
    *("numpy", "scipy", "pandas", "pyarrow", "torch", "jax", "numpyro", "keras", "pydantic", "yaml", "safetensors"),
    *("sklearn", "highspy", "mlxtend", "foolbox", "pytest", "hypothesis"),
)


def main() -> int:
    """Run the parts that are asked for; 1 if one of them failed."""
    began = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    parts = os.environ.get("PART", "").replace(",", " ").split() or [*PARTS]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        sys.exit(f"PART={unknown[0]}: no such part; possible: {', '.join(PARTS)}")
    environment = prepared()
    share = (WHOLE - SPARE) / sum(PARTS[part] for part in parts)
    ended = _statuses()
    for number, part in enumerate(parts):
        left = WHOLE - SPARE - (time.monotonic() - began)
        # What a part leaves over goes to those that come.
        share = max(share, left / sum(PARTS[one] for one in parts[number:]))
        budget = max(0.0, min(left, PARTS[part] * share))
        ended[part] = run(part, budget, environment)
        (OUT / "statuses.json").write_text(json.dumps(ended, indent=1) + "\n")
        (OUT / "summary.md").write_text(summary(ended))
    print((OUT / "summary.md").read_text())
    return int(any(ended[part] == "failed" for part in parts))


def prepared() -> dict[str, str]:
    """The environment of the parts, with the wheels unpacked; says what they will miss."""
    wheels = sorted(map(str, WHEELS.glob("*.whl")))
    if wheels and not SITE.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--find-links", str(WHEELS), "--target", str(SITE), *wheels], check=False)
    path = [str(ROOT / "src"), *([str(SITE)] if SITE.exists() else []), os.environ.get("PYTHONPATH", "")]
    sys.path[1:1] = [str(SITE)]
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        log(f"missing here: {', '.join(missing)}; what needs them will fail")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1"}


def run(part: str, budget: float, environment: dict[str, str]) -> str:
    """Run a part in a process of its own; returns how it ended."""
    log(f"\n== {part}, {budget:.0f} s ==")
    _forget(part)
    command = [sys.executable, str(ROOT / "benchmarks/gpu_parts.py"), part, str(budget * 0.9)]
    began = time.monotonic()
    with (OUT / "log.txt").open("a") as said:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=budget)
            status = "done" if process.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with what it started itself
            output, _ = process.communicate()
            status = "out of time"
        said.write(output)
    print(output[-4000:], flush=True)
    log(f"== {part}: {status} after {time.monotonic() - began:.0f} s ==")
    return status


def log(line: str) -> None:
    print(line, flush=True)
    with (OUT / "log.txt").open("a") as said:
        said.write(line + "\n")


def note(part: str, what: str, value: float, unit: str, goal: str = "") -> None:
    """Write down a number at once, so that it stays when the part is stopped."""
    row = {"part": part, "what": what, "value": value, "unit": unit, "goal": goal, "hardware": hardware(), "tiny": TINY}
    print(f"{what}: {value:.4g} {unit}", flush=True)
    with (OUT / "results.jsonl").open("a") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def noted() -> list[dict[str, Any]]:
    path = OUT / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _forget(part: str) -> None:
    """What a part found before it is run again."""
    kept = [row for row in noted() if row["part"] != part]
    (OUT / "results.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _statuses() -> dict[str, str]:
    path = OUT / "statuses.json"
    return json.loads(path.read_text()) if path.exists() else {}


def hardware() -> str:
    import torch

    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "a CPU"
    return f"{name}, torch {torch.__version__}"


def summary(ended: dict[str, str]) -> str:
    """The goals beside what was measured, and everything else that was."""
    rows = noted()
    named = sorted({row["hardware"] for row in rows}) or ["nothing"]
    lines = [f"# Measured on {' and '.join(named)}", ""]
    if any(row["tiny"] for row in rows):
        lines += ["A rehearsal with tiny sizes: the numbers mean nothing.", ""]
    lines += ["| goal | wanted | measured | by | met |", "|---|---:|---:|---|---|"]
    for goal in GOALS:
        found = [row for row in rows if row["part"] == goal.part and row["goal"] == goal.name]
        wanted = f"{'≤' if goal.at_most else '≥'} {goal.wanted:g} {goal.unit}"
        if not found:
            lines.append(f"| {goal.name} | {wanted} | not measured | | |")
            continue
        best = (min if goal.at_most else max)(found, key=lambda row: row["value"])
        met = "yes" if goal.met(best["value"]) else "no"
        lines.append(f"| {goal.name} | {wanted} | {best['value']:.4g} | {best['what']} | {met} |")
    lines += ["", "| part | ended | what | measured |", "|---|---|---|---:|"]
    for part in PARTS:
        mine = [row for row in rows if row["part"] == part]
        lines += [f"| {part} | {ended.get(part, 'not run')} | | |"] if not mine else []
        lines += [
            f"| {part} | {ended.get(part, '')} | {row['what']} | {row['value']:.4g} {row['unit']} |" for row in mine
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
