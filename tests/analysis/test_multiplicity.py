"""Corrections for many tests are statsmodels' own, which collects garbage each time and so takes much longer."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from deltaball.analysis.multiplicity import benjamini_hochberg, holm

P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 1.0]), st.just(np.nan)), max_size=30)


@given(P_VALUES, st.permutations(range(30)))
def test_corrections_are_statsmodels(values: list[float], order: list[int]) -> None:
    p_values = pd.Series(values, index=order[: len(values)], dtype=float)
    tested = p_values.notna()
    for corrected, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        found = corrected(p_values)
        assert found.index.tolist() == p_values.index.tolist()
        assert found.isna().equals(~tested)
        if tested.any():
            assert found[tested].tolist() == pytest.approx(multipletests(p_values[tested], method=method)[1], abs=1e-12)


def test_no_test_is_no_family() -> None:
    for corrected in (holm, benjamini_hochberg):
        assert corrected(pd.Series([None, None], dtype=object)).isna().all()
        assert corrected(pd.Series(dtype=float)).empty
