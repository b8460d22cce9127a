"""One network of a file measured at once: what a study would say of it, without a study."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.base.guarantees import confidence_text, epsilon_reached
from deltaball.base.wording import duration
from deltaball.data import catalogue, datasets
from deltaball.data.datasets import Dataset
from deltaball.estimation import measuring, points
from deltaball.estimation.estimates import described, estimate_of
from deltaball.estimation.intervals import sandwich
from deltaball.estimation.scores import statistic
from deltaball.estimation.stored import Judged
from deltaball.exchange import checking, reading
from deltaball.exchange.conventions import Convention
from deltaball.exchange.files import NetworkFile
from deltaball.networks.models import Model
from deltaball.plan.batches import EVALUATION_BATCH
from deltaball.plan.measures import Measure, of_entry
from deltaball.study import reading as study_reading
from deltaball.study.checking import activations, standardises
from deltaball.study.judges import JUDGES, Judge, NetworkKind, judges_by_key
from deltaball.study.notions import NOTIONS
from deltaball.study.study import Guarantee


@dataclass(frozen=True)
class Request:
    """What is asked of a file. `entry` is a measure as a study writes it; `points` stand in for ε."""

    path: Path
    dataset: str
    data: Path  # folder of data sets
    entry: Mapping[str, Any]
    epsilon: float = 0.05
    confidence: float = 0.95
    seed: int = 0
    points: int | None = None
    convention: Convention | None = None
    device: str = "cpu"


@dataclass
class Report:
    """What was found, in the order of the judges."""

    request: Request
    file: NetworkFile
    dataset: Dataset
    accuracy: float
    began: float
    judged: dict[Measure, Judged] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of each judge


def measured(request: Request) -> Report:
    """Measure the network of a file as a study does that has the same points and judges.

    Raises InputError, one line, for whatever cannot be had.
    """
    began = time.monotonic()
    facts = catalogue.facts(request.dataset, request.data)
    measures = _measures(request, facts.test)
    file = reading.opened(request.path, facts.shape, facts.classes, request.convention)
    _check_judges(file, measures)
    dataset = datasets.load(request.dataset, request.data)
    network = checking.model(file, request.device)
    checking.check_range(file, network, dataset.x_train, dataset.y_train, request.device)
    report = Report(request, file, dataset, _accuracy(network, dataset, request.device), began)
    drawn = points.draw_points(facts, measures[0].samples, request.seed)
    images, labels = dataset.x_test[drawn], dataset.y_test[drawn]
    for name in JUDGES:
        asked = [measure for measure in measures if measure.judge == name]
        if asked:
            start = time.monotonic()
            report.judged |= measuring.judged(network, images, labels, asked, request.device, report.judged)
            report.seconds[name] = time.monotonic() - start
    return report


def _measures(request: Request, test: int) -> list[Measure]:
    try:
        entry = study_reading.measure(dict(request.entry))
    except InputError as problem:
        raise InputError(f"--{problem}") from None
    for name, value in (("epsilon", request.epsilon), ("confidence", request.confidence)):
        if not 0 < value < 1:
            raise InputError(f"--{name} {value}: should lie strictly between 0 and 1")
    epsilon = request.epsilon
    if request.points is not None:
        if not 1 <= request.points <= test:
            raise InputError(f"--points {request.points}: {request.dataset} has {test} test points; give 1 to {test}")
        epsilon = epsilon_reached(request.points, request.confidence)
    # Of few points ε is above 1, which no study may ask for.
    guarantee = Guarantee.model_construct(epsilon=epsilon, confidence=request.confidence)
    found = list(of_entry(entry, guarantee, 1))
    if request.points is not None:
        found = [replace(measure, samples=request.points) for measure in found]
    if found[0].samples > test:
        least = epsilon_reached(test, request.confidence)
        raise InputError(
            f"--epsilon {epsilon:g}: needs {found[0].samples:,} test points and {request.dataset} has {test:,}; "
            f"{least + 0.00005:.4f} can be had"
        )
    return found


def _check_judges(file: NetworkFile, measures: Iterable[Measure]) -> None:
    """Raise InputError for a judge that cannot judge the file's network, with the reason."""
    for measure in measures:
        judge = JUDGES[measure.judge]
        if judge.minds_generator:
            raise InputError(f"{file.path}: {judge.title} cannot judge it: it has none; by {_attacks()}")
        if not judge.minds_layers:
            continue
        if file.layers is None:
            raise InputError(
                f"{file.path}: {judge.title} needs to know what every layer computes, and of {file.lacking} it does "
                f"not; the network can be attacked: {_others(judge)}"
            )
        known = file.layers
        kind = NetworkKind(activations=activations(known), layers=known, standardises=standardises(known))
        if reason := judge.refuses(NOTIONS[measure.notion], measure.norm, kind):
            raise InputError(f"{file.path}: {judge.title} cannot judge it: {reason}")


def _others(judge: Judge) -> str:
    """What to ask in place of a judge that needs to know the layers."""
    if judge.key != "attack":
        return f"leave --{judge.key} out"
    return f"by {_attacks()}"


def _attacks() -> str:
    """The attacks of any network."""
    asked = (JUDGES[name] for name in judges_by_key("attack"))
    return ", ".join(one.name for one in asked if not (one.minds_layers or one.minds_generator))


@torch.no_grad()
def _accuracy(network: Model, dataset: Dataset, device: str) -> float:
    correct = 0
    for start in range(0, len(dataset.x_test), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        scores = network(torch.from_numpy(dataset.x_test[part]).to(device))[0].cpu().numpy()
        correct += int((scores.argmax(1) == dataset.y_test[part]).sum())
    return correct / len(dataset.x_test)


def content(report: Report) -> dict[str, Any]:
    """What was found, as JSON values; the names are those of the tables' columns."""
    file, request = report.file, report.request
    return {
        "file": str(file.path),
        "sha256": reading.digest(file.path),
        "layers": None if file.layers is None else [str(layer) for layer in file.layers],
        "no_layer_for": file.lacking or None,
        "parameters": None if file.layers is None else file.layers.parameters,
        "input": file.convention.words,
        "remarks": list(file.remarks),
        "dataset": request.dataset,
        "data_sha256": report.dataset.facts.fingerprint,
        "test_accuracy": report.accuracy,
        "points_seed": request.seed,
        "estimates": [
            {**described(measure), **_row(measure, judged), "seconds": report.seconds[measure.judge]}
            for measure, judged in report.judged.items()
        ],
        "enclosures": [*_enclosures(report)],
        "seconds": time.monotonic() - report.began,
    }


def _row(measure: Measure, judged: Judged) -> dict[str, Any]:
    lower, upper = statistic(measure).tight_interval(judged.outcomes[None], measure.confidence)
    return {**estimate_of(measure, judged), "tight_lower": float(lower[0]), "tight_upper": float(upper[0])}


def _enclosures(report: Report) -> Iterable[dict[str, Any]]:
    """Where an attack and a certificate judged by one notion in one ball: the interval of the truth between them."""
    rows = {measure: _row(measure, judged) for measure, judged in report.judged.items()}
    seen: dict[tuple[Any, ...], dict[str, tuple[float, float]]] = {}
    for measure, row in rows.items():
        sides = seen.setdefault((measure.notion, measure.gamma, measure.norm, measure.delta), {})
        own = row["tight_lower"], row["tight_upper"]
        if row["side"] == "upper":  # the truth is no larger: the least of these is the closest
            sides["above"] = min(own, sides.get("above", own), key=lambda ends: ends[1])
        elif row["side"] == "lower":
            sides["below"] = max(own, sides.get("below", own), key=lambda ends: ends[0])
    for (notion, gamma, norm, delta), sides in seen.items():
        if len(sides) == 2:
            lower, upper = sandwich(sides["below"], sides["above"])
            yield {"notion": notion, "gamma": gamma, "norm": norm, "delta": delta, "lower": lower, "upper": upper}


def text(report: Report) -> str:
    """What was found, for people."""
    found = content(report)
    file, request = report.file, report.request
    size = "" if file.layers is None else f", {file.layers.parameters:,} parameters"
    lines = [f"{file.path}{size}; {file.convention.words}"]
    lines += [f"  {remark}" for remark in file.remarks]
    if file.layers is None:
        lines.append(f"  run by torch as it is, for there is no layer for {file.lacking}: attacks only")
    tests = report.dataset.facts.test
    lines.append(f"  accuracy {100 * report.accuracy:.2f} % of {tests:,} test images of {request.dataset}")
    first = next(iter(report.judged))
    lines.append(
        f"  {first.samples} of them, drawn by seed {request.seed}; each interval holds with confidence "
        f"{confidence_text(first.confidence)}"
    )
    table = [("", "estimate", "Hoeffding", "from the outcomes", "the truth", "time")]
    table.extend(map(_line, found["estimates"]))
    lines += ["", *_columns(table)]
    lines += [
        f"between them, {_what(one)} lies in [{one['lower']:.4f}, {one['upper']:.4f}]" for one in found["enclosures"]
    ]
    return "\n".join([*lines, "", f"in {duration(found['seconds'])}"])


SIDES = {"upper": "is no larger", "lower": "is no smaller", "exact": "is meant"}


def _line(one: Mapping[str, Any]) -> tuple[str, ...]:
    judge = one["attack"] or one["certificate"]
    return (
        f"{_what(one)} by {judge}",
        f"{one['estimate']:.4f}",
        f"[{one['lower']:.4f}, {one['upper']:.4f}]",
        f"[{one['tight_lower']:.4f}, {one['tight_upper']:.4f}]",
        SIDES[one["side"]],
        f"{one['seconds']:.1f} s",
    )


def _what(one: Mapping[str, Any]) -> str:
    notion = NOTIONS[one["notion"]]
    threshold = "" if one["gamma"] is None else f" γ {one['gamma']:g}"
    return f"{notion.quantity} of {notion.name}{threshold}, {one['norm']} δ {one['delta']:g}"


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def write(report: Report, path: Path) -> None:
    """Write `content` as JSON."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
