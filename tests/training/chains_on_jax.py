"""Bayesian networks: right posteriors, and the same chain alone, in a pack and resumed.

`test_hmc.py` runs this file in a process of its own: HMC needs Keras on JAX, and a process has one backend.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from builders import grid, planned, planned_few, study

from deltaball.base.errors import InputError
from deltaball.cli import main
from deltaball.data.datasets import Dataset, from_arrays
from deltaball.networks import packs
from deltaball.networks.layers import BatchNorm, Dense, Dropout, Flatten, Layer, Layers, Residual
from deltaball.networks.posteriors import Posterior
from deltaball.plan import loading
from deltaball.plan.networks import Trajectory
from deltaball.plan.plan import Plan
from deltaball.store.store import Checkpoint, Store
from deltaball.study.architectures import layers
from deltaball.tables import frames
from deltaball.training import hmc, splits
from deltaball.training.chains import ENERGIES_KEPT, Chain
from deltaball.training.transitions import log_softmax_of, one_chain

CHAINS = {"width": 8, "activation": "tanh", "prior_scale": 0.3, "step_size": [0.02, 0.01], "seed": [0, 1]}
CHAINS |= {"leapfrog_steps": 5, "posterior_samples": [10, 30, 40], "train_points": 100}


def test_linear_regression_has_its_posterior():
    """A normal prior and normal noise: the posterior is normal, with mean and covariance in closed form."""
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 3))
    y = x @ [1.0, -0.5, 0.2] + 0.5 * random.normal(size=20)
    precision = x.T @ x / 0.5**2 + np.eye(3) / 0.8**2
    mean, covariance = np.linalg.solve(precision, x.T @ y / 0.5**2), np.linalg.inv(precision)

    def potential(x: jax.Array, y: jax.Array):
        return lambda w: ((y - x @ w) ** 2).sum() / (2 * 0.5**2) + (w**2).sum() / (2 * 0.8**2)

    start, transition = one_chain(potential, leapfrog_steps=12)
    data = jnp.array(x, jnp.float32), jnp.array(y, jnp.float32)

    @jax.jit
    def drawn(*data: jax.Array) -> jax.Array:
        state = start(jnp.zeros(3), jax.random.PRNGKey(1), 0.1, *data)
        return jax.lax.scan(lambda state, _: [transition(state, *data)] * 2, state, None, 8000)[1].z

    samples = np.asarray(drawn(*data), np.float64)[100:]
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((samples.mean(0) - mean) / deviation, 0, atol=0.06)
    np.testing.assert_allclose(
        np.cov(samples.T) / np.outer(deviation, deviation), covariance / np.outer(deviation, deviation), atol=0.08
    )


SOFTMAX = Layers((1, 1, 1), (Flatten(), Dense(2)))


def chain(checkpoints: Sequence[int], identity: str = "abcd", **axes: object) -> Trajectory:
    axes = {**planned(grid("fcn", "hmc")).networks[0].axes, "leapfrog_steps": 8, **axes}
    return Trajectory(identity, "g", "line", "hmc", "fcn", axes, tuple(checkpoints), (), identity, 4, 1.0)


def test_logistic_regression_predicts_as_the_posterior_on_a_grid(tmp_path: Path):
    """One pixel, two classes: the prediction depends on two differences of weights, which are integrated on a grid."""
    random = np.random.default_rng(0)
    x = random.random((25, 1, 1), dtype=np.float32)
    y = (random.random(25) < 1 / (1 + np.exp(4 - 8 * x[:, 0, 0]))).astype(np.uint8)
    asked = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None]
    data = from_arrays("line", {"x_train": x, "y_train": y, "x_test": asked, "y_test": np.arange(5) % 2}, "test")
    scale, factor = 2.0, 0.5
    one = chain([3000], prior_scale=scale, likelihood_scale=factor, step_size=0.35, burn_in=20)
    store = Store(tmp_path)
    assert hmc.train([one], SOFTMAX, data, store, "cpu") == 1
    kernel, bias = store.samples(one.id, 3000)
    assert (kernel.shape, bias.shape) == ((3000, 1, 2), (3000, 2))
    found = Posterior.of(SOFTMAX, [kernel, bias])(torch.from_numpy(data.x_test)).softmax(-1)[0, :, 1]

    # The difference of two independent normal weights has √2 times their scale.
    slope, shift = np.meshgrid(*[np.linspace(-12, 12, 401)] * 2, indexing="ij")
    lead = slope[..., None] * x.ravel() + shift[..., None]
    likelihood = -np.logaddexp(0, np.where(y == 1, -lead, lead)).sum(-1)
    density = np.exp(factor * likelihood - (slope**2 + shift**2) / (4 * scale**2))
    expected = [(density / (1 + np.exp(-slope * at - shift))).sum() / density.sum() for at in asked.ravel()]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert store.facts(one.id, 3000)["ess_min"] > 500
    assert store.facts(one.id, 3000)["rhat_max"] < 1.02


def test_draws_from_the_prior_have_half_a_unit_of_energy_per_weight(few: Dataset, plan: Plan, tmp_path: Path):
    pack = the_pack(plan)
    axes = {"likelihood_scale": 1e-9, "prior_scale": 0.5, "start": "prior", "step_size": 0.15, "leapfrog_steps": 10}
    one = replace(pack[0], axes={**pack[0].axes, **axes, "thinning": 40}, checkpoints=(40, 200))
    hmc.train([one], plan.layers(one), few, Store(tmp_path), "cpu")
    energies, first = (np.array(Store(tmp_path).facts(one.id, step)["energies"].split(), float) for step in (200, 40))
    # The sum of d squares of standard normal variables is d ± √2d.
    assert (len(energies), len(first)) == (ENERGIES_KEPT, 40)
    assert energies[0] == first[0]
    assert abs(2 * energies - one.parameters).max() < 5 * np.sqrt(2 * one.parameters)
    assert len(set(energies)) > 90


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_keras_on_jax_is_the_pack_on_torch_for_every_fcn_of_the_grids(activation: str):
    shapes = {(depth, width) for depth in (1, 2, 3) for width in (128, 256, 512)} | {(1, 32), (1, 64)}
    random = np.random.default_rng(0)
    images = random.random((3, 28, 28, 1), dtype=np.float32)
    for depth, width in sorted(shapes):
        found = layers("fcn", {"depth": depth, "width": width, "activation": activation}, (28, 28, 1), 10)
        weights = [random.normal(0, 0.1, shape).astype(np.float32) for shape in found.weight_shapes]
        expected = packs.Pack.of(found, [weights])(torch.from_numpy(images)).log_softmax(-1)[0]
        np.testing.assert_allclose(log_softmax_of(found)(weights, images), expected, atol=2e-5)


def the_pack(plan: Plan) -> tuple[Trajectory, ...]:
    (pack,) = (pack for shard in plan.shards.values() for pack in shard.packs)
    return pack


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.facts == other.facts
    assert one.state.keys() == other.state.keys()
    pairs = [*zip(one.weights, other.weights, strict=True), *((one.state[n], other.state[n]) for n in one.state)]
    for array, twin in pairs:
        np.testing.assert_array_equal(array, twin)


@pytest.fixture(scope="module")
def plan(data_folder: Path) -> Plan:
    return planned_few(data_folder, grid("fcn", "hmc", **CHAINS))


@pytest.fixture(scope="module")
def reference(plan: Plan, few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Where the plan's one pack was sampled without interruption."""
    store, pack = Store(tmp_path_factory.mktemp("store")), the_pack(plan)
    assert len(pack) == 4
    assert hmc.train(pack, plan.layers(pack[0]), few, store, "cpu") == len(plan.networks) == 12
    return store


@pytest.mark.parametrize("layer", [BatchNorm(), Dropout(0.5), Residual((Dense(3),))])
def test_layers_that_chains_cannot_sample_are_refused_by_name(layer: Layer):
    with pytest.raises(InputError, match=f"no chain for layer {type(layer).__name__}: "):
        log_softmax_of(Layers((2, 2, 1), (Flatten(), Dense(3), layer)))


def test_a_chain_alone_is_the_one_in_a_pack(plan: Plan, few: Dataset, reference: Store, tmp_path: Path):
    one = the_pack(plan)[2]
    hmc.train([one], plan.layers(one), few, Store(tmp_path), "cpu")
    for step in one.checkpoints:
        assert_same(Store(tmp_path).load(one.id, step), reference.load(one.id, step))


def test_checkpoints_are_prefixes_of_one_chain(plan: Plan, few: Dataset, reference: Store, tmp_path: Path):
    one = the_pack(plan)[0]
    longest = replace(one, checkpoints=(40,))
    assert hmc.train([longest], plan.layers(one), few, Store(tmp_path), "cpu") == 1
    whole = Store(tmp_path).samples(one.id, 40)
    for step in one.checkpoints:
        for found, array in zip(reference.samples(one.id, step), whole, strict=True):
            np.testing.assert_array_equal(found, array[:step])
    facts = [{**store.facts(one.id, 40), "after": 0} for store in (reference, Store(tmp_path))]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("lost", [[30, 40], [40], [10, 25, 30, 40], [25], [10]])
def test_a_killed_chain_goes_on_where_it_was(
    lost: list[int], plan: Plan, few: Dataset, reference: Store, tmp_path: Path
):
    one, store = the_pack(plan)[1], Store(tmp_path)
    assert reference.steps(one.id) == [10, 25, 30, 40]
    for step in reference.steps(one.id):
        if step not in lost:
            store.save(one.id, step, reference.load(one.id, step))
    # A network needs every part before it.
    assert hmc.train([one], plan.layers(one), few, store, "cpu") == sum(step >= min(lost) for step in one.checkpoints)
    for step in reference.steps(one.id):
        assert_same(store.load(one.id, step), reference.load(one.id, step))
    assert hmc.train([one], plan.layers(one), few, store, "cpu") == 0


def test_chains_taken_together_are_those_taken_in_turns(plan: Plan, few: Dataset, reference: Store, tmp_path: Path):
    """As on a GPU, whose rounding may differ with the pack: the same random numbers, the same first transitions."""
    pack = [replace(one, checkpoints=(5,)) for one in the_pack(plan)]
    run = hmc.Sampling([Chain(one, 0, []) for one in pack], plan.layers(pack[0]), few, Store(tmp_path), "cpu")
    run.until(5)
    for one in pack:
        for found, array in zip(Store(tmp_path).samples(one.id, 5), reference.samples(one.id, 10), strict=True):
            np.testing.assert_allclose(found, array[:5], atol=1e-4)


def test_accuracy_and_loss_are_those_of_the_mean_over_the_samples(plan: Plan, few: Dataset, reference: Store):
    for one in the_pack(plan)[:2]:
        seen = splits.seen_points(few.facts, one.axes)
        for step in one.checkpoints:
            weights = [torch.from_numpy(array) for array in reference.samples(one.id, step)]
            facts = reference.facts(one.id, step)
            for split, images, labels in (
                ("train", few.x_train[seen], few.y_train[seen]),
                ("test", few.x_test, few.y_test),
            ):
                each = packs.logits(plan.layers(one), weights, torch.from_numpy(images)).double().softmax(-1)
                mean = each.mean(0).numpy()
                assert facts[f"{split}_accuracy"] == (mean.argmax(1) == labels).mean()
            assert facts["test_loss"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), abs=1e-5)
            assert facts["status"] == "trained"
            assert 0.5 < facts["acceptance"] <= 1


def test_thinning_keeps_some_samples_of_the_same_number_of_transitions(few: Dataset, data_folder: Path, tmp_path: Path):
    thin = planned_few(data_folder, grid("fcn", "hmc", **{**CHAINS, "thinning": 4, "step_size": 0.02, "seed": 0}))
    (one,), store = the_pack(thin), Store(tmp_path)
    hmc.train([one], thin.layers(one), few, store, "cpu")
    assert [len(store.samples(one.id, step)[0]) for step in one.checkpoints] == [2, 7, 10]
    every = replace(one, axes={**one.axes, "thinning": 1})
    hmc.train([every], thin.layers(one), few, Store(tmp_path / "every"), "cpu")
    whole = Store(tmp_path / "every")
    for found, array in zip(store.samples(one.id, 40), whole.samples(one.id, 40), strict=True):
        np.testing.assert_array_equal(found, array[3::4])
    for name in ("acceptance", "ess_min", "rhat_max", "energies"):
        assert store.facts(one.id, 40)[name] == whole.facts(one.id, 40)[name]
    assert len(store.facts(one.id, 40)["energies"].split()) == 40


def test_chains_of_one_seed_see_the_same_training_points(few: Dataset, plan: Plan):
    axes = {"train_points": 30, "seed": 1}
    chosen = splits.seen_points(few.facts, axes)
    assert len(set(chosen)) == 30
    np.testing.assert_array_equal(splits.seen_points(few.facts, {**axes, "train_points": 50})[:30], chosen)
    assert set(splits.seen_points(few.facts, {**axes, "seed": 2})) != set(chosen)
    pack = [replace(one, axes={**one.axes, **axes}) for one in the_pack(plan)]
    run = hmc.Sampling([Chain(one, 0, []) for one in pack], plan.layers(pack[0]), few, Store(Path("none")), "cpu")
    np.testing.assert_array_equal(run.x_train[3], few.x_train[chosen])
    np.testing.assert_array_equal(run.y_train[3], few.y_train[chosen])


def test_where_a_chain_starts(few: Dataset, plan: Plan, tmp_path: Path):
    one = replace(the_pack(plan)[0], checkpoints=(1,))
    starts = {"glorot": {}, "prior": {"start": "prior"}, "warm": {"warm_epochs": 40}, "burnt in": {"burn_in": 20}}
    facts = {}
    for name, axes in starts.items():
        store, trajectory = Store(tmp_path / name), replace(one, axes={**one.axes, **axes})
        hmc.train([trajectory], plan.layers(one), few, store, "cpu")
        facts[name] = store.facts(one.id, 1)
    losses = {name: found["test_loss"] for name, found in facts.items()}
    assert len(set(losses.values())) == 4
    assert losses["warm"] < losses["glorot"]
    assert losses["burnt in"] < losses["glorot"]


def test_a_chain_that_starts_nowhere_has_diverged(few: Dataset, plan: Plan, reference: Store, tmp_path: Path):
    one = the_pack(plan)[0]
    wild = replace(one, id="wild", axes={**one.axes, "start": "prior", "prior_scale": 1e30})
    store = Store(tmp_path)
    assert hmc.train([wild], plan.layers(one), few, store, "cpu") == 3
    assert {store.facts("wild", step)["status"] for step in wild.checkpoints} == {"diverged"}
    assert "(start: prior, prior_scale: 1e+30, likelihood_scale: 1)" in store.facts("wild", 10)["reason"]
    assert hmc.train([replace(wild, checkpoints=(10, 50))], plan.layers(one), few, store, "cpu") == 1
    assert store.facts("wild", 50)["status"] == "diverged"
    assert store.facts("wild", 50)["reason"] == store.facts("wild", 10)["reason"]


@pytest.mark.parametrize(
    ("step_size", "burn_in", "status"), [(0.02, 0, "trained"), (0.02, 5, "trained"), (3.0, 5, "stuck")]
)
def test_one_sample_is_enough_to_tell_whether_a_chain_moves(
    few: Dataset, plan: Plan, tmp_path: Path, step_size: float, burn_in: int, status: str
):
    first = the_pack(plan)[0]
    one = replace(first, axes={**first.axes, "step_size": step_size, "burn_in": burn_in}, checkpoints=(1,))
    hmc.train([one], plan.layers(one), few, Store(tmp_path), "cpu")
    facts = Store(tmp_path).facts(one.id, 1)
    assert facts["status"] == status
    assert (facts["acceptance"] > 0.5) == (status == "trained")


def test_a_hopeless_step_size_is_stuck_and_stays_in_the_tables(
    few: Dataset, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    chains = {**CHAINS, "step_size": [0.02, 3.0], "seed": 0, "dataset": "few", "posterior_samples": [10, 30]}
    content = study(grid("fcn", "hmc", **chains), data=str(data_folder))
    content |= {"guarantee": {"epsilon": 0.25, "confidence": 0.95}}
    Path("config.yaml").write_text(str(content).replace("'", '"').replace("None", "null"))
    (shard,) = loading.planned(Path("config.yaml")).shards
    for command in (["data", "few"], ["train", shard], ["measure", shard], ["networks"], ["robustness"]):
        assert main.main(command) == 0
    networks = frames.read(Path("results/test/networks.parquet")).set_index("step_size")
    assert networks.loc[0.02, "status"].tolist() == ["trained"] * 2
    assert networks.loc[3.0, "status"].tolist() == ["stuck"] * 2
    assert networks.loc[3.0, "acceptance"].max() < 0.01
    assert networks.loc[3.0, "divergences"].tolist() == [10, 30]
    assert networks.loc[3.0, ["ess_min", "rhat_max"]].isna().all(axis=None)
    assert networks["test_accuracy"].notna().all()
    assert set(frames.read(Path("results/test/robustness.parquet"))["network_id"]) == set(networks["network_id"])
    assert main.main(["export", networks["network_id"].iloc[0]]) == 2
    assert main.main(["redraw"]) == 0
    page = Path("results/test/report.html").read_text(encoding="utf-8")
    assert "0 of 2 chains have converged" in page
    assert '<figure id="bayes_few_class_change">' in page
    assert '<figure id="chains_few">' in page
    traced = pd.read_csv("results/test/figures/chains_few.csv", index_col="step_size")
    assert traced.loc[3.0, "status"] == "stuck"
    assert len(set(traced.loc[3.0, "energies"].split())) == 1 < len(set(traced.loc[0.02, "energies"].split()))
    shutil.rmtree("results")
