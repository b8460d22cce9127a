"""Postulate P1 of paper 003: of every score a constant classifier has the most there is."""

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned

from deltaball.analysis.scores import is_score, scores
from deltaball.estimation.estimates import described, estimate_of
from deltaball.estimation.outcomes import outcomes
from deltaball.estimation.scores import statistic
from deltaball.local.kernels.known import Known
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.plan.measures import Measure
from deltaball.plan.plan import Plan
from deltaball.study.judges import JUDGES, judges_by_key
from deltaball.study.kernels import KERNELS

SHAPE, CLASSES, POINTS = (12, 12, 1), 4, 37
EVERY = [name for name in judges_by_key("sampling") if JUDGES[name].of_kernels and not JUDGES[name].of_balls]
BALLS = {"notion": ["class_change", "margin"], "sampling": "worst", "steps": 2, "radii": 2}
KEYS = {"delta": 0.5, "sigma": 0.5, "least": 0.1}


def entries() -> list[dict]:
    """Every kernel with every H, in its variants; and every attack that seeks margins."""
    found = []
    for kernel in KERNELS.values():
        if kernel.of_codes:
            continue  # an auto-encoder is another network's matter; what it makes of an image has a class too
        draws = kernel.draws or 4
        base = {"notion": "class_change", "perturbation": kernel.name, "sampling": EVERY, "tau": 0.2, "draws": draws}
        base |= {kernel.size: KEYS[kernel.size]} if kernel.size else {}
        for norm in kernel.norms or (None,):
            own = base | ({"norm": norm} if norm else {})
            found.append(own)
            if "density" in kernel.takes:
                found.append(own | {"density": "reciprocal", "least": 0.1})
            if "labels" in kernel.takes:
                found.append(own | {"labels": "kept"})
            if "points" in kernel.takes:
                found.append(own | {"points": "cube"})
            if kernel.fills_balls:
                worst = {key: own[key] for key in ("perturbation", "norm", "delta")}
                for more in ({}, {"points": "cube"}, {"labels": "kept"}):
                    found += [worst | more | BALLS | {"notion": notion} for notion in BALLS["notion"]]
    attacks = ["fmn", "bg", "ensemble", "ensemble_apart"]
    return [*found, *({"notion": "margin", "norm": norm, "delta": 0.5, "attack": attacks} for norm in ("l2", "linf"))]


@pytest.fixture(scope="module")
def plan() -> Plan:
    whole = planned(
        grid(dataset="mnist5k", epochs=5),
        measures=entries(),
        guarantee={"epsilon": 0.25, "confidence": 0.95},
    )
    assert all(is_score(one) for one in whole.measures)
    return whole


def measured(measures: list[Measure]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    images, labels = random.random((POINTS, *SHAPE), np.float32), random.integers(CLASSES, size=POINTS)
    known = Known(random.random((50, *SHAPE), np.float32), random.integers(CLASSES, size=50))
    weights = [np.zeros((np.prod(SHAPE), CLASSES), np.float32), np.float32([0, 0, 1, 0])]
    constant = Pack.of(Layers(SHAPE, (Flatten(), Dense(CLASSES))), [weights])
    found = outcomes(constant, images, [*{one.search: None for one in measures}], "cpu", labels=labels, known=known)
    rows = []
    for one in measures:
        judged = found[one.search].of_network(0)
        tight = statistic(one).tight_interval(judged.outcomes[None], one.confidence)
        ends = dict(zip(("tight_lower", "tight_upper"), (float(end[0]) for end in tight), strict=True))
        rows.append(described(one) | estimate_of(one, judged) | ends)
    return pd.DataFrame(rows)


def test_a_constant_classifier_is_maximal_for_every_score(plan: Plan) -> None:
    rows = measured(plan.measures)
    highest = np.array([one.highest for one in plan.measures])
    short = rows["measure"][~np.isclose(rows["estimate"], highest)]
    assert short.empty, [*short]
    for end in ("upper", "tight_upper"):
        assert np.allclose(rows[end], highest), end
    (network,) = plan.networks
    about = {"network_id": network.id, "test_accuracy": 0.1, "objective": "cross_entropy", **network.groups}
    table = scores(rows.assign(**about, noise=None, against=None, constraint=None), plan)
    assert len(table) == len(rows)
    assert np.allclose(table["of_constant"], 1)
    assert {"R1", "R2", "R4", "label-aware R2"} <= {*table["score"]}
    assert set(table["type"]) == {1, 2, 3}
