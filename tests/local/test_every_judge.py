"""Every judge over every notion, ball and kind of network that it does not refuse: what is added is tested too.

Which they are is read from the tables of ``deltaball.study``; what must hold of them is the same for all.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from attack_cases import deep_pack, digits

from deltaball.local.balls import Ball
from deltaball.local.judge import Verdict
from deltaball.local.judges import judge
from deltaball.local.notions import Notion, notion
from deltaball.local.points import references
from deltaball.networks.generators import Generator
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Conv
from deltaball.networks.models import Model
from deltaball.networks.posteriors import Posterior
from deltaball.plan.batches import IMAGES_MULTIPLE
from deltaball.study.architectures import generator
from deltaball.study.judges import JUDGES, NetworkKind
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS


def average() -> Model:
    pack = deep_pack(3, "relu", "fcn", scale=2.0)
    return Posterior(pack.layers, pack.weights)


def beside_a_generator() -> Model:
    pack, layers = deep_pack(2, "relu", "fcn", scale=2.0), generator(2, 1, (8, 8, 1))
    drawn = [initial_weights(layers, np.random.default_rng(k)) for k in range(2)]
    return replace(pack, generator=Generator.of(layers, [[5 * weight for weight in one] for one in drawn]))


NETWORKS: dict[str, tuple[NetworkKind, Callable[[], Model]]] = {
    **{
        f"{architecture} {activation}": (
            NetworkKind(True, (activation,)),
            lambda architecture=architecture, activation=activation: deep_pack(2, activation, architecture, 2.0),
        )
        for architecture in ("fcn", "cnn")
        for activation in ("relu", "tanh", "sigmoid")
    },
    "fcn relu": (NetworkKind(has_generator=True), beside_a_generator),
    "a mean over a posterior": (NetworkKind(layered=False), average),
}
RADII = {"linf": 0.04, "l2": 0.3, "l1": 0.5}
THRESHOLDS = {"variation_above": 0.2, "strong_classification": 0.3, "standard_robustness": 1.0}
STEEPEST = {"linf": 20.0, "l2": 4.0, "l1": 2.0}  # of LR, near what these networks have
IMAGES = digits(2 * IMAGES_MULTIPLE)
PROVEN_POINTS = 4  # proofs take longer
# What rounding may hide of a bound that is attained.
ROUNDING = 1e-5

Said = dict[tuple[str, Notion], Verdict]


def labels_of(model: Model, x: torch.Tensor) -> torch.Tensor:
    """What the last network predicts, but of about every third image another class."""
    return (model(x)[-1].argmax(-1) + ((255 * x).round().sum((1, 2, 3)) % 3 == 2)) % 10


def short(name: str) -> dict[str, float]:
    """Settings of a quick search: whatever they are, what is said must hold."""
    if name == "branched":
        return {"seconds": 0.1}
    return {key: 4 if isinstance(default, int) else 0.5 for key, default in JUDGES[name].settings.items()}


def verdicts(model: Model, kind: NetworkKind, norm: str, x: torch.Tensor, says: tuple[str, ...]) -> Said:
    """What all judges of these sorts say of the images, by judge and notion."""
    ball, said = Ball(norm, RADII[norm]), {}
    for name, entry in JUDGES.items():
        if name in ("alpha_crown", "walk") and kind.layered and any(isinstance(one, Conv) for one in model.layers):
            continue  # it takes seconds; `certificates/test_optimised.py` and `test_walk.py` hold them to the truth
        if name == "lbfgs":
            continue  # it takes minutes; `attacks/test_lbfgs.py` asks the same of a few points
        served = [one for one in NOTIONS.values() if entry.says in says and not entry.refuses(one, norm, kind)]
        notions = [notion(one.name, THRESHOLDS.get(one.family, STEEPEST[norm]), ball.delta) for one in served]
        if notions:
            found = judge(name, **short(name))(model, x, {ball: notions}, range(len(x)), labels_of(model, x))
            said |= {(name, asked): verdict for _, asked, verdict in found}
            assert {asked for judged_by, asked in said if judged_by == name} == set(notions)
    return said


@cache
def made(network: str) -> tuple[NetworkKind, Model]:
    kind, make = NETWORKS[network]
    return kind, make()


@cache
def found(network: str, norm: str) -> Said:
    """What attacks say of IMAGES."""
    kind, model = made(network)
    return verdicts(model, kind, norm, IMAGES, ("finds",))


@cache
def proven(network: str, norm: str) -> Said:
    """What certificates and exact answers say of the first PROVEN_POINTS."""
    kind, model = made(network)
    return verdicts(model, kind, norm, IMAGES[:PROVEN_POINTS], ("proves", "decides"))


@pytest.fixture(params=NETWORKS, ids=[one.replace(" ", "-") for one in NETWORKS])
def network(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_judge_serves_something_and_says_why_it_refuses_the_rest():
    kinds = [kind for kind, _ in NETWORKS.values()]
    for entry in JUDGES.values():
        reasons = [entry.refuses(one, norm, kind) for one in NOTIONS.values() for norm in NORMS for kind in kinds]
        assert None in reasons
        assert all(reason for reason in reasons if reason is not None)
    for one in NOTIONS.values():
        # What is judged where nothing is asked can judge it, of every network and in every ball.
        assert not any(JUDGES[one.usual_attack].refuses(one, norm, kind) for norm in NORMS for kind in kinds)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_found_is_there_and_the_same_alone(network: str, norm: str):
    (kind, model), x, ball = made(network), IMAGES, Ball(norm, RADII[norm])
    around, held_against = ball.around(x), references(model(x), labels_of(model, x))
    said = found(network, norm)
    last = len(model) - 1
    alone = verdicts(model.one(last), kind, norm, x[:IMAGES_MULTIPLE], ("finds",))
    assert said
    for (name, asked), verdict in said.items():
        assert around.contains(verdict.perturbed).all(), name
        distance = around.distance(verdict.perturbed)
        fresh = asked.outcome(held_against(asked), model(verdict.perturbed), distance)
        assert torch.equal(verdict.outcome, fresh), name
        assert ((0 <= verdict.outcome) & (verdict.outcome <= asked.entry.highest(ball.delta))).all()
        single = alone[name, asked]
        assert torch.equal(single.outcome[0], verdict.outcome[last, :IMAGES_MULTIPLE]), name
        assert torch.equal(single.perturbed[0], verdict.perturbed[last, :IMAGES_MULTIPLE]), name


@pytest.mark.parametrize("norm", NORMS)
def test_no_proof_contradicts_what_is_found(network: str, norm: str):
    (kind, _), ball = made(network), Ball(norm, RADII[norm])
    assert bool(proven(network, norm)) == kind.layered
    for (name, asked), verdict in proven(network, norm).items():
        assert not verdict.outcome.isnan().any() or JUDGES[name].says == "decides"
        proofs = verdict.outcome.nan_to_num(asked.entry.highest(ball.delta) if asked.entry.violations_raise else 0.0)
        proofs = proofs * (1 - short(name).get("tolerance", 0.0))
        for (attack, judged), violations in found(network, norm).items():
            if judged == asked:
                attacked = violations.outcome[:, :PROVEN_POINTS]
                low, high = (attacked, proofs) if asked.entry.violations_raise else (proofs, attacked)
                assert (low <= high + ROUNDING).all(), f"{name} contradicts {attack}"


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_proven_is_the_same_alone(network: str, norm: str):
    (kind, model), x = made(network), IMAGES[:PROVEN_POINTS]
    together = proven(network, norm)
    alone = verdicts(model.one(len(model) - 1), kind, norm, x[1:3], ("proves", "decides"))
    for (name, asked), verdict in alone.items():
        single, beside = verdict.outcome[0], together[name, asked].outcome[-1, 1:3]
        # A time limit may leave a point open here and not there, or less well bounded; float64 may round differently
        # with others beside.
        decided = ~(single.isnan() | beside.isnan())
        assert decided.all() or JUDGES[name].says == "decides"
        if JUDGES[name].branches and JUDGES[name].says == "proves":
            continue
        tolerance = short(name).get("tolerance", 0.0)
        torch.testing.assert_close(single[decided], beside[decided], atol=1e-6, rtol=tolerance)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_decided_has_a_witness_or_none_is_found(network: str, norm: str):
    (_, model), x, ball = made(network), IMAGES[:PROVEN_POINTS], Ball(norm, RADII[norm])
    around = ball.around(x)
    decided_by = {key: verdict for key, verdict in proven(network, norm).items() if JUDGES[key[0]].says == "decides"}
    for (_, asked), verdict in decided_by.items():
        most = asked.entry.highest(ball.delta) * (1 - ROUNDING) if asked.entry.is_distance else 0.0
        violated, decided = verdict.outcome <= most, ~verdict.outcome.isnan()
        there = around.contains(verdict.perturbed)
        assert there[violated].all()
        # A violation may lie on the border of the ball, at the distance where distances are cut.
        assert not there[decided & ~violated].any() or asked.entry.is_distance
        held_against = references(model(x), labels_of(model, x))(asked)
        outcome = asked.outcome(held_against, model(verdict.perturbed), around.distance(verdict.perturbed))
        torch.testing.assert_close(outcome[violated], verdict.outcome[violated])
