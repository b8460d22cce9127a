"""Posterior means as attacks see them, diagnostics of chains; and, in a process of its own, the chains themselves."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, network_ids, planned, study

from deltaball.base.errors import InputError
from deltaball.estimation.measuring import measure
from deltaball.estimation.outcomes import outcomes
from deltaball.estimation.stored import StoredOutcomes
from deltaball.networks import packs, posteriors
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.networks.posteriors import Posterior
from deltaball.plan.batches import IMAGES_MULTIPLE
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.study import reading
from deltaball.study.architectures import layers

SHAPE = (4, 3, 1)
FCN: Layers = layers("fcn", {"depth": 2, "width": 6, "activation": "tanh"}, SHAPE, 3)


def test_the_chains() -> None:
    here = Path(__file__).with_name("chains_on_jax.py")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    run = [sys.executable, "-m", "pytest", "-q", str(here), "-p", "no:cacheprovider"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def drawn(samples: int, scale: float = 1.0, network: Layers = FCN) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, scale, (samples, *shape)).astype(np.float32) for shape in network.weight_shapes]


def images(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).random((count, *SHAPE), dtype=np.float32))


@pytest.mark.parametrize("samples", [1, 3, posteriors.SAMPLES_AT_ONCE, 2 * posteriors.SAMPLES_AT_ONCE + 1])
def test_softmax_of_the_logits_is_the_mean_of_softmax(samples: int) -> None:
    weights, x = drawn(samples), images(5)
    each = packs.logits(FCN, [torch.from_numpy(weight).double() for weight in weights], x.double())
    found = Posterior.of(FCN, weights)(x)
    assert found.shape == (1, 5, 3)
    torch.testing.assert_close(found.softmax(-1)[0].double(), each.softmax(-1).mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(Posterior.of(FCN, weights)(x[None]), found, atol=0, rtol=0)


def test_one_sample_is_its_network() -> None:
    weights, x = drawn(1), images(5)
    network = Pack.of(FCN, [[weight[0] for weight in weights]])
    torch.testing.assert_close(Posterior.of(FCN, weights)(x), network(x).log_softmax(-1))


def test_the_gradient_goes_through_the_mean() -> None:
    """Against central differences in float64, for a loss that mixes the classes."""
    weights, x = drawn(2 * posteriors.SAMPLES_AT_ONCE + 1), images(4).double()
    posterior = Posterior(FCN, tuple(torch.from_numpy(weight).double() for weight in weights))
    mix = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    leaf = x[None].clone().requires_grad_()
    (found,) = torch.autograd.grad((posterior(leaf) * mix).sum(), leaf)
    step, expected = 1e-6, torch.zeros_like(leaf)
    for index in range(leaf[0, 0].numel()):
        moved = torch.zeros_like(x).flatten(1)
        moved[:, index] = step
        up, down = ((posterior(x + sign * moved.view_as(x)) * mix).sum(-1)[0] for sign in (1, -1))
        expected[0].flatten(1)[:, index] = (up - down) / (2 * step)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)


def test_a_class_that_no_sample_can_see_has_a_logit_and_a_gradient() -> None:
    """At these weights softmax itself underflows in float32."""
    weights, x = drawn(4, scale=30.0), images(3)
    leaf = x.clone().requires_grad_()
    logits = Posterior.of(FCN, weights)(leaf)
    assert (logits.softmax(-1) == 0).any()
    assert torch.isfinite(logits).all()
    (gradient,) = torch.autograd.grad(logits[..., 0].sum(), leaf)
    assert torch.isfinite(gradient).all()


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    posterior, x = Posterior.of(FCN, drawn(40)), images(3 * IMAGES_MULTIPLE)
    torch.testing.assert_close(posterior(x)[:, :IMAGES_MULTIPLE], posterior(x[:IMAGES_MULTIPLE]), atol=0, rtol=0)


def test_chains_are_measured_from_the_samples_in_the_store(tmp_path: Path) -> None:
    plan = planned(grid("fcn", "hmc", posterior_samples=[2, 5]), measures=[{"notion": "class_change", "delta": 0.1}])
    store, (one,) = Store(tmp_path), plan.trajectories.values()
    network, random = plan.layers(one), np.random.default_rng(2)
    weights = drawn(5, 0.3, network)
    for after, step in ((0, 2), (2, 3), (3, 5)):
        part = tuple(weight[after:step] for weight in weights)
        store.save(one.id, step, Checkpoint(part, {}, {"after": after, "status": "trained"}))
    for found, weight in zip(store.samples(one.id, 5), weights, strict=True):
        np.testing.assert_array_equal(found, weight)
    shown = random.random((20, 28, 28, 1), dtype=np.float32)
    (kind,) = plan.measures
    asked = {(one.id, step): {kind: 20} for step in one.checkpoints}
    assert measure(asked, network, shown, 0, store, "cpu") == 40
    kept = StoredOutcomes(store, 0)
    for step in one.checkpoints:
        posterior = Posterior.of(network, [weight[:step] for weight in weights])
        expected = outcomes(posterior, shown, [kind], "cpu")[kind].of_network(0)
        np.testing.assert_array_equal(kept.of((one.id, step), kind).outcomes, expected.outcomes)


def test_axes_left_out_change_no_id() -> None:
    silent = {"thinning": 1, "prior_scale": 1.0, "likelihood_scale": 1.0, "train_points": None, "burn_in": 0}
    silent |= {"start": "glorot", "warm_epochs": 0}
    assert network_ids(grid("fcn", "hmc", **silent)) == network_ids(grid("fcn", "hmc"))
    others = {"thinning": 2, "prior_scale": 0.1, "likelihood_scale": 0.5, "train_points": 9, "burn_in": 1}
    others |= {"start": "prior", "warm_epochs": 1}
    assert others.keys() == silent.keys()
    for name, value in others.items():
        assert not set(network_ids(grid("fcn", "hmc", **{name: value}))) & set(network_ids(grid("fcn", "hmc")))


def test_points_and_transitions_that_are_not_taken_cost_nothing() -> None:
    def one(**axes: object) -> Trajectory:
        return next(iter(planned(grid("fcn", "hmc", posterior_samples=100, **axes)).trajectories.values()))

    assert one(train_points=1000).flop == one().flop / 4
    assert one(burn_in=50).flop == one().flop * 1.5
    assert one(thinning=4).stored_bytes == one().stored_bytes / 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_points": 4001}, r"train_points = 4001: mnist5k has 4000; null takes all"),
        ({"thinning": 101}, r"thinning = 101 leaves none of 100 posterior_samples"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(changed: dict, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(str(study(grid("fcn", "hmc", **changed))).replace("'", '"'))
    with pytest.raises(InputError, match=said):
        reading.load(path)


def autoregressive(count: int, correlation: float, quantities: int = 1) -> np.ndarray:
    random, found = np.random.default_rng(0), np.zeros((count, quantities))
    for step in range(1, count):
        noise = random.normal(size=quantities)
        found[step] = correlation * found[step - 1] + np.sqrt(1 - correlation**2) * noise
    return found


def test_diagnostics_of_chains_that_are_known() -> None:
    from deltaball.training.mixing import rhat_and_ess

    r_hat, size = rhat_and_ess(np.random.default_rng(0).normal(size=(4000, 3)))
    assert r_hat < 1.002
    assert size > 3000
    # The effective size of a first-order autoregression is n (1 - ρ)/(1 + ρ).
    r_hat, size = rhat_and_ess(autoregressive(20000, 0.9))
    assert size == pytest.approx(20000 / 19, rel=0.2)
    # A drift: its halves differ. One quantity that drifts among some that do not is enough.
    still = autoregressive(400, 0.0, 3)
    assert rhat_and_ess(still)[0] < 1.02
    still[:, 1] += np.linspace(0, 5, 400)
    assert rhat_and_ess(still)[0] > 1.5
    assert rhat_and_ess(still)[1] < 20
    # What never changes says nothing; R-hat of it is about 1.
    assert rhat_and_ess(np.ones((400, 2))) is None
    assert rhat_and_ess(still[:6]) is None
    constant = np.column_stack([np.ones(400), autoregressive(400, 0.0)])
    assert rhat_and_ess(constant) == rhat_and_ess(constant[:, 1:])
