"""What does the reader of study files do with files that nobody should write?

    .venv/bin/python benchmarks/fuzzing.py [COUNT] [SEED] [FOLDER]

Mutates the studies of this repository COUNT (2000) times, as text (letters and lines lost, doubled, moved) and as
content (keys misspelt, misplaced, gone; values of other kinds and sizes), and plans each. Fails unless each is planned
or refused in one line that begins with the file, within a time, and what is planned makes sense. FOLDER keeps the files
that fail. Prints how many were planned and refused.
"""

import contextlib
import copy
import datetime
import math
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deltaball.base.errors import InputError
from deltaball.plan import loading
from deltaball.plan.plan import Plan
from deltaball.run import preview
from deltaball.store.store import Store

ROOT = Path(__file__).resolve().parent.parent
SECONDS, GIGABYTES, LONGEST = 60, 6, 700  # for a file, and letters of a line
SMALL = """
study: small
guarantee: {epsilon: 0.1, confidence: 0.9, simultaneous: true}
compute: {device: cpu, shard_minutes: 5}
analysis: {equivalence_margin: 0.1}
measures:
  - {notion: class_change, norm: [linf, l2], delta: [0.1, 8/255], attack: [fgsm, pgd], only: {grid: a}}
  - {notion: variation_above, gamma: 0.5, delta: 0.1, certificate: crown, guarantee: {epsilon: 0.2}, only: {grid: b}}
  - {notion: margin, delta: 1.5, norm: l1, attack: fmn, steps: 50, only: {activation: [relu]}}
  - {notion: class_change, delta: 0.03, certificate: exact, seconds: 5, only: {activation: relu, method: sgd}}
convergence:
  - {measure: {notion: class_change, delta: 0.05, only: {grid: b, epochs: 1}}, epsilon: [0.3, 0.2], draws: 10}
grids:
  - {name: a, dataset: mnist5k, method: imp, architecture: fcn, depth: 1, width: [8, 16], activation: relu,
     proportion: [0.5, 0.75], iterations: [1, 2], learning_rate: 0.1, epochs: 2, batch_size: 64, seed: [0, 1]}
  - {name: b, dataset: mnist5k, method: sgd, architecture: cnn, fc_depth: 1, fc_width: 8, filters: 2, kernel: 3,
     conv_depth: 2, activation: relu, learning_rate: 0.1, optimizer: adam, epochs: [1, 2], sample: {trajectories: 1}}
  - {name: c, dataset: mnist5k, method: hmc, architecture: fcn, depth: 1, width: 8, activation: tanh, step_size: 0.01,
     leapfrog_steps: 5, posterior_samples: [10, 20], train_points: 100, burn_in: 3, thinning: 2, weights: evict}
"""
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        7,
        10**6,
        10**9,
        2**63,
        10**30,
        -(10**30),
        0.0,
        0.5,
        1.0,
        -0.1,
        1.5,
        1e-300,
        1e308,
    ),
    *(math.nan, math.inf, -math.inf, "", " ", "x", "8/255", "1/0", "0x10", "1_000", "1e3", ".nan", "null", "yes", "~"),
    *(
        "../up",
        "/",
        "a/b",
        "a\0b",
        "é",
        "δ" * 300,
        "[1]",
        "relu",
        "fcn",
        "sgd",
        "mnist",
        "mnist5k",
        "exact",
        "all",
        "*",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [1, 1],
        [1, "1"],
        [0.1, True],
        {"a": 1},
        [{}],
        [[1, 2]],
        [1e-9, 1],
        "\n",
        "a: b",
        "!!int 3",
    ),
    *(datetime.date(2024, 2, 29), [*range(1, 400)], b"bytes", {"notion": "class_change"}, 3.0, 1e20, -0.0, 5e-324),
]
LETTERS = "\t\n :,-[]{}#&*!|>'\"%@`\\0a1.é\x07\ufeff\x85"


def places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every item of a study's content."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(content: Any, path: tuple) -> Any:
    for key in path:
        content = content[key]
    return content


def changed(content: Any, draws: random.Random, others: list[Any]) -> Any:
    """The content with something changed about one item."""
    content = copy.deepcopy(content)
    every = list(places(content))
    if not every:
        return draws.choice(VALUES)
    *above, key = draws.choice(every)
    parent = at(content, tuple(above))
    value = parent[key]
    match draws.randrange(9):
        case 0:
            parent[key] = copy.deepcopy(draws.choice(VALUES))
        case 1:
            del parent[key]
        case 2 if isinstance(parent, dict):  # misspelt
            name = str(key)
            place = draws.randrange(len(name) + 1)
            parent[name[:place] + draws.choice("aeiou_ ") + name[place + 1 :]] = parent.pop(key)
        case 3:  # misplaced
            target = at(content, draws.choice([(), *every]))
            if isinstance(target, dict):
                target[str(key)] = copy.deepcopy(value)
        case 4:  # what stands elsewhere
            other = draws.choice(others)
            parent[key] = copy.deepcopy(at(other, draws.choice(list(places(other)))))
        case 5:
            parent[key] = [copy.deepcopy(value)] * draws.choice([0, 1, 2])
        case 6:
            parent[key] = {"only": copy.deepcopy(value)}
        case 7 if isinstance(value, list):
            value.insert(draws.randrange(len(value) + 1), copy.deepcopy(draws.choice(VALUES)))
        case _:
            if isinstance(value, int | float) and not isinstance(value, bool):
                parent[key] = draws.choice([-value, value * 10, value / 3, value * 1e6, str(value), [value, value * 2]])
            else:
                parent[key] = copy.deepcopy(draws.choice(VALUES))
    return content


def garbled(text: str, draws: random.Random) -> bytes:
    """The text with something changed about its letters or lines."""
    lines = text.splitlines(keepends=True)
    place, line = draws.randrange(len(text)), draws.randrange(len(lines))
    match draws.randrange(9):
        case 0:
            text = text[:place]
        case 1:
            text = text[:place] + text[place + draws.choice([1, 3, 20]) :]
        case 2:
            text = text[:place] + draws.choice(LETTERS) + text[place:]
        case 3:
            text = text[:place] + draws.choice(LETTERS) * draws.choice([2, 1000]) + text[place:]
        case 4:
            text = "".join([*lines[:line], *lines[line + 1 :]])
        case 5:
            text = "".join([*lines[: line + 1], *lines[line:]])
        case 6:
            text = "".join([*lines[:line], draws.choice([" ", "  ", "\t"]) + lines[line], *lines[line + 1 :]])
        case 7:
            text = "".join(draws.sample(lines, len(lines)))
        case _:
            content = bytearray(text.encode())
            content[draws.randrange(len(content))] = draws.randrange(256)
            return bytes(content)
    return text.encode("utf-8", "surrogatepass")


class TooLong(BaseException):
    """A file took more than its time."""


def outcome(path: Path) -> tuple[str, str]:
    """What becomes of a file: planned, refused, or how it fails; and what was said."""

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        plan = loading.planned(path)
        lines = [*preview.lines(plan, Store(Path("nowhere"))), *preview.shards(plan)]
    except InputError as problem:
        said = str(problem)
        fine = said.startswith(str(path)) and "\n" not in said and len(said) < LONGEST
        return ("refused" if fine else "badly said"), said
    except TooLong:
        return "time-out", ""
    except BaseException as problem:
        return "crash", f"{type(problem).__name__}: {problem}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    wrong = senseless(plan) or next((f"it prints {line[:100]}" for line in lines if "nan" in line.split()), "")
    return ("senseless", wrong) if wrong else ("planned", "")


def senseless(plan: Plan) -> str:
    """What of a plan makes no sense; nothing where all does."""
    study = plan.study
    ids = [network.id for network in plan.networks]
    if not ids or len(ids) != len(set(ids)):
        return "no network, or one twice"
    for network in plan.networks:
        for name, value in network.axes.items():
            if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
                return f"{name} is {value}"
        if (size := network.axes.get("batch_size")) and size > max(128, plan.facts[network.dataset].train):
            return f"batches of {size}"
    for measure in plan.measures:
        if not any(measure.applies_to(network) for network in plan.networks):
            return f"{measure.name} is of no network"
        most = min(plan.facts[one.dataset].test for one in plan.networks if measure.applies_to(one))
        if not 0 < measure.samples <= most or not 0 < measure.epsilon or not 0 < measure.confidence < 1:
            return f"{measure.name} on {measure.samples} points with ε = {measure.epsilon} at {measure.confidence}"
        if not 0 <= measure.delta < math.inf or (measure.norm == "linf" and measure.delta > 1):
            return f"{measure.name}: δ = {measure.delta}"
    named = [study.study, *(grid.name for grid in study.grids)]
    if any(not name or "/" in name or "\0" in name or name in (".", "..") for name in named):
        return f"names {named}"
    if not study.results.strip() or "\0" in study.results:
        return f"results in {study.results!r}"
    return ""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    draws = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    kept = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 2**30,) * 2)
    texts = [SMALL] * 6 + [(ROOT / name).read_text() for name in ("config.yaml", "studies/convergence.yaml")]
    contents = [yaml.safe_load(text) for text in texts]
    found, began = Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        path = Path("study.yaml")
        for index in range(count):
            place = draws.randrange(len(texts))
            if draws.random() < 0.4:
                written = garbled(texts[place], draws)
            else:
                content = contents[place]
                for _ in range(draws.choice([1, 1, 1, 2, 4])):
                    content = changed(content, draws, contents)
                written = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
            path.write_bytes(written)
            what, said = outcome(path)
            found[what] += 1
            if what not in ("planned", "refused"):
                print(f"{index} {what}: {said[:300]}", flush=True)
                if kept:
                    kept.mkdir(exist_ok=True, parents=True)
                    (kept / f"{index}.yaml").write_bytes(written)
    print(
        f"{count} files: {', '.join(f'{number} {what}' for what, number in found.most_common())}; "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(found["planned"] + found["refused"] != count)


if __name__ == "__main__":
    main()
