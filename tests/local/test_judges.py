"""The table of judges against the classes that it names."""

import pytest

from deltaball.base.implementations import implementation, is_implemented
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.deciding import Exact
from deltaball.local.judge import Judge
from deltaball.local.judges import judge
from deltaball.study.judges import JUDGES, PGD


def test_names_of_a_study_become_judges():
    assert isinstance(judge("fgsm"), Fgsm)
    assert judge("pgd", steps=7, restarts=3) == Pgd(7, 3)
    assert judge("fmn", steps=50) == Fmn(50)
    assert judge("exact") == Exact(60.0)


# Others make further numbers of what one of these saw.
LOOKING = [name for name, entry in JUDGES.items() if not entry.outcomes_of]


@pytest.mark.parametrize("name", LOOKING)
def test_every_entry_names_a_class_that_takes_its_settings(name: str):
    entry = JUDGES[name]
    assert entry.name == name
    assert "-" not in name  # which sets the settings apart in tables
    assert is_implemented(entry.implementation)
    made = judge(name)
    assert type(made) is implementation(entry.implementation)
    # A setting left out is the class's own default too.
    assert {key: getattr(made, key) for key in entry.settings} == dict(entry.settings)


@pytest.mark.parametrize("name", sorted({*JUDGES} - {*LOOKING}))
def test_what_makes_numbers_of_anothers_outcomes_is_in_its_class_and_takes_its_settings(name: str):
    entry = JUDGES[name]
    seen = JUDGES[entry.outcomes_of]
    assert entry.outcomes_of in LOOKING
    assert entry.implementation == seen.implementation
    assert dict(seen.settings).items() <= dict(entry.settings).items()


def test_every_class_has_an_entry():
    def below(kind: type[Judge]) -> set[type[Judge]]:
        return {kind, *(one for child in kind.__subclasses__() for one in below(child))}

    for name in LOOKING:
        judge(name)  # imports the class
    concrete = {kind for kind in below(Judge) if kind.__module__.startswith("deltaball.")}
    named = {implementation(entry.implementation) for entry in JUDGES.values()}
    whole = {kind for kind in concrete if not kind.__abstractmethods__}
    # What others stand on may be a judge too.
    assert {kind for kind in whole if not kind.__subclasses__()} <= named <= whole


def test_what_is_not_there_is_told_from_what_is():
    assert is_implemented("deltaball.local.attacks.pgd.Pgd")
    for path in ("deltaball.local.attacks.pgd.Pdg", "deltaball.local.attacks.pdg.Pgd", "deltaball.attacks.pgd.Pgd"):
        assert not is_implemented(path)


def test_the_settings_that_exact_answers_begin_with_are_those_of_pgd():
    assert judge("pgd") == Pgd(**PGD)
