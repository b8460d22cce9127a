"""What training is estimated to take: amounts of work, rates on disk, and their measurement on tiny probes."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import ARCHITECTURES, METHODS, grid, planned
from hypothesis import given
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.cli import main
from deltaball.data.catalogue import CATALOGUE
from deltaball.networks.coders import Coders
from deltaball.networks.layers import BatchNorm, Dense, Dropout, Flatten, Layers
from deltaball.plan import costs
from deltaball.plan.costs import UNITS, Rates
from deltaball.run import calibration, preview, probes
from deltaball.store.store import Store
from deltaball.study import architectures
from deltaball.study.judges import JUDGES
from deltaball.workflow import claims, resources

MNIST = CATALOGUE["mnist"]
SGD = {"batch_size": 128, "optimizer": "sgd"}
CHAIN = {"train_points": 500, "leapfrog_steps": 10, "burn_in": 20, "warm_epochs": 0, "thinning": 2}


def network(architecture: str = "fcn", **changed: Any) -> Layers:
    return architectures.layers(architecture, {**ARCHITECTURES[architecture], **changed}, MNIST.shape, MNIST.classes)


def seconds(
    checkpoints: list[list[int]], layers: Layers | None = None, method: str = "sgd", device: str = "cpu", **axes: Any
) -> float:
    work = costs.training(method, {**SGD, **axes}, layers or network(), MNIST, checkpoints, device)
    return costs.shipped(device).of(work)


def rates(**changed: float) -> Rates:
    return Rates("cpu", "an abacus", "on a Sunday", {**dict.fromkeys(UNITS, 0.0), **changed}, {"a probe": 1.5})


def test_a_step_is_made_of_what_can_be_counted():
    layers = network("cnn")  # 28×28×1, convolution of 4 3×3 filters, pool, 784-16-10
    work = costs.epochs("sgd", {"batch_size": 32, "optimizer": "adam"}, layers, MNIST, [1, 2], "cpu")
    steps = 1875  # 60,000 in batches of 32
    parameters = (9 + 1) * 4 + 785 * 16 + 17 * 10
    assert {unit: amount for unit, amount in work.items() if amount} == {
        "step": 2 * steps,
        "layer": 2 * steps * 3,
        "product": 3 * steps * 2,
        "convolution": 3 * steps,
        "product_flop": 3 * 60_000 * 3 * 2 * (784 * 16 + 16 * 10),
        "convolution_flop": 3 * 60_000 * 3 * 2 * 784 * 9 * 16,
        "point": 3 * 60_000,
        "pixel": 3 * 60_000 * 784,
        "number": 3 * 60_000 * (784 * 4 + 16 + 10),
        "weight": 3 * steps * parameters,
        "moment": 3 * steps * parameters,
    }


def test_normalisation_and_dropout_count_by_the_numbers_that_they_give():
    normalised = network("conv5")  # 4 filters of 28×28 by strides of 2, dense layers of 8 and 10
    work = costs.epochs("sgd", {"batch_size": 32}, normalised, MNIST, [1], "cpu")
    maps = 4 * (14**2 + 7**2 + 4**2)
    assert work["number"] == 60_000 * (maps * (1 + costs.IN_A_STEP[BatchNorm]) + 8 + 10)
    assert work["layer"] == 1875 * (3 + 3 + 2)
    plain, dropping = (Layers((28, 28, 1), (Flatten(), Dense(50), *some, Dense(10))) for some in ((), (Dropout(0.5),)))
    without, with_it = (
        costs.epochs("sgd", {"batch_size": 32}, one, MNIST, [2], "cpu")["number"] for one in (plain, dropping)
    )
    assert with_it - without == 2 * 60_000 * 50 * costs.IN_A_STEP[Dropout]


def test_fewer_images_and_those_held_out_are_counted():
    layers = network("fcn")
    few = {"batch_size": 32, "train_points": 640, "validation": 100}
    assert costs.epochs("sgd", few, layers, MNIST, [3], "cpu")["step"] == 3 * 20
    trained = costs.training("sgd", few, layers, MNIST, [[1, 3]], "cpu")
    forward = costs.passes(layers, 2 * (640 + 10_000) + 3 * 100)
    assert trained["evaluated"] == forward["evaluated"]


def test_lower_precision_has_rates_of_its_own():
    full, lower = (
        costs.epochs("sgd", {**SGD, "precision": precision}, network("cnn"), MNIST, [2], "cpu")
        for precision in ("float32", "bfloat16")
    )
    flop = [unit for unit in full if unit.endswith("_flop")]
    assert {f"{unit}_bfloat16" if unit in flop else unit: amount for unit, amount in full.items()} == lower


def test_a_chain_is_made_of_gradients_and_of_what_is_noted_of_it():
    forward = 2 * (784 * 64 + 64 * 10)
    for device, leapfrogs in (("cpu", 10 * (120 + 70)), ("cuda", 10 * 120)):
        work = costs.training("hmc", CHAIN, network(), MNIST, [[50, 100], [50]], device)
        images = (120 + 70) * (3 * 10 * 500 + 10_000 + 500 / 2)
        expected = {"leapfrog": leapfrogs, "chain_flop": images * forward, "compilation": 1, "checkpoint": 3}
        assert work == expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 30), st.sampled_from(["cpu", "cuda"]))
def test_epochs_add_up(each: list[int], more: int, device: str):
    def work(epochs: list[int]) -> costs.Work:
        return costs.epochs("sgd", SGD, network("cnn"), MNIST, epochs, device)

    assert costs.total(work(each), work([more] * len(each))) == pytest.approx(
        {**dict.fromkeys(UNITS, 0), **work([one + more for one in each])}
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_work_takes_longer(device: str):
    def rise(*values: float) -> bool:
        return all(one < other for one, other in pairwise(values))

    def of(**axes: Any) -> float:
        return seconds([[5]], network(**axes), device=device)

    assert rise(*(of(width=width) for width in (32, 64, 100, 1024)))
    assert rise(*(of(depth=depth) for depth in (1, 2, 4)))
    assert rise(*(seconds([[5]] * networks, device=device) for networks in (1, 2, 3, 17, 64)))
    assert rise(seconds([[5]], device=device), seconds([[6]], device=device), seconds([[6], [5]], device=device))
    assert rise(*(seconds([[5]], device=device, batch_size=batch) for batch in (512, 128, 32, 1)))
    chains = [
        seconds([[100]] * count, method="hmc", device=device, **{**CHAIN, "leapfrog_steps": steps})
        for count, steps in ((1, 10), (1, 20), (2, 20))
    ]
    assert rise(*chains)
    for kind in ("cnn", "vgg"):
        assert rise(*(seconds([[5]], network(kind, filters=filters), device=device) for filters in (4, 20, 64)))


def test_on_a_cpu_adam_and_checkpoints_take_longer():
    plain = seconds([[5]], network(width=256))
    assert seconds([[5]], network(width=256), optimizer="adam") > plain
    assert seconds([[1, 2, 3, 4, 5]], network(width=256)) > plain


def test_masks_are_of_the_weights_of_pruned_networks():
    plain, pruned = (costs.epochs(method, SGD, network(width=256), MNIST, [5], "cpu") for method in ("sgd", "imp"))
    assert plain["mask"] == 0
    assert pruned["mask"] == pruned["weight"] == 5 * 469 * (785 * 256 + 257 * 10)
    assert rates(mask=1e-9).of(pruned) == pytest.approx(1e-9 * pruned["mask"])


def test_what_an_auto_encoder_passes_is_counted() -> None:
    coders = Coders(MNIST.shape, latent=8, filters=16)
    encoder = 2 * (14 * 14 * 16 * 16 + 7 * 7 * 16 * 16 * 32 + 4 * 4 * 16 * 32 * 64)
    work = costs.coding(coders, 3, 0)
    assert (work["convolution_flop"], work["product_flop"]) == (3 * encoder, 3 * 2 * 4 * 4 * 64 * 8)
    # Maps of 7×7, 14×14 and 28×28 of 32, 16 and one filter; the one takes as long as LANES.
    decoder = 2 * (7 * 7 * 9 * 64 * 32 + 14 * 14 * 9 * 32 * 16 + 28 * 28 * 9 * 16 * 16)
    work = costs.coding(coders, 0, 5)
    assert (work["convolution_flop"], work["product_flop"]) == (5 * decoder, 5 * 2 * 8 * 4 * 4 * 64)


@pytest.mark.parametrize("objective", ["on_manifold", "on_manifold_adversarial"])
def test_training_on_the_manifold_counts_what_is_decoded(objective: str):
    found = planned(grid(objective=objective, epochs=2))
    (pack,) = found.packed((one.trajectory_id, one.checkpoint) for one in found.networks)
    first, facts = pack[0], found.facts["mnist5k"]
    asked = first.method, first.axes, found.layers(first), facts, [one.checkpoints for one in pack], "cpu"
    (entry,) = found.study.autoencoders
    without, coders = costs.training(*asked), entry.coders(facts.shape)
    # Of the one all images are encoded, and as many decoded; of the other half of them, in two steps of attack.
    often = {"on_manifold": (1, 1), "on_manifold_adversarial": (0.5, 3.5)}[objective]
    coded = costs.coding(coders, *(2 * 4_000 * each for each in often))
    assert found.seconds(pack) == pytest.approx(found.rates.of(costs.total(without, coded)))


def test_measuring_counts_what_kernels_decode_once_for_a_pack():
    def minutes(networks: int, sigma: float, **changed: Any) -> float:
        near = {"notion": "class_change", "perturbation": "on_manifold", "sigma": sigma, "autoencoder": "one"}
        coders = [{"name": "one", "dataset": "mnist5k", "latent": 8, "filters": 64}]
        found = planned(grid(seed=[*range(networks)]), measures=[{**near, **changed}], autoencoders=coders)
        return sum(resources.measuring(found, shard).minutes for shard in found.shards.values())

    one, four, more = minutes(1, 0.1), minutes(4, 0.1), minutes(1, 0.1, draws=200)
    assert more == pytest.approx(2 * one, rel=0.05)
    assert one < four < 2 * one


def test_networks_whose_activations_a_cache_cannot_hold_do_not_step_together():
    small, large = network(width=64), network("cnn", filters=20)
    assert costs.taken_together(4, small, 128, "cpu") == 4
    assert costs.taken_together(4, large, 128, "cpu") == 1
    assert costs.taken_together(4, large, 128, "cuda") == 4
    apart = costs.epochs("sgd", SGD, large, MNIST, [1] * 4, "cpu")
    assert apart["step"] == 4 * costs.epochs("sgd", SGD, large, MNIST, [1] * 4, "cuda")["step"]


def test_a_fit_finds_the_rates_that_made_the_times():
    random = np.random.default_rng(0)
    truth = {unit: 10 ** random.uniform(-12, -1) for unit in UNITS}
    # Each unit matters in some row, whatever its size.
    shares = random.dirichlet([0.3] * len(UNITS), size=60)
    works = [{unit: share / truth[unit] for unit, share in zip(UNITS, row, strict=True)} for row in shares]
    rows = [(work, sum(amount * truth[unit] for unit, amount in work.items())) for work in works]
    assert calibration.fit(rows, dict.fromkeys(UNITS, 0.0)) == pytest.approx(truth, rel=1e-6)


def test_what_no_probe_has_keeps_its_rate_and_no_rate_is_negative():
    before = dict.fromkeys(UNITS, 7.0)
    # The second does more and takes less: a free fit would give the layer a negative rate.
    found = calibration.fit([({"step": 1, "layer": 0}, 2.0), ({"step": 1, "layer": 1}, 1.0)], before)
    assert found["layer"] == 0
    assert 1 < found["step"] < 2
    assert {found[unit] for unit in UNITS if unit not in ("step", "layer")} == {7.0}


def test_rates_are_kept_beside_the_store_and_used_by_the_plan(tmp_path: Path):
    grids = grid(width=[64, 128]), grid("cnn")
    before = planned(*grids, results=str(tmp_path))
    assert before.rates.shipped
    assert "they ship with deltaball; `deltaball calibrate`" in list(preview.lines(before, Store(tmp_path)))[-1]
    slow = replace(before.rates, hardware="an abacus", seconds={k: 10 * v for k, v in before.rates.seconds.items()})
    kept = costs.write(slow, before.study.store)
    assert costs.read(before.study.store, "cpu") == slow
    after = planned(*grids, results=str(tmp_path))
    assert not after.rates.shipped
    minutes = [sum(shard.minutes for shard in one.shards.values()) for one in (before, after)]
    assert minutes[1] == pytest.approx(10 * minutes[0])
    *_, last = preview.lines(after, Store(tmp_path))
    assert last.startswith("estimates are for one core of an abacus, measured ")
    assert last.endswith(str(kept))
    # On another device, and in another store, nothing has changed.
    assert planned(*grids, results=str(tmp_path), compute={"device": "cuda"}).rates.shipped
    assert planned(*grids, results=str(tmp_path / "other")).rates.shipped


def content(**changed: Any) -> str:
    return json.dumps({"device": "cpu", "hardware": "x", "measured": "y", "seconds": rates().seconds, **changed})


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (content()[:-20], "not a file of rates"),
        ("[]", "not a file of rates"),
        ("null", "not a file of rates"),
        (content(colour="red"), "not a file of rates"),
        (content(seconds=[1, 2]), "not a file of rates"),
        (content(device="cuda"), "rates of cuda"),
        (content(seconds={"step": 1.0}), "no seconds from 0 on for layer"),
        (content(seconds={**rates().seconds, "mask": -1.0}), "no seconds from 0 on for mask"),
        (content(seconds={**rates().seconds, "mask": float("nan")}), "no seconds from 0 on for mask"),
        (content(seconds={**rates().seconds, "mask": "2"}), "no seconds from 0 on for mask"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: str, problem: str
):
    monkeypatch.chdir(tmp_path)
    path = Path("results/store/rates-cpu.json")
    path.parent.mkdir(parents=True)
    path.write_text(written)
    with pytest.raises(InputError, match=problem):
        costs.read(path.parent, "cpu")
    Path("config.yaml").write_text(STUDY)
    assert main.main(["plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: {problem}; write it again with `deltaball calibrate` where jobs run, or delete it" in line


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    costs.path(tmp_path, "cpu").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a file of rates"):
        costs.read(tmp_path, "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_rates_ship_for_every_device(device: str):
    found = costs.shipped(device)
    assert (found.device, found.shipped) == (device, True)
    assert set(found.seconds) == set(UNITS)


def test_the_rates_that_ship_for_gpus_are_those_of_the_pilot():
    # FLOP/s that it sustained: FCN 256×2 in packs of 64; CNN of 20 filters; VGG of 48. A step's own millisecond and the
    # order of the data, drawn by numpy, come on top of it.
    dense = {"fc_depth": 1, "fc_width": 128, "conv_depth": 2}
    for layers, shape, sustained in (
        (network(width=256, depth=2), (28, 28, 1), 5.3e13),
        (network("cnn", filters=20, kernel=5, **dense), (28, 28, 1), 1.3e13),
        (architectures.layers("vgg", {**ARCHITECTURES["vgg"], **dense, "filters": 48}, (32, 32, 3), 10), None, 6.4e13),
    ):
        facts = replace(MNIST, shape=shape or (32, 32, 3))
        work = costs.epochs("sgd", SGD, layers, facts, [1] * 64, "cuda")
        found = costs.shipped("cuda").of({**work, "step": 0, "point": 0})
        assert 3 * layers.flop * 60_000 * 64 / found == pytest.approx(sustained, rel=0.02)


STUDY = """
study: small
guarantee: {epsilon: 0.2, confidence: 0.95}
measures: [{notion: class_change, delta: 0.1}]
grids:
  - {name: one, dataset: mnist5k, method: sgd, architecture: fcn, depth: 1, width: 8, activation: relu,
     learning_rate: 0.1, epochs: 1}
"""
TINY = """
import sys
from deltaball.cli import main as cli; from deltaball.run import calibration, probes
calibration.SECONDS = 0.001
calibration.PROBES = [
    probes.fcn(8, 1, 32, 2, shape=(8, 8, 1)),
    probes.fcn(8, 2, 32, 1, "imp", shape=(8, 8, 1), optimizer="adam"),
    probes.cnn(2, 3, 1, 32, 2, shape=(8, 8, 1)),
    probes.chains(4, 1, 20),
]
sys.exit(cli.main(["calibrate"]))
"""


def test_calibrating_measures_fits_and_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY)
    # What is damaged is mended by it. In a process of its own, because Keras has one backend per process.
    path = Path("results/store/rates-cpu.json")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    done = subprocess.run([sys.executable, "-c", TINY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = costs.read(path.parent, "cpu")
    assert len(found.ratios) == 8
    assert all(ratio > 0 for ratio in found.ratios.values())
    assert sum(value > 0 for value in found.seconds.values()) >= 3
    for name, ratio in found.ratios.items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert float(line.split()[-1]) == pytest.approx(ratio, abs=0.01)
    assert list(path.parent.iterdir()) == [path]
    assert main.main(["plan"]) == 0
    assert str(path) in capsys.readouterr().out


def test_no_probe_begins_when_the_time_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    some = [probes.fcn(4, 1, 32, 1, shape=(4, 4, 1)), probes.fcn(8, 1, 32, 1, shape=(4, 4, 1))]
    found = calibration.calibrated("cpu", tmp_path, some, until=time.monotonic() - 1)
    assert [name.startswith(f"{some[0]}") for name in found.ratios] == [True, True]
    assert "1 probes are left out: the time is over" in capsys.readouterr().out


def test_a_study_under_way_is_not_cut_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(claims.LOCK_HELD, raising=False)
    Path("config.yaml").write_text(STUDY)
    with claims.claim():
        assert main.main(["calibrate"]) == 2
    assert "another run is under way" in capsys.readouterr().err
    assert not Path("results").exists()


def test_probes_span_what_the_papers_study_trains():
    for probe in probes.PROBES:
        assert set(METHODS) >= {probe.method}
        assert probe.networks * probe.layers.parameters < 10_000_000
        for one in probes.on_device("cuda", probe):
            assert 1 <= one.networks <= 64
    works = [
        costs.training(probe.method, probe.axes, probe.layers, MNIST, [[1]] * probe.networks, "cpu")
        for probe in probes.PROBES
    ]
    assert {unit for work in works for unit, amount in work.items() if amount} == set(UNITS)


def test_branch_and_bound_is_counted_by_units_and_activations_and_no_longer_than_its_limit() -> None:
    def searching(depth: int, width: int, activation: str, limit: float = 60) -> float:
        found = network(depth=depth, width=width, activation=activation)
        return JUDGES["exact"].beside({"seconds": limit}, found)

    assert 0 < searching(1, 64, "relu") < searching(1, 128, "relu") < searching(2, 128, "relu")
    assert searching(1, 64, "relu") < searching(1, 64, "tanh")
    # Of hard networks every point that is left takes all that it may.
    assert searching(2, 128, "tanh") == pytest.approx(120 * searching(2, 128, "tanh", 0.5))
    assert JUDGES["crown"].beside({}, network()) == 0
