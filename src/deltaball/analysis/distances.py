"""Adversarial frequency, severity, and the whole curve of distances (paper 002, Section 2), of every network.

Severity is bracketed where certificates or exact answers bear on the same points, and nowhere else: see `Severity`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deltaball.analysis.judges import entry, settings
from deltaball.analysis.trainings import kinds
from deltaball.estimation.intervals import betting, clopper_pearson, sandwich
from deltaball.estimation.statistics import ROUNDING, Cumulative, Frequency, Severity, reached
from deltaball.study.notions import NOTIONS

CHANGE = "class_change"  # what a distance is the distance to
STEPS = 40  # of a curve, even ones from 0 up to where the distances are cut
ALIKE = 1e-9  # of two radii

KNOWN = ["network_id", "dataset", "grid", "method", "architecture", "kind", "test_accuracy"]
BY = ["measure", "notion", "norm", "delta", "attack", "certificate", "samples", "confidence"]
FREQUENCY = ["hits", "frequency", "frequency_lower", "frequency_upper", "frequency_tight_lower"]
FREQUENCY += ["frequency_tight_upper", "frequency_side", "open", "frequency_most"]
FREQUENCY += ["frequency_enclosed_lower", "frequency_enclosed_upper"]
SEVERITY = ["severity", "severity_error", "severity_lower", "severity_upper", "severity_side"]
SEVERITY += ["severity_least", "severity_most", "severity_enclosed_lower", "severity_enclosed_upper"]
COLUMNS = [*KNOWN, *BY, "within", *FREQUENCY, *SEVERITY]
CURVE = ["within", "frequency", "lower", "upper"]
CURVES = [*KNOWN, *BY, *CURVE]


class Said(NamedTuple):
    """What one judge says of a network's points: a row of the tables and its outcomes [N]."""

    row: Mapping[str, Any]
    outcomes: np.ndarray

    @property
    def is_distance(self) -> bool:
        return NOTIONS[self.row["notion"]].is_distance

    @property
    def decides(self) -> bool:
        return isinstance(self.row["certificate"], str) and entry(self.row["certificate"]).says == "decides"

    @property
    def finds(self) -> bool:
        return isinstance(self.row["attack"], str) or self.decides

    @property
    def distances(self) -> np.ndarray:
        """How far away [N] it finds a violation; of a whole ball, 0 where it finds one and else ∞."""
        return self.outcomes if self.is_distance else np.where(self.outcomes == 0, 0.0, np.inf)

    def cleared(self) -> np.ndarray:
        """Up to which distance [N] it proves that there is no violation; 0 where nothing is proven."""
        delta = self.row["delta"]
        if not isinstance(self.row["certificate"], str):
            return np.zeros(len(self.outcomes))
        if not self.is_distance:
            return np.where(self.outcomes == 1, delta, 0.0)
        values = np.nan_to_num(self.outcomes.astype(np.float64))
        least = values * (1 - settings(self.row["certificate"]).get("tolerance", 0.0))
        return np.where(values >= delta * (1 - ROUNDING), delta, least * (1 - ROUNDING))


def distances(measured: pd.DataFrame, outcomes: pd.DataFrame | None, within: Sequence[float]) -> pd.DataFrame:
    """One row per network × norm × ε × judge: φ(ε) and μ(ε), ε in the column `within`.

    Of `margin` every attack, and what decides, has rows at each of `within` that is no larger than its δ, and at δ
    itself; of `class_change` every attack, and what decides, whose δ is one of these has a row without a severity.
    `outcomes` is outcomes.parquet; there are no rows without it.

    `frequency` is the share of the N points that are `hits`, its Hoeffding interval at the guarantee's ε, and the tight
    one of Clopper and Pearson. `frequency_most` counts the `open` points too, those that no certificate clears; the
    truth lies between the two, and with the study's confidence between the ends of `frequency_enclosed`. `severity` is
    the mean distance of the hits with its standard error and a betting interval. It stays between `severity_least` and
    `severity_most` whatever the open points are, and hits may be nearer; its enclosed interval is given where no point
    is open. What nothing was asked of is null, and so is the severity of no hits.
    """
    rows = [
        _row(said, of_norm, distance)
        for of_norm in _judged(measured, outcomes)
        for said in of_norm
        if said.finds
        for distance in _distances_asked(said, of_norm, within)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"hits": "Int64", "open": "Int64"})


def cumulative(measured: pd.DataFrame, outcomes: pd.DataFrame | None, within: Sequence[float]) -> pd.DataFrame:
    """One row per network × judge of `margin` × ε: φ(ε), with a band that holds the whole curve at once.

    The ε's are even steps, and those of `within`.
    """
    rows: list[dict[str, Any]] = []
    for of_norm in _judged(measured, outcomes):
        for said in of_norm:
            if not (said.finds and said.is_distance):
                continue
            steps = {said.row["delta"] * (step / STEPS) for step in range(STEPS + 1)}
            curve = Cumulative(tuple(sorted(steps | {*_distances_asked(said, of_norm, within)})))
            ends = curve.band(said.outcomes, said.row["confidence"])
            named = {name: said.row[name] for name in [*KNOWN, *BY]}
            points = zip(curve.at, curve.estimate(said.outcomes), *ends, strict=True)
            rows += [named | dict(zip(CURVE, point, strict=True)) for point in points]
    return pd.DataFrame(rows, columns=CURVES)


def pointwise(row: Mapping[str, Any], outcomes: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each point [N] what φ(ε) is the mean of, 0 or 1, and the distance in units of ε, at most 1."""
    found = Said(row, outcomes).distances
    return reached(found, within).astype(np.float64), np.minimum(found / within, 1)


def _judged(measured: pd.DataFrame, outcomes: pd.DataFrame | None) -> Iterator[list[Said]]:
    """What is said of class changes around the points of each network, in each norm in which a distance is sought."""
    if outcomes is None or measured.empty:
        return
    values = outcomes.set_index(["network_id", "measure"])["values"]
    worst = measured[measured["attack"].notna() | measured["certificate"].notna()]
    alike = worst[worst["notion"].map(lambda notion: NOTIONS[notion].curve == CHANGE).astype(bool)]
    sought = alike[alike["notion"].map(lambda notion: NOTIONS[notion].is_distance).astype(bool)]
    keys = ["network_id", "norm"]
    alike = alike[alike.set_index(keys).index.isin(sought.set_index(keys).index)]
    by_norm: dict[tuple[str, str], list[Said]] = defaultdict(list)
    for row in alike.assign(kind=kinds(alike)).to_dict("records"):
        key = row["network_id"], row["measure"]
        if key in values.index:
            said = Said(row, np.asarray(values.loc[key][: row["samples"]], np.float32))
            by_norm[row["network_id"], row["norm"]].append(said)
    for of_norm in by_norm.values():
        if any(said.is_distance and said.finds for said in of_norm):
            yield of_norm


def _distances_asked(said: Said, of_norm: Sequence[Said], within: Sequence[float]) -> list[float]:
    """At which ε's a judge says something."""
    delta = said.row["delta"]
    if said.is_distance:
        return sorted({*(one for one in within if one < delta * (1 - ALIKE)), delta})
    asked = {*within, *(one.row["delta"] for one in of_norm if one.is_distance)}
    return [delta] if any(abs(one - delta) <= ALIKE * delta for one in asked) else []


def _row(said: Said, of_norm: Sequence[Said], within: float) -> dict[str, Any]:
    row, found, confidence = said.row, said.distances, said.row["confidence"]
    hits, cleared = reached(found, within), _cleared(of_norm, len(found))
    left = None if cleared is None else ~hits & (cleared < within * (1 - ALIKE))
    decided = left is not None and not left.any()
    frequency, share = Frequency(within), row["epsilon"] / NOTIONS[row["notion"]].highest(row["delta"])
    lower, upper = frequency.interval(found, share)
    tight = frequency.tight_interval(found, confidence)
    told = {name: row[name] for name in [*KNOWN, *BY]} | {
        "within": within,
        "hits": int(hits.sum()),
        "frequency": frequency.estimate(found),
        "frequency_lower": lower,
        "frequency_upper": upper,
        "frequency_tight_lower": tight[0],
        "frequency_tight_upper": tight[1],
        "frequency_side": "exact" if decided else "lower",
    }
    if left is not None:
        possible = int((hits | left).sum())
        ends = sandwich(tight, clopper_pearson(possible, len(found), confidence))
        told |= {"open": int(left.sum()), "frequency_most": possible / len(found)}
        told |= dict(zip(("frequency_enclosed_lower", "frequency_enclosed_upper"), ends, strict=True))
    if said.is_distance:
        severity = Severity(within)
        ends = severity.tight_interval(found, confidence)
        told |= {"severity": severity.estimate(found), "severity_error": severity.error(found)}
        told |= {"severity_lower": ends[0], "severity_upper": ends[1]}
        told["severity_side"] = "exact" if decided and said.decides else None
        if left is not None and hits.any():
            told |= _enclosed(found[hits], np.minimum(cleared, found)[hits], cleared[left], within, confidence)
    return told


def _cleared(of_norm: Sequence[Said], count: int) -> np.ndarray | None:
    """Up to which distance the first `count` points are proven to have no violation; None where no proof was asked."""
    proofs = [said.cleared()[:count] for said in of_norm if isinstance(said.row["certificate"], str)]
    if not proofs:
        return None
    # What is proven of fewer points says nothing of the others.
    return np.max([np.pad(proof, (0, count - len(proof))) for proof in proofs], axis=0)


def _enclosed(
    furthest: np.ndarray, nearest: np.ndarray, left: np.ndarray, within: float, confidence: float
) -> dict[str, float]:
    """Where μ lies, of hits between `nearest` and `furthest`, while open points may be hits beyond `left`."""
    least, most = bracket(nearest, furthest, left, within)
    told = {"severity_least": least, "severity_most": most}
    if len(left):
        return told
    # Both kinds of means are of the same hits, which are independent given their number.
    ends = sandwich(*(betting(values, confidence, 0.0, within) for values in (nearest, furthest)))
    return told | dict(zip(("severity_enclosed_lower", "severity_enclosed_upper"), map(float, ends), strict=True))


def bracket(nearest: np.ndarray, furthest: np.ndarray, left: np.ndarray, within: float) -> tuple[float, float]:
    """The least and the largest mean of distances that are at most `within`.

    Of each hit, at least one, it is between `nearest` and `furthest`; each open point either counts, at between its
    `left` and `within`, or does not.
    """
    total, count = float(nearest.sum(dtype=np.float64)), len(nearest)
    for distance in np.sort(left):
        if distance * count >= total:
            break
        total, count = total + float(distance), count + 1
    largest = float(furthest.sum(dtype=np.float64)) + within * len(left)
    return total / count, largest / (len(furthest) + len(left))
