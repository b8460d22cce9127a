"""Judges by the name that a study gives them."""

from deltaball.base.implementations import implementation
from deltaball.local.judge import Judge
from deltaball.study.judges import JUDGES


def judge(name: str, **settings: float) -> Judge:
    """The attack, certificate or exact answer that a study calls `name`; settings left out are the defaults."""
    entry = JUDGES[name]
    return implementation(entry.implementation)(**{**entry.settings, **settings})
