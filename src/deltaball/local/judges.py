"""Attacks by name."""

from deltaball.local.attacks.attack import Attack
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd


def attack(name: str, **settings: int) -> Attack:
    """The attack that a study calls `name`: fgsm, pgd (steps, restarts) or fmn (steps)."""
    return {"fgsm": Fgsm, "pgd": Pgd, "fmn": Fmn}[name](**settings)
