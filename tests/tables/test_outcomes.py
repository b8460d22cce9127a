"""Outcomes are kept in 16 bits without a variation ever becoming better than it was found."""

from pathlib import Path

import numpy as np
import pandas as pd
from builders import grid, planned
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deltaball.plan.plan import Plan
from deltaball.tables import frames, outcomes

STEP = 1 / (2**16 - 1)
LIST = arrays.arrays(np.float32, 82, elements=st.floats(0, 1, width=32))


def plan_of(*measures: dict[str, object]) -> Plan:
    return planned(grid(), measures=list(measures), guarantee={"epsilon": 0.15, "confidence": 0.95})


VARIATION = plan_of(
    {"notion": "softmax_variation", "delta": 0.1, "attack": "fgsm", "certificate": "crown"},
    {"notion": "margin", "delta": 0.1},
)


def table(plan: Plan, values: np.ndarray) -> pd.DataFrame:
    rows = [{"network_id": "a", "measure": one.name, "values": values} for one in plan.measures]
    return pd.DataFrame(rows).set_index("measure", drop=False)


@given(LIST)
def test_attacks_understate_and_certificates_overstate_a_variation_as_before(values: np.ndarray) -> None:
    found = outcomes.rounded(VARIATION, table(VARIATION, values))["values"]
    by_measure = {(one.notion, bool(one.attack)): found[one.name] for one in VARIATION.measures}
    attacked, certified = (by_measure["softmax_variation", attack] for attack in (True, False))
    # A value that float32 cannot tell from a step is that step.
    assert (attacked <= values + 0.011 * STEP).all()
    assert (certified >= values - 0.011 * STEP).all()
    assert (np.abs(attacked - values) < STEP).all()
    assert (np.abs(certified - values) < STEP).all()
    np.testing.assert_array_equal(by_measure["margin", True], values)


@given(LIST)
def test_what_is_rounded_stays(values: np.ndarray) -> None:
    once = outcomes.rounded(VARIATION, table(VARIATION, values))
    twice = outcomes.rounded(VARIATION, once)
    np.testing.assert_array_equal(np.stack(once["values"]), np.stack(twice["values"]))


def test_each_of_the_steps_stays_itself() -> None:
    steps = (np.arange(2**16) / (2**16 - 1)).astype(np.float32)
    found = outcomes.rounded(VARIATION, table(VARIATION, steps))["values"]
    for values in found:
        np.testing.assert_array_equal(values, steps)


def test_a_file_has_two_bytes_for_a_variation_and_reads_as_it_was(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).uniform(size=(400, 738)).astype(np.float32)
    name = VARIATION.measures[0].name
    rows = pd.DataFrame({"network_id": "a", "measure": name, "values": list(draws)})
    kept = outcomes.rounded(VARIATION, rows)
    frames.write(kept, tmp_path / "outcomes.parquet")
    assert (tmp_path / "outcomes.parquet").stat().st_size < 2.1 * draws.size + 2**18
    read = frames.read(tmp_path / "outcomes.parquet")["values"]
    np.testing.assert_array_equal(np.stack(read), np.stack(kept["values"]))
