from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.fmn import Fmn
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.judges import attack


def test_names_of_a_study_become_attacks():
    assert isinstance(attack("fgsm"), Fgsm)
    assert attack("pgd", steps=7, restarts=3) == Pgd(7, 3)
    assert attack("fmn", steps=50) == Fmn(50)
