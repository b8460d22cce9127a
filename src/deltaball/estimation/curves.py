"""R(δ) and D(δ) from both sides: what attacks and certificates say together, monotone in δ by construction."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.estimation.statistics import ROUNDING, Mean, reached
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.judges import JUDGES
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns

MARGIN_STEPS = 30  # δ's at which a curve is drawn from minimal distances

Family = tuple[str, str, float | None]  # notion, norm, γ


def curves(plan: Plan, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``curves.parquet``: one per network × notion × norm × γ × δ.

    Point by point, a violation in one ball is one in every larger ball, and a proof for one ball holds in every smaller
    one; of several attacks (certificates) the strongest counts. `attacked` and `certified` are the means of what is
    left: R lies between certified and attacked, D between attacked and certified. [lower, upper] is the sandwich
    interval: each end comes from its own side and misses with α/2 (``intervals.sandwich``), for each δ alone. `open`
    is the share of the points at which R's two sides differ. A side that nothing was asked of is null.

    Raises InputError when a point is both proven robust and violated, which no sound program can find.
    """
    by_name = {measure.name: measure for measure in plan.measures if not measure.sampling}
    rows: list[dict[str, Any]] = []
    for network_id, members in outcomes[outcomes["measure"].isin(by_name)].groupby("network_id", sort=False):
        families: dict[Family, dict[Measure, np.ndarray]] = defaultdict(dict)
        for name, values in members[["measure", "values"]].itertuples(index=False):
            measure = by_name[name]
            families[family(measure)][measure] = np.minimum(
                np.asarray(values[: measure.samples], np.float64), measure.highest
            )
        for kind, of_family in families.items():
            rows += [{"network_id": network_id, **row} for row in _curve(network_id, kind, of_family)]
    table = pd.DataFrame(rows, columns=[*columns.CURVES, "_attacked", "_certified"])
    return _with_intervals(table)[list(columns.CURVES)].astype(columns.CURVES)


def family(measure: Measure) -> Family:
    """The curve on which a measure lies."""
    return NOTIONS[measure.notion].curve, measure.norm, measure.gamma


def _curve(network_id: str, family: Family, of_family: Mapping[Measure, np.ndarray]) -> Iterator[dict[str, Any]]:
    notion, norm, gamma = family
    rises = NOTIONS[notion].violations_raise
    samples = min(len(values) for values in of_family.values())
    found = {measure: values[:samples] for measure, values in of_family.items()}
    for delta in _deltas(found):
        sides = [_side(found, delta, attacks, rises) for attacks in (True, False)]
        attacked, certified = sides
        if attacked is not None and certified is not None:
            low, high = (attacked, certified) if rises else (certified, attacked)
            (wrong,) = np.nonzero(low > high + (ROUNDING if rises else 0))
            if len(wrong):
                raise InputError(
                    f"network {network_id}: {notion} in {norm} balls of {delta:g} is proven and violated at test point "
                    f"{wrong[0]}; one of its attacks and certificates is wrong, so none of its numbers can be used"
                )
        yield {
            "notion": notion,
            "norm": norm,
            "gamma": gamma,
            "delta": delta,
            "samples": samples,
            "confidence": min(measure.confidence for measure in found),
            "attacked": np.nan if attacked is None else attacked.mean(),
            "certified": np.nan if certified is None else certified.mean(),
            "open": np.nan if rises or attacked is None or certified is None else (attacked - certified).mean(),
            "_attacked": attacked,
            "_certified": certified,
        }


def _deltas(found: Mapping[Measure, np.ndarray]) -> list[float]:
    deltas = {measure.delta for measure in found if not NOTIONS[measure.notion].is_distance}
    for measure in found:
        if NOTIONS[measure.notion].is_distance:
            deltas |= {round(measure.delta * step / MARGIN_STEPS, 12) for step in range(1, MARGIN_STEPS + 1)}
    return sorted(deltas)


def _side(found: Mapping[Measure, np.ndarray], delta: float, attacks: bool, rises: bool) -> np.ndarray | None:
    """What attacks (or certificates) say of the points at δ: the worst (best) of all that bears on it; None if none."""
    said = [_at(delta, measure, values, attacks) for measure, values in found.items()]
    said = [values for values in said if values is not None]
    if not said:
        return None
    return np.max(said, axis=0) if rises == attacks else np.min(said, axis=0)


def _at(delta: float, measure: Measure, values: np.ndarray, attacks: bool) -> np.ndarray | None:
    """What one attack (or certificate) says at δ; None if nothing."""
    distance = NOTIONS[measure.notion].is_distance
    if JUDGES[measure.judge].says == "decides" and distance:
        return _of_known_distances(delta, measure, values, attacks)
    if JUDGES[measure.judge].says == "decides":
        # 0 and 1 are known; what it left open is so for an attack and not for a certificate.
        values = np.where(np.isnan(values), 1.0 if attacks else 0.0, values)
    elif attacks != (measure.attack is not None):
        return None
    if distance and attacks:
        return np.where(reached(values, delta), 0.0, 1.0)
    if distance:
        values = np.where(values >= measure.delta * (1 - ROUNDING), 1.0, 0.0)
    bears = measure.delta <= delta if attacks else measure.delta >= delta
    return values if bears else None


def _of_known_distances(delta: float, measure: Measure, values: np.ndarray, attacks: bool) -> np.ndarray:
    """What distances of which the truth falls short by a known share at most say at δ, on one side."""
    if attacks:
        return np.where(reached(values, delta), 0.0, 1.0)  # NaN is not
    least = values * (1 - dict(measure.settings)["tolerance"]) * (1 - ROUNDING)
    beyond = (values >= measure.delta * (1 - ROUNDING)) & (delta <= measure.delta)
    return np.where(beyond | (least > delta), 1.0, 0.0)


def _with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    ends = {"lower": np.full(len(table), np.nan), "upper": np.full(len(table), np.nan)}
    rises = table["notion"].map(lambda notion: NOTIONS[notion].violations_raise).to_numpy(bool)
    for end, of_r, of_d in (("lower", "_certified", "_attacked"), ("upper", "_attacked", "_certified")):
        position = 0 if end == "lower" else 1
        for is_d, column in ((False, of_r), (True, of_d)):
            chosen = table[(rises == is_d) & table[column].notna()]
            for (_, confidence), members in chosen.groupby(["samples", "confidence"]):
                values = np.stack(members[column])
                ends[end][members.index] = Mean(is_share=not is_d).tight_interval(values, confidence)[position]
    return table.assign(**ends)
