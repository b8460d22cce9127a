"""The closest of several attacks' images, and which attack's it is."""

import pytest
import torch
from attack_cases import LARGEST, NORMS, deep_pack, digits, found_by, images, linear_pack, one_found

from deltaball.local.attacks.bg import Bg
from deltaball.local.attacks.ensemble import Ensemble, EnsembleApart
from deltaball.local.attacks.fgsm import Fgsm
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.notions import ClassChange, Margin
from deltaball.local.points import Points
from deltaball.local.references import Reference
from deltaball.networks.layers import Dense, Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.study.judges import JUDGES

SHORT = Ensemble(steps=5, radii=6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("architecture", ["fcn", "cnn"])
def test_no_member_finds_anything_closer_and_the_closest_is_named(norm: str, architecture: str):
    pack, x, most = deep_pack(2, "relu", architecture, scale=2.0), digits(64), LARGEST["l1"] * 6
    found = one_found(SHORT, pack, x, Ball(norm, most), Margin(most))
    with torch.no_grad():
        points = Points(pack, x, range(64))
        members = SHORT.by_attack(points, norm, Reference.output(points.logits))
    assert tuple(members) == JUDGES["ensemble"].members
    distances = torch.stack([distance for _, distance in members.values()])
    alone = one_found(Bg(), pack, x, Ball(norm, most), Margin(most))
    for distance in (*distances, alone.outcome):
        assert (found.outcome <= distance.clamp(max=most) + 1e-6).all()
    there = found.outcome < most
    assert there.any()
    torch.testing.assert_close(found.outcome[there], distances.amin(0)[there])
    assert torch.equal(found.found_by[there].long(), distances.argmin(0)[there])
    assert (found.found_by[~there] == -1).all()
    assert len(found.found_by.unique()) > 1
    # The rule of the class: what FGSM and PGD find in a ball, an image of the ensemble's is not much further than.
    ball = Ball(norm, found.outcome.median().item())
    for attack in (Fgsm(), Pgd(steps=10)):
        violated = one_found(attack, pack, x, ball, ClassChange()).outcome == 0
        assert (found.outcome[violated] <= 1.05 * ball.delta).float().mean() > 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_one_search_serves_several_balls_and_says_nothing_of_those_it_leaves(norm: str):
    pack, x, most = linear_pack(3, 2), images(32), LARGEST[norm]
    distance = one_found(SHORT, pack, x, Ball(norm, most), Margin(most)).outcome
    ball = Ball(norm, distance.median().item())
    found = found_by(SHORT, pack, x, {ball: [ClassChange()], Ball(norm, most): [Margin(most)]})[ball, ClassChange()]
    clear = (distance - ball.delta).abs() > 1e-6
    assert torch.equal((found.found_by >= 0)[clear], (found.outcome == 0)[clear])


def test_where_nothing_is_found_nobody_found_it():
    weights = [torch.zeros(12, 2).numpy(), torch.tensor([1.0, 0.0]).numpy()]
    constant = Pack.of(Layers((4, 3, 1), (Flatten(), Dense(2))), [weights])
    for norm in NORMS:
        found = one_found(SHORT, constant, images(32), Ball(norm, 0.7), Margin(0.7))
        assert found.outcome.unique().tolist() == [pytest.approx(0.7)]
        assert found.found_by.unique().tolist() == [-1]
        assert torch.equal(found.perturbed[0], images(32))


@pytest.mark.parametrize("norm", NORMS)
def test_apart_each_attack_finds_what_it_finds_by_itself(norm: str):
    """What FGSM and BG find is the same beside either PGD."""
    pack, x = deep_pack(2, "relu", "cnn", scale=2.0), digits(32)
    with torch.no_grad():
        points = Points(pack, x, range(32))
        reference = Reference.output(points.logits)
        apart, together = (one.by_attack(points, norm, reference) for one in (EnsembleApart(5, 12), Ensemble(5, 12)))
    for name in ("fgsm", "bg"):
        assert torch.equal(apart[name][1], together[name][1])
    assert (apart["pgd"][1] < torch.inf).float().mean() > 0.9
