"""How captions name attacks and certificates."""

import pandas as pd
import pytest

from deltaball.analysis.judges import display_name, joined


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        ("pgd", "PGD"),
        ("pgd-10x1", "PGD-10×1"),
        ("crown", "CROWN"),
        ("exact", "the exact answer"),
        ("exact-0.15", "the exact answer (0.15 s)"),
        ("branched-0.06", "branch and bound (0.06 s)"),
    ],
)
def test_settings_follow_the_name_and_a_time_limit_has_its_unit(judge: str, name: str) -> None:
    assert display_name(judge) == name


def test_judges_are_joined_weakest_first() -> None:
    given = pd.Series(["exact-0.4", "ibp", None, "crown", "ibp"])
    assert joined(given) == "IBP, CROWN and the exact answer (0.4 s)"
