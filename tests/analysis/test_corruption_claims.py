"""Paper 003's claims about corruptions: a study like the paper's supports them; how differences are paired."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.claims import Evidence, Part
from deltaball.analysis.corruption_claims import corrupted
from deltaball.analysis.corruptions import COLUMNS, MEAN
from deltaball.analysis.means import with_points
from deltaball.analysis.rules import CONFIDENCE, RULES
from deltaball.analysis.scorecard import TESTS, ends

STATED = RULES["003"]
NO_POINTS = with_points(pd.DataFrame(columns=["network_id", "measure", "samples"]), None)
NN, GAUSS = ("sgd", "mnist_c_cnn", "baseline"), ("sgd", "mnist_c_cnn", "augmented_gaussian")
NORMALISED, SVM = ("sgd", "conv5", "baseline"), ("svm", "rbf_svm", "baseline")
# Accuracies on clean images and as the mean of the fifteen, as Table 4 has them, and the SVM's about as Table 2.
PLAIN = {NN: (0.991, 0.8545), GAUSS: (0.993, 0.878), NORMALISED: (0.99, 0.85), SVM: (0.984, 0.697)}
TRANSFER = {0: 0.0, 128: 0.02, 1024: 0.06, 30000: 0.08}
UNDER = {NN: {"fog": 0.939, "stripe": 0.338, "translate": 0.526}, GAUSS: {"fog": 0.646, "stripe": 0.956}}


def table(seeds: int = 5, samples: int = 10_000, scatter: float = 0.001) -> pd.DataFrame:
    """The table `corruptions` of a study like the paper's."""
    rows = []
    for (classifier, (clean, mean)), seed in product(PLAIN.items(), range(seeds)):
        of_seed = scatter * (seed - (seeds - 1) / 2)
        kinds = [("none", None, None, 0.0)]
        if classifier != GAUSS:
            kinds += [("transfer", one, n, gain) for n, gain in TRANSFER.items() for one in ("joint", "separate")]
        if classifier == NORMALISED:
            gains = {"separate": 0.015, "joint": 0.005}
            kinds += [(by, one, 128, gain) for by in ("batch_norm", "coral") for one, gain in gains.items()]
        for adaptation, pooled, count, gain in kinds:
            accuracies = {MEAN: mean + gain, **UNDER.get(classifier, {})}
            for corruption, accuracy in accuracies.items():
                method, architecture, training = classifier
                rows.append(
                    {
                        "network_id": f"{classifier} {seed} {adaptation} {pooled} {count}",
                        "cluster": f"{classifier} {seed}",
                        "dataset": "mnist",
                        "method": method,
                        "architecture": architecture,
                        "training": training,
                        "kind": f"{architecture} {training} {adaptation} {pooled} {count}",
                        "test_accuracy": clean + of_seed,
                        "adaptation": adaptation,
                        "pooled": pooled,
                        "corrupted_images": count,
                        "measure": f"classification_{corruption}",
                        "quantity": "accuracy",
                        "corruption": corruption,
                        "usual": True,
                        "samples": samples,
                        "estimate": accuracy + of_seed,
                    }
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def parts(claim: str, shown: pd.DataFrame) -> list[Part]:
    (stated,) = (one for one in STATED["claims"] if one["claim"] == claim)
    evidence = Evidence(pd.DataFrame(), pd.DataFrame(), {}, {}, corrupted=corrupted(shown, NO_POINTS))
    return list(TESTS[stated["test"]](evidence, **stated["of"]))


def test_rules_are_complete():
    names = [one["claim"] for one in STATED["claims"]]
    assert len(names) == len(set(names))
    assert {one["section"] for one in STATED["claims"]} == set(STATED["sections"])
    for claim in STATED["claims"]:
        low, high = ends(claim, {})
        assert claim["range"][0] <= max(low, claim["range"][0]) < min(high, claim["range"][1])
        assert claim["over"] in ("every", "most")


@pytest.mark.parametrize("claim", [one["claim"] for one in STATED["claims"]])
def test_a_study_like_the_papers_supports_its_claims(claim: str):
    (stated,) = (one for one in STATED["claims"] if one["claim"] == claim)
    found = parts(claim, table())
    low, high = ends(stated, {})
    assert found
    for part in found:
        assert low <= part.found.estimate <= high, part.part


def test_adapted_classifiers_are_compared_with_their_own_trunks():
    found = {part.part: part for part in parts("transfer_improves", table())}
    assert len(found) == 2 * 3  # separate and joint, of three classifiers
    for part in found.values():
        assert part.found.estimate == pytest.approx(0.06)
        assert part.members["architecture"].nunique() == 1
    # Seeds that differ by as much on both sides are no error of their difference; test points are.
    lower, upper = next(iter(found.values())).found.interval(CONFIDENCE)
    assert 0.01 < upper - lower < 0.03
    less = parts("transfer_improves", table(scatter=0.05))
    assert np.ptp(less[0].found.interval(CONFIDENCE)) == pytest.approx(upper - lower, rel=0.02)


def test_what_is_pooled_alike_is_compared_over_the_number_of_images():
    for claim, gain in (("transfer_improves_with_images", 0.04), ("transfer_improves_with_most_images", 0.02)):
        found = parts(claim, table())
        assert len(found) == 6
        for part in found:
            assert part.found.estimate == pytest.approx(gain)
            assert part.members["pooled"].nunique() == 1
    assert [part.found.estimate for part in parts("separate_and_joint_are_alike", table())] == pytest.approx([0] * 3)


def test_one_training_is_not_tested_and_no_row_is_no_part():
    (part,) = parts("reported_nn_accuracy", table(seeds=1))
    assert part.found is None
    assert part.remark
    assert parts("reported_nn_accuracy", table().iloc[:0]) == []
