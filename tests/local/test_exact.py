"""The exact answer, against closed forms, grids and an independent mixed-integer program."""

import itertools
import math
from types import SimpleNamespace

import highspy
import numpy as np
import pytest
import torch
from certificate_cases import drawn_images, drawn_pack
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.local import branching, coupling, exact, linear_programs
from deltaball.local.attacks.pgd import Pgd
from deltaball.local.balls import Ball
from deltaball.local.certificates import crown
from deltaball.local.certificates.bounds import LogitBounds
from deltaball.local.certificates.differences import differences
from deltaball.local.exact import decide
from deltaball.local.losses import margin
from deltaball.local.notions import ClassChange
from deltaball.local.references import Reference
from deltaball.networks import dense_form, dense_sizes
from deltaball.networks.initial import initial_weights
from deltaball.networks.layers import Activation, Dense, Flatten, Layers, Residual
from deltaball.networks.packs import Pack
from deltaball.study.architectures import layers

LIMIT = 60.0
CLOSE = 1e-4  # smallest margins nearer to 0 than this are left to rounding


def fcn(depth: int, width: int, shape: tuple[int, int, int], classes: int, activation: str = "relu") -> Layers:
    return layers("fcn", {"depth": depth, "width": width, "activation": activation}, shape, classes)


def drawn(found: Layers, seed: int) -> Pack:
    """A network of weights that leave many units undecided, with biases."""
    random = np.random.default_rng(seed)
    weights = []
    for weight in found.weights:
        scale = {"kernel": 1.5 / math.sqrt(math.prod(weight.shape[:-1])), "bias": 0.3}[weight.role]
        weights.append(random.normal(0, scale, weight.shape).astype(np.float32))
    return Pack.of(found, [weights])


def by_sigmoids(pack: Pack) -> Pack:
    """The same function as dense layers and tanh: tanh(x) = 2 sigmoid(2 x) - 1."""
    weights, entered = [], 1.0
    for kernel, bias in zip(pack.weights[::2], pack.weights[1::2], strict=True):
        left = 1.0 if bias is pack.weights[-1] else 2.0
        shift = kernel.sum(1) if entered == 2.0 else 0.0
        weights += [left * entered * kernel, left * (bias - shift)]
        entered = 2.0
    found = tuple(Activation("sigmoid") if isinstance(one, Activation) else one for one in pack.layers)
    return Pack(Layers(pack.layers.shape, found), tuple(weights))


def images(count: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Images of which some pixels lie on the border of [0, 1]."""
    values = np.random.default_rng(seed).uniform(-0.2, 1.2, (count, *shape)).clip(0, 1)
    return torch.from_numpy(values.astype(np.float32))


def least_margin(pack: Pack, x: torch.Tensor, ball: Ball) -> float:
    """The smallest margin over the ball around one image, by a mixed-integer program per class over interval bounds.

    Of dense layers and ReLUs alone.
    """
    affine = [
        (k[0].double().numpy(), b[0].double().numpy())
        for k, b in zip(pack.weights[::2], pack.weights[1::2], strict=True)
    ]
    predicted = int(pack(x).argmax())
    centre = x.flatten().double().numpy()
    found = []
    for other in range(affine[-1][1].size):
        if other == predicted:
            continue
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("mip_feasibility_tolerance", 1e-9)
        solver.setOptionValue("primal_feasibility_tolerance", 1e-9)
        solver.setOptionValue("mip_rel_gap", 0.0)
        solver.setOptionValue("mip_abs_gap", 1e-7)
        low, high = (centre - ball.delta).clip(0), (centre + ball.delta).clip(max=1)
        units = [solver.addVariable(lb=a, ub=b) for a, b in zip(low, high, strict=True)]
        if ball.norm == "l1":
            apart = [solver.addVariable(lb=0) for _ in units]
            for z, c, t in zip(units, centre, apart, strict=True):
                solver.addConstr(z - c <= t)
                solver.addConstr(c - z <= t)
            solver.addConstr(sum(apart) <= ball.delta)
        for kernel, bias in affine[:-1]:
            positive, negative = kernel.clip(0), kernel.clip(max=0)
            least, most = low @ positive + high @ negative + bias, high @ positive + low @ negative + bias
            entering = [
                sum(k * z for k, z in zip(column, units, strict=True)) + b
                for column, b in zip(kernel.T, bias, strict=True)
            ]
            units = []
            for v, a, b in zip(entering, least, most, strict=True):
                z, on = solver.addVariable(lb=0, ub=max(b, 0)), solver.addBinary()
                solver.addConstr(z >= v)
                solver.addConstr(z <= v - min(a, 0) * (1 - on))
                solver.addConstr(z <= max(b, 0) * on)
                units.append(z)
            low, high = least.clip(0), most.clip(0)
        kernel, bias = affine[-1]
        difference = kernel[:, predicted] - kernel[:, other]
        solver.minimize(sum(k * z for k, z in zip(difference, units, strict=True)) + (bias[predicted] - bias[other]))
        assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        found.append(solver.getInfo().objective_function_value)
    return min(found)


def assert_witnesses(pack: Pack, x: torch.Tensor, ball: Ball, decisions: exact.Decisions) -> None:
    """A violation has an image that shows it, and nothing else has one."""
    violated = decisions.outcome == 0
    assert np.array_equal(decisions.witness.isnan().flatten(1).all(1).numpy(), ~violated)
    assert decisions.witness.dtype == torch.float32
    for index in np.flatnonzero(violated):
        point, witness = x[index : index + 1], decisions.witness[index : index + 1]
        assert ball.around(point).contains(witness).all()
        assert ClassChange().outcome(Reference.output(pack(point)), pack(witness), torch.zeros(())).item() == 0


def assert_agree(outcome: float, least: float) -> None:
    """An outcome with the smallest margin in real arithmetic."""
    if least > CLOSE:
        assert outcome == 1
    elif least < -CLOSE:
        assert outcome == 0
    elif least < -1e-8:
        assert outcome != 1


@pytest.mark.parametrize(("delta", "expected"), [(0.0999, 1), (0.1001, 0), (0.3, 0), (0.0, 1)])
def test_one_hidden_unit_by_hand(delta: float, expected: float):
    """Logits 0.2 and relu(x - 0.5), at x = 0.6: the class changes at x = 0.7."""
    weights = [np.array([[1.0]]), np.array([-0.5]), np.array([[0.0, 1.0]]), np.array([0.2, 0.0])]
    pack = Pack.of(fcn(1, 1, (1, 1, 1), 2), [[weight.astype(np.float32) for weight in weights]])
    x = torch.full((1, 1, 1, 1), 0.6)
    decisions = decide(pack, x, Ball("linf", delta), LIMIT)
    assert decisions.outcome.tolist() == [expected]
    assert_witnesses(pack, x, Ball("linf", delta), decisions)
    if not expected:
        assert decisions.witness.item() >= 0.7 - 1e-6


@pytest.mark.parametrize(
    ("activation", "threshold", "inverse"),
    [("tanh", 0.2, math.atanh(0.2)), ("sigmoid", 0.6, math.log(0.6 / 0.4))],
)
def test_one_curved_unit_by_hand(activation: str, threshold: float, inverse: float):
    """Logits: a threshold, and the activation of 2 (x - 0.5)."""
    changes = 0.5 + inverse / 2
    weights = [np.array([[2.0]]), np.array([-1.0]), np.array([[0.0, 1.0]]), np.array([threshold, 0.0])]
    pack = Pack.of(fcn(1, 1, (1, 1, 1), 2, activation), [[weight.astype(np.float32) for weight in weights]])
    for sign in (-1, 1):
        x = torch.full((1, 1, 1, 1), changes + 0.1 * sign)
        for delta, expected in ((0.0999, 1), (0.1001, 0), (0.0, 1)):
            decisions = decide(pack, x, Ball("linf", delta), LIMIT)
            assert decisions.outcome.tolist() == [expected]
            assert_witnesses(pack, x, Ball("linf", delta), decisions)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_a_linear_classifier_holds_up_to_its_closest_violation(norm: str):
    """Away from the border of [0, 1] that is at margin / ‖w‖₁ in L∞ and margin / ‖w‖∞ in L1."""
    pack = drawn(Layers((2, 3, 1), (Flatten(), Dense(2))), seed=3)
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.45, 0.55, (20, 2, 3, 1)).astype(np.float32))
    kernel, bias = (weight[0].double().numpy() for weight in pack.weights)
    scores = x.flatten(1).double().numpy() @ kernel + bias
    slopes = np.abs(kernel[:, 0] - kernel[:, 1])
    closest = np.abs(scores[:, 0] - scores[:, 1]) / (slopes.sum() if norm == "linf" else slopes.max())
    chosen = [index for index in range(20) if 0.01 < closest[index] < 0.4]
    assert len(chosen) >= 5
    for index in chosen:
        point = x[index : index + 1]
        for factor, expected in ((0.999, 1), (1.001, 0)):
            ball = Ball(norm, closest[index] * factor)
            decisions = decide(pack, point, ball, LIMIT)
            assert decisions.outcome.tolist() == [expected]
            assert_witnesses(pack, point, ball, decisions)


@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.sampled_from(["relu", "tanh", "sigmoid"]),
    st.sampled_from(["linf", "l1"]),
    st.floats(0.005, 0.6),
)
@settings(max_examples=60)
def test_a_grid_of_two_pixels_agrees(seed: int, depth: int, activation: str, norm: str, delta: float):
    pack, x, ball = drawn(fcn(depth, 5, (1, 2, 1), 3, activation), seed), images(3, (1, 2, 1), seed), Ball(norm, delta)
    decisions = decide(pack, x, ball, LIMIT)
    assert_witnesses(pack, x, ball, decisions)
    ticks = torch.linspace(-delta, delta, 81)
    steps = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1).view(-1, 1, 1, 2, 1)
    around = ball.around(x)
    grid = around.project(x + steps)  # [steps, n, h, w, c]; what lies outside is brought to the border
    assert around.contains(grid).all()
    predicted = pack(x).argmax(-1)[0]
    margins = margin(
        pack(grid.flatten(0, 1))[0].unflatten(0, grid.shape[:2]), predicted.expand(len(steps), -1)[..., None]
    )
    least = margins.amin(0).tolist()
    for outcome, smallest in zip(decisions.outcome, least, strict=True):
        if smallest <= 0:
            assert outcome != 1
        if smallest < -CLOSE:
            assert outcome == 0
        # The grid is fine: a margin that is large on it cannot vanish in between.
        if smallest > 0.6 * delta:
            assert outcome == 1


@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 6), (2, 5), (3, 4)]),
    st.sampled_from([("linf", 0.05), ("linf", 0.15), ("linf", 0.4), ("l1", 0.2), ("l1", 0.8)]),
)
@settings(max_examples=40)
def test_a_mixed_integer_program_agrees(seed: int, size: tuple[int, int], ball: tuple[str, float]):
    pack, x, ball = drawn(fcn(*size, (2, 2, 1), 3), seed), images(2, (2, 2, 1), seed), Ball(*ball)
    decisions = decide(pack, x, ball, LIMIT)
    assert_witnesses(pack, x, ball, decisions)
    for index, outcome in enumerate(decisions.outcome):
        assert_agree(outcome, least_margin(pack, x[index : index + 1], ball))


def test_signs_under_which_the_margin_is_constant_are_decided():
    """All units of the last layer are off there, and the linear program has nothing to minimise."""
    pack, x, ball = drawn(fcn(2, 5, (2, 2, 1), 3), 930), images(2, (2, 2, 1), 930), Ball("l1", 0.8)
    assert decide(pack, x, ball, LIMIT).outcome.tolist() == [1, 1]


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("constant", [0.5, -0.5])
def test_rows_that_do_not_depend_on_the_image_do_not_stop_the_solver(norm: str, constant: float):
    """So does the input of a unit before which all units are off."""
    random, around = np.random.default_rng(0), Ball(norm, 0.3).around(images(1, (2, 2, 1), 0))
    objective, rows, offset = (torch.from_numpy(random.normal(size=size)) for size in (4, (5, 4), 5))
    scale = torch.ones((), dtype=torch.float64)
    alone, where = linear_programs.solve(around, objective, rows, offset, LIMIT, scale)
    more = torch.cat([rows, rows[:1] * 0]), torch.cat([offset, offset.new_tensor([constant])])
    multipliers, beside = linear_programs.solve(around, objective, *more, LIMIT, scale)
    torch.testing.assert_close(multipliers[:5], alone)
    torch.testing.assert_close(beside, where)
    # What contradicts the signs is worth any price; what holds is worth none.
    assert (multipliers[5] > 0) == (constant < 0)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_without_steps_of_adam_linear_programs_decide(norm: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(branching, "STEPS", 0)
    solve, calls = linear_programs.solve, []
    monkeypatch.setattr(linear_programs, "solve", lambda *given: calls.append(1) or solve(*given))
    outcomes = []
    for seed, delta in itertools.product(range(12), (0.15, 0.4)):
        pack, x = drawn(fcn(2, 5, (2, 2, 1), 3), seed), images(1, (2, 2, 1), seed)
        ball = Ball(norm, delta * (3 if norm == "l1" else 1))
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        assert_agree(decisions.outcome[0], least_margin(pack, x, ball))
        outcomes.append(decisions.outcome[0])
    assert len(calls) > 20
    assert {0.0, 1.0} <= set(outcomes)


@pytest.mark.parametrize("scale", [0.0, 1.0, -1.0, 1e6])
def test_a_solver_that_errs_proves_nothing(scale: float, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)

    def wrong(around, objective, rows, *others):
        multipliers = torch.from_numpy(scale * random.random(len(rows))).clamp(min=0)
        return multipliers, torch.from_numpy(scale * random.normal(size=len(objective)))

    monkeypatch.setattr(branching, "STEPS", 0)
    monkeypatch.setattr(linear_programs, "solve", wrong)
    for seed in range(12):
        pack, x, ball = drawn(fcn(2, 5, (2, 2, 1), 3), seed), images(1, (2, 2, 1), seed), Ball("linf", 0.3)
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        if decisions.outcome[0] == 1:
            assert least_margin(pack, x, ball) > 0


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_certified_is_robust_and_attacked_is_violated(activation: str, norm: str):
    shape, seen = (4, 3, 1), []
    for seed, delta in itertools.product(range(4 if activation == "relu" else 2), (0.02, 0.05, 0.12)):
        pack, x = drawn(fcn(2, 10, shape, 4, "relu" if activation == "relu" else "tanh"), seed), images(16, shape, seed)
        if activation == "sigmoid":
            pack = by_sigmoids(pack)
        ball = Ball(norm, delta * (4 if norm == "l1" else 1))
        certified = (
            ClassChange()
            .certified(Reference.output(pack(x)), LogitBounds(differences(pack, x, ball, "crown", False)))[0]
            .numpy()
        )
        ((_, _, found),) = Pgd()(pack, x, {ball: [ClassChange()]}, range(len(x)))
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        attacked = found.outcome[0].numpy()
        assert (decisions.outcome[certified == 1] == 1).all()
        assert (decisions.outcome[attacked == 0] == 0).all()
        seen.extend(zip(certified, decisions.outcome, attacked, strict=True))
    assert {(0, 1, 1), (0, 0, 0), (1, 1, 1)} <= set(seen)
    assert not any(np.isnan(outcome) for _, outcome, _ in seen)


@pytest.mark.parametrize(
    ("architecture", "shape", "depth"), [("cnn", (6, 6, 1), 1), ("cnn", (7, 5, 2), 2), ("vgg", (5, 4, 1), 1)]
)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_a_convolutional_network_is_the_same_as_dense_layers(
    architecture: str, shape: tuple, depth: int, activation: str
):
    axes = {"fc_depth": 1, "fc_width": 5, "activation": activation, "filters": 3, "kernel": 3, "conv_depth": depth}
    pack = drawn(layers(architecture, axes, shape, 4), seed=1)
    dense, x = dense_form.as_dense(pack), images(50, shape).double()
    double = Pack(pack.layers, tuple(weight.double() for weight in pack.weights))
    torch.testing.assert_close(dense(x), double(x), rtol=1e-12, atol=1e-12)
    assert {type(layer).__name__ for layer in dense.layers} == {"Flatten", "Dense", "Activation"}


@pytest.mark.parametrize(
    ("shape", "filters", "ball"),
    [((6, 6, 1), 1, Ball("linf", 0.2)), ((4, 4, 1), 2, Ball("linf", 0.2)), ((4, 4, 1), 1, Ball("l1", 2.0))],
)
def test_a_convolutional_network_with_max_pool(shape: tuple, filters: int, ball: Ball):
    axes = {"fc_depth": 1, "fc_width": 4, "activation": "relu", "filters": filters, "kernel": 3, "conv_depth": 1}
    outcomes = set()
    for seed in (0, 1, 4):
        pack, x = drawn(layers("cnn", axes, shape, 3), seed), images(2, shape, seed)
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        outcomes |= set(decisions.outcome)
        noise = np.random.default_rng(0).uniform(-ball.delta, ball.delta, (2000, *x.shape)).astype(np.float32)
        samples = ball.around(x).project(x + torch.from_numpy(noise))
        least = margin(
            pack(samples.flatten(0, 1)).unflatten(1, (2000, 2)),
            pack(x).argmax(-1)[:, None, :, None].expand(1, 2000, 2, 1),
        ).amin(1)[0]
        assert (decisions.outcome[(least <= 0).numpy()] == 0).all()
        for index, outcome in enumerate(decisions.outcome):
            assert_agree(outcome, least_margin(dense_form.as_dense(pack), x[index : index + 1].double(), ball))
    assert outcomes == {0.0, 1.0}


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_a_curved_network_with_max_pool(activation: str):
    axes = {"fc_depth": 1, "fc_width": 4, "activation": activation, "filters": 2, "kernel": 3, "conv_depth": 1}
    outcomes, ball = [], Ball("linf", 0.2 if activation == "tanh" else 0.4)
    for seed in range(6):
        pack, x = drawn(layers("cnn", axes, (4, 4, 1), 3), seed), images(3, (4, 4, 1), seed)
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        noise = np.random.default_rng(0).uniform(-2 * ball.delta, 2 * ball.delta, (2000, *x.shape)).astype(np.float32)
        samples = ball.around(x).project(x + torch.from_numpy(noise))
        classes = pack(samples.flatten(0, 1)).unflatten(1, (2000, 3)).argmax(-1)[0]
        same = (classes == pack(x).argmax(-1)).all(0).numpy()
        assert (decisions.outcome[~same] == 0).all()
        outcomes += [*decisions.outcome]
    assert {0.0, 1.0} == set(outcomes)


def test_images_that_minimise_bounds_lead_to_violations():
    """Over 10,000 subproblems do not decide this point, and none of PGD's 1,280 starts is as good."""
    random = np.random.default_rng(37)
    axes = {"fc_depth": 1, "fc_width": int(random.integers(4, 9)), "activation": "relu", "kernel": 3}
    axes |= {"filters": int(random.integers(1, 5)), "conv_depth": 1}
    shape = (4, 4, int(random.integers(1, 3)))
    network, gain = layers("vgg", axes, shape, 4), random.choice([1.0, 1.5])
    weights = [
        one * np.float32(gain) if one.ndim > 1 else random.normal(0, 0.3, one.shape).astype(np.float32)
        for one in initial_weights(network, random)
    ]
    x = torch.from_numpy(random.uniform(-0.2, 1.2, (1, *shape)).clip(0, 1).astype(np.float32))
    pack, ball = Pack.of(network, [weights]), Ball("linf", 0.3)
    decisions = decide(pack, x, ball, LIMIT)
    assert decisions.outcome.tolist() == [0.0]
    assert_witnesses(pack, x, ball, decisions)
    assert decisions.subproblems[0] < 3000


def test_a_max_pool_may_come_before_its_relu():
    """Otherwise over 4,000 subproblems leave this point open."""
    axes = {"fc_depth": 1, "fc_width": 6, "activation": "relu", "filters": 4, "kernel": 3, "conv_depth": 1}
    network = layers("vgg", axes, (4, 4, 1), 4)
    pack, x = drawn_pack(network, 1, seed=57, gain=1.0), drawn_images(network.shape, 1, seed=57)
    first = dense_form.pools_first(network)
    assert first != network
    some = drawn_images(network.shape, 50).double()
    double = [Pack(order, tuple(weight.double() for weight in pack.weights)) for order in (network, first)]
    torch.testing.assert_close(double[0](some), double[1](some), rtol=1e-12, atol=1e-12)
    decisions = decide(pack, x, Ball("linf", 0.1), LIMIT)
    assert decisions.outcome.tolist() == [1.0]
    assert decisions.subproblems[0] < 2000


def test_a_convolutional_network_decided_by_linear_programs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(branching, "STEPS", 0)
    monkeypatch.setattr(dense_form, "SPARSE", 1.0)
    axes = {"fc_depth": 1, "fc_width": 2, "activation": "relu", "filters": 1, "kernel": 3, "conv_depth": 1}
    for seed in range(6):
        pack, x = drawn(layers("cnn", axes, (2, 3, 1), 2), seed), images(1, (2, 3, 1), seed)
        decisions = decide(pack, x, Ball("linf", 0.3), LIMIT)
        assert_witnesses(pack, x, Ball("linf", 0.3), decisions)
        least = least_margin(dense_form.as_dense(pack), x.double(), Ball("linf", 0.3))
        assert_agree(decisions.outcome[0], least)


def test_a_pruned_network_is_decided_without_its_zeros():
    kept, outcomes = 0.3, set()
    for seed in range(6):
        pack, x, ball = drawn(fcn(2, 12, (2, 2, 1), 3), seed), images(2, (2, 2, 1), seed), Ball("linf", 0.3)
        for index in range(0, 6, 2):
            kernel = pack.weights[index]
            kernel *= torch.from_numpy(np.random.default_rng(seed).random(kernel.shape) < kept)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dense_form, "SPARSE", 0.6)
            assert any(kernel.is_sparse for kernel, _ in dense_form.affine_layers(dense_form.as_dense(pack)))
            decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        np.testing.assert_array_equal(decisions.outcome, decide(pack, x, ball, LIMIT).outcome)
        for index, outcome in enumerate(decisions.outcome):
            assert_agree(outcome, least_margin(pack, x[index : index + 1], ball))
        outcomes |= set(decisions.outcome)
    assert outcomes == {0.0, 1.0}


def test_without_time_nothing_is_robust():
    pack, x = drawn(fcn(2, 6, (2, 2, 1), 3), 0), images(8, (2, 2, 1))
    decisions = decide(pack, x, Ball("linf", 1e-6), 0.0)
    assert np.isnan(decisions.outcome).all()
    assert decisions.witness.isnan().all()
    assert (decide(pack, x, Ball("linf", 1e-6), LIMIT).outcome == 1).all()


def test_a_limit_is_kept_and_is_no_answer(monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count(step=0.002)  # of which every look takes two thousandths of a second
    for module in (branching, coupling, crown):
        monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: next(clock)))
    pack, x = drawn(fcn(4, 40, (5, 5, 1), 10), 0), torch.full((2, 5, 5, 1), 0.5)
    point = pack(x)
    predicted = int(point[0, 0].argmax())
    # So far from every border that there is no violation to find, and so deep that there is no proof either.
    pack.weights[-1][0, predicted] += 3.0
    decisions = decide(pack, x, Ball("linf", 0.4), 0.1)
    # Two points share their time.
    assert 0.2 <= next(clock) < 0.3
    assert np.isnan(decisions.outcome).all()
    assert 0 < decisions.seconds.sum() < 0.3
    assert (decisions.subproblems > 9).all()


def test_a_point_of_too_many_subproblems_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(branching, "LARGEST_HEAPS", 4000)
    pack, x = drawn(fcn(4, 40, (5, 5, 1), 10), 0), torch.full((2, 5, 5, 1), 0.5)
    pack.weights[-1][0, int(pack(x)[0, 0].argmax())] += 3.0
    decisions = decide(pack, x, Ball("linf", 0.4), LIMIT)
    assert np.isnan(decisions.outcome).all()
    assert decisions.seconds.sum() < LIMIT / 2


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(6))
def test_broken_weights_are_never_robust(broken: float, place: int):
    pack, x = drawn(fcn(2, 5, (2, 2, 1), 3), 0), images(4, (2, 2, 1))
    pack.weights[place].view(-1)[0] = broken
    decisions = decide(pack, x, Ball("linf", 0.01), 5.0)
    assert not (decisions.outcome == 1).any()
    if math.isnan(broken) and place == 5:
        assert (decisions.outcome == 0).all()


@pytest.mark.parametrize("seconds", [0.0, LIMIT])
def test_a_tie_at_the_point_is_a_violation_by_the_point_itself(seconds: float):
    pack, x, ball = drawn(fcn(1, 5, (2, 2, 1), 3), 0), images(4, (2, 2, 1)), Ball("l1", 0.0)
    for weight in pack.weights[-2:]:
        weight.copy_(weight[..., :1].expand_as(weight).clone())
    decisions = decide(pack, x, ball, seconds)
    assert (decisions.outcome == 0).all()
    assert torch.equal(decisions.witness, x)
    assert_witnesses(pack, x, ball, decisions)


def test_a_margin_within_the_rounding_of_float32_is_unknown():
    """Logits x + 1e-9 and 0: in real arithmetic the class holds on [0, 1], but 1e-9 proves nothing about float32."""
    weights = [np.array([[1.0, 0.0]], np.float32), np.array([1e-9, 0.0], np.float32)]
    pack, x = Pack.of(Layers((1, 1, 1), (Flatten(), Dense(2))), [weights]), torch.full((1, 1, 1, 1), 0.5)
    assert np.isnan(decide(pack, x, Ball("linf", 0.5), LIMIT).outcome).all()
    assert (decide(pack, x, Ball("linf", 0.49), LIMIT).outcome == 1).all()


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_answer_does_not_depend_on_the_scale_of_the_logits(scale: float):
    pack, x, ball = drawn(fcn(2, 6, (2, 2, 1), 3), 4), images(20, (2, 2, 1)), Ball("linf", 0.15)
    plain = decide(pack, x, ball, LIMIT).outcome
    for weight in pack.weights[-2:]:
        weight *= scale
    assert {0.0, 1.0} == set(plain)
    np.testing.assert_array_equal(decide(pack, x, ball, LIMIT).outcome, plain)


def test_points_are_decided_one_by_one_and_repeatably():
    pack, x, ball = drawn(fcn(2, 6, (2, 2, 1), 3), 1), images(6, (2, 2, 1)), Ball("linf", 0.2)
    together = decide(pack, x, ball, LIMIT)
    for index in range(6):
        alone = decide(pack, x[index : index + 1], ball, LIMIT)
        assert alone.outcome[0] == together.outcome[index]
        assert alone.subproblems[0] == together.subproblems[index]
        torch.testing.assert_close(alone.witness[0], together.witness[index], equal_nan=True, rtol=0, atol=0)
    assert decide(pack, x[:0], ball, LIMIT).outcome.shape == (0,)


def test_more_points_than_are_bounded_together():
    pack, ball = drawn(fcn(2, 6, (2, 2, 1), 3), 1), Ball("linf", 0.15)
    x = images(branching.GROUP + 5, (2, 2, 1))
    decisions = decide(pack, x, ball, LIMIT)
    assert_witnesses(pack, x, ball, decisions)
    assert {0.0, 1.0} == set(decisions.outcome)
    assert decisions.outcome[-5:].tolist() == decide(pack, x[-5:], ball, LIMIT).outcome.tolist()


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("kind", ["dead units", "a dead layer", "saturated logits", "a tie"])
def test_unusual_networks(kind: str, norm: str):
    outcomes = set()
    for seed in range(4):
        pack, x = drawn(fcn(2, 8, (2, 2, 1), 3), seed), images(4, (2, 2, 1), seed)
        if kind == "dead units":
            pack.weights[1][0, ::2] = -100.0
            pack.weights[3][0, 1::2] = -100.0
        elif kind == "a dead layer":
            pack.weights[3].fill_(-100.0)
        elif kind == "saturated logits":
            for weight in pack.weights[-2:]:
                weight *= 1e4
        else:
            for weight in pack.weights[-2:]:
                weight[..., 1] = weight[..., 0]
        ball = Ball(norm, 0.2 if norm == "linf" else 0.6)
        decisions = decide(pack, x, ball, LIMIT)
        assert_witnesses(pack, x, ball, decisions)
        for index, outcome in enumerate(decisions.outcome):
            assert not np.isnan(outcome)
            assert_agree(outcome, least_margin(pack, x[index : index + 1], ball))
        outcomes |= set(decisions.outcome)
    assert 1.0 in outcomes
    assert (0.0 in outcomes) == (kind != "a dead layer")


def test_what_has_no_exact_answer_is_refused(monkeypatch: pytest.MonkeyPatch):
    pack, x = drawn(fcn(1, 5, (2, 2, 1), 3), 0), images(1, (2, 2, 1))
    with pytest.raises(ValueError, match="l2"):
        decide(pack, x, Ball("l2", 0.1), LIMIT)
    curved = Layers((2, 2, 1), (Flatten(), Residual((Dense(4), Activation("tanh"))), Dense(3)))
    with pytest.raises(InputError, match="tanh beside residual sums"):
        decide(drawn(curved, 0), x, Ball("linf", 0.1), LIMIT)
    monkeypatch.setattr(dense_sizes, "LARGEST", 20)
    with pytest.raises(ValueError, match="too large"):
        decide(pack, x, Ball("linf", 0.1), LIMIT)
