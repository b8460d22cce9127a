"""Support vector machines: what scikit-learn says of them, as rows of a study, and what can judge them."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import grid, planned, planned_few
from finished import done
from sklearn.svm import SVC

from deltaball.analysis.trainings import trainings
from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.data.datasets import Dataset
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import Flatten, Layers
from deltaball.networks.packs import Pack
from deltaball.networks.support_vectors import SupportVectors
from deltaball.networks.voting import pairwise
from deltaball.store.store import Store
from deltaball.study.methods import METHODS
from deltaball.study.reading import load
from deltaball.study.study import Study
from deltaball.training.svm import fitted, with_noise
from deltaball.workflow import resources

GAMMA, PENALTY = 0.05, 5.0


def clouds(classes: int, count: int = 120, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Images [count, size, size, 1] that overlap a little, classes in no order, and their labels."""
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, count)
    centres = random.random((classes, size, size, 1))
    images = centres[labels] * 0.6 + 0.4 * random.random((count, size, size, 1))
    return images.astype(np.float32), labels


def solved(classes: int) -> tuple[SVC, np.ndarray, tuple[np.ndarray, ...]]:
    """scikit-learn's machine, its images, and it as the arrays of a layer."""
    images, labels = clouds(classes)
    flat = images.reshape(len(images), -1)
    machine = SVC(C=PENALTY, gamma=1.0, break_ties=classes > 2).fit(flat.astype(np.float64), labels)
    pairs = [*combinations(range(classes), 2)]
    owners = np.repeat(np.arange(classes), machine.n_support_)
    coefficients = np.zeros((len(owners), len(pairs)))
    for pair, (first, second) in enumerate(pairs):
        # LIBSVM keeps a vector's coefficients against the other classes in their order.
        coefficients[owners == first, pair] = machine.dual_coef_[second - 1, owners == first]
        coefficients[owners == second, pair] = machine.dual_coef_[first, owners == second]
    sign = -1 if classes == 2 else 1  # of two classes scikit-learn turns signs
    return machine, images, (flat[machine.support_], sign * coefficients, sign * machine.intercept_)


def as_pack(weights: tuple[np.ndarray, ...], classes: int, gamma: float = 1.0, size: int = 6) -> Pack:
    return Pack.of(Layers((size, size, 1), (Flatten(), SupportVectors(gamma, classes))), [weights])


@pytest.mark.parametrize("classes", [3, 5])
def test_the_decision_function_is_scikit_learns(classes: int):
    machine, images, weights = solved(classes)
    shown = np.concatenate([images, np.random.default_rng(1).random((300, 6, 6, 1), np.float32)])
    flat = shown.reshape(len(shown), -1).astype(np.float64)
    pack = as_pack(weights, classes)
    logits = pack(torch.from_numpy(shown))[0].numpy()
    np.testing.assert_allclose(logits, machine.decision_function(flat), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(logits.argmax(1), machine.predict(flat))
    machine.decision_function_shape = "ovo"
    found = pairwise(pack.layers.sequence[1], pack.weights, torch.from_numpy(flat))[0].numpy()
    np.testing.assert_allclose(found, machine.decision_function(flat), atol=1e-9, rtol=0)


def test_two_classes_have_one_pair():
    machine, images, weights = solved(2)
    flat = images.reshape(len(images), -1)
    logits = as_pack(weights, 2)(torch.from_numpy(images))[0].numpy()
    margin = machine.decision_function(flat)  # above 0 for class 1
    np.testing.assert_array_equal(logits.argmax(1), machine.predict(flat))
    squeezed = margin / (3 * (np.abs(margin) + 1))
    np.testing.assert_allclose(logits, np.stack([(margin <= 0) - squeezed, (margin > 0) + squeezed], 1), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_pair_by_pair_is_the_same_machine(classes: int):
    machine, images, weights = solved(classes)
    _, labels = clouds(classes)
    flat = images.reshape(len(images), -1)
    own = fitted(flat, labels, SupportVectors(1.0, classes), PENALTY)
    shown = torch.from_numpy(np.random.default_rng(2).random((200, 36), np.float32))
    theirs, ours = (as_pack(one, classes) for one in (weights, own))
    # Up to the tolerance of the solver, 0.001, and of kernels in float32; votes may turn at a margin of 0.
    margins = [pairwise(one.layers.sequence[1], one.weights, shown) for one in (ours, theirs)]
    torch.testing.assert_close(*margins, atol=2e-3, rtol=0)
    assert {*map(bytes, own[0])} == {*map(bytes, flat[machine.support_])}


def test_gradients_are_those_of_differences():
    *_, weights = solved(4)
    pack = as_pack(weights, 4)
    x = torch.rand(3, 6, 6, 1, generator=torch.manual_seed(0)).requires_grad_()
    pack(x)[0, :, 2].sum().backward()
    step = 1e-2
    for row, column in ((0, 0), (3, 4)):
        moved = torch.zeros(6, 6, 1)
        moved[row, column] = step
        up, down = (pack((x + side * moved).detach())[0, :, 2] for side in (1, -1))
        votes_stay = (up - down).abs() < 0.5
        assert votes_stay.any()
        torch.testing.assert_close(
            x.grad[votes_stay, row, column, 0], ((up - down) / (2 * step))[votes_stay], atol=2e-3, rtol=0.02
        )


def test_machines_are_rows_like_others(data_folder: Path, few: Dataset, tmp_path: Path):
    measures = [
        {"notion": "class_change", "delta": [0.05, 0.4], "attack": ["fgsm", "pgd", "fmn"]},
        {"notion": "class_change", "delta": 0.4, "sampling": "uniform", "draws": 5},
    ]
    one = grid("rbf_svm", "svm", penalty=[1.0, 5.0], rbf_gamma=[0.05])
    plan = planned_few(data_folder, one, measures=measures, results=str(tmp_path))
    networks, rows, _ = done(plan)
    assert [*networks["status"]] == ["trained"] * 2
    assert [*networks["parameters"]] == [9 * few.facts.train + 45] * 2
    flat = few.x_train.reshape(len(few.x_train), -1)
    for network, row in zip(plan.networks, networks.itertuples(), strict=True):
        machine = SVC(C=network.axes["penalty"], gamma=0.05, break_ties=True).fit(flat, few.y_train)
        tested = few.x_test.reshape(len(few.x_test), -1)
        assert row.test_accuracy == pytest.approx(machine.score(tested, few.y_test), abs=1 / len(tested) + 1e-9)
        assert row.train_accuracy == pytest.approx(machine.score(flat, few.y_train), abs=2 / len(flat))
        checkpoint = Store(plan.study.store).load(network.trajectory_id, 0)
        assert {array.dtype.name for array in checkpoint.weights} == {"float32", "float64"}
    attacked = rows[rows["attack"].notna()]
    assert (attacked["estimate"] < 1).any()  # a gradient leads somewhere
    small, large = (attacked[attacked["delta"] == delta]["estimate"].mean() for delta in (0.05, 0.4))
    assert large < small
    assert (rows[rows["sampling"].notna()]["estimate"] >= large).all()


def test_a_part_of_the_images_is_drawn_by_seed(data_folder: Path, tmp_path: Path):
    one = grid("rbf_svm", "svm", train_points=60, seed=[0, 1])
    plan = planned_few(data_folder, one, results=str(tmp_path))
    done(plan)
    weights = [Store(plan.study.store).weights(one.trajectory_id, 0) for one in plan.networks]
    assert all(len(vectors) <= 60 for vectors, *_ in weights)
    assert {*map(bytes, weights[0][0])} != {*map(bytes, weights[1][0])}


def test_noisy_copies_are_learned_from_beside_the_images(data_folder: Path, few: Dataset, tmp_path: Path):
    one = grid("rbf_svm", "svm", noise_deviation=[0.0, 0.1], seed=[0])
    plan = planned_few(data_folder, one, results=str(tmp_path))
    networks, *_ = done(plan)
    assert [*networks["parameters"]] == [9 * few.facts.train + 45, 2 * 9 * few.facts.train + 45]
    plain, noisy = (Store(plan.study.store).weights(one.trajectory_id, 0)[0] for one in plan.networks)
    images = {*map(bytes, few.x_train.reshape(len(few.x_train), -1))}
    assert {*map(bytes, plain)} <= images
    assert {*map(bytes, noisy)} & images
    assert {*map(bytes, noisy)} - images
    assert list(trainings(networks)) == ["baseline", "augmented_gaussian"]


def test_noise_has_its_deviation_and_ends_at_the_ends():
    grey = np.full((200, 100), 0.5, np.float32)
    assert np.std(with_noise(grey, 0.1, "one")) == pytest.approx(0.1, rel=0.03)  # 6 errors of 20,000 draws
    assert (with_noise(grey, 0.1, "one") != with_noise(grey, 0.1, "another")).mean() > 0.9
    black = with_noise(np.zeros((200, 100), np.float32), 0.1, "one")
    assert black.min() == 0
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_what_is_left_out_by_a_draw_is_told():
    images, labels = clouds(3)
    some = images[labels != 1].reshape(-1, 36)
    with pytest.raises(InputError, match="has class 1; train on more"):
        fitted(some, labels[labels != 1], SupportVectors(1.0, 3), PENALTY)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_points": 5000}, "train_points = 5000: mnist5k has 4000; null takes all"),
        (
            {"seed": [0, 1], "noise_deviation": [0.0, 0.1]},
            "seed = [0, 1]: it draws training images, and train_points = null sees all of them",
        ),
    ],
)
def test_axes_that_mean_nothing_are_refused(changed: dict, message: str):
    facts = DatasetFacts("mnist5k", (28, 28, 1), 10, 4000, 1000, "")
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        METHODS["svm"].model_validate({"method": "svm", **changed}).check_points(facts)


@pytest.mark.parametrize("certificate", ["ibp", "crown", "alpha_crown", "exact"])
def test_certificates_are_refused_with_the_reason(certificate: str, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: one\nguarantee: {epsilon: 0.1, confidence: 0.9}\n"
        f"measures: [{{notion: class_change, delta: 0.1, certificate: {certificate}}}]\n"
        "grids: [{name: svm, dataset: mnist5k, architecture: rbf_svm, method: svm}]\n"
    )
    with pytest.raises(InputError, match=f"'{certificate}' cannot judge .* sums kernels of support vectors"):
        load(path)


def test_a_job_asks_for_the_memory_of_a_pairs_kernel():
    asked = {}
    for dataset in ("mnist5k", "mnist"):
        plan = planned(grid("rbf_svm", "svm", dataset=dataset))
        (shard,) = plan.shards.values()
        asked[dataset] = [one(plan, shard).megabytes for one in (resources.training, resources.measuring)]
    # 12,000 images of a pair: 12 bytes × 12,000²; support vectors of 784 numbers, some 20,000.
    assert asked["mnist"][0] - asked["mnist5k"][0] > 1700
    assert asked["mnist"][1] - asked["mnist5k"][1] > 3 * 60


def test_there_is_no_keras_file_of_a_machine():
    plan = planned(grid("rbf_svm", "svm"))
    assert isinstance(plan.study, Study)
    with pytest.raises(InputError, match="for layer SupportVectors"):
        keras_model(plan.layers(plan.networks[0]))
