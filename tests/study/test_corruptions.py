"""Corruptions and severities that there are, and one line for those that there are not."""

import re

import pytest

from deltaball.base.errors import InputError
from deltaball.study.corruptions import CORRUPTIONS, SEVERITIES, corruption


def test_there_are_fifteen_and_identity_and_eleven_have_severities():
    assert len(CORRUPTIONS) == 16
    with_severities = [one for one in CORRUPTIONS.values() if one.severity is not None]
    assert len(with_severities) == 11
    for one in with_severities:
        assert corruption(one.name)[1] == one.severity
        assert [corruption(one.name, severity)[1] for severity in SEVERITIES] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fogg", None, "no corruption 'fogg': did you mean 'fog'?"),
        ("fog", 6, "severity = 6: fog has the severities 1 to 5"),
        ("fog", 0, "severity = 0: fog has the severities 1 to 5"),
        ("fog", True, "severity = True: fog has the severities 1 to 5"),
        ("stripe", 1, "severity = 1: stripe has no severities; leave it out"),
    ],
)
def test_what_there_is_not_is_refused_in_a_line(name: str, severity: int | None, message: str):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        corruption(name, severity)
