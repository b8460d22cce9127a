"""Verdicts on paper 001 in simulated studies where all of its claims are true, false, or not to be told."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.means import level, mean
from deltaball.analysis.metrics import metrics
from deltaball.analysis.rules import RULES
from deltaball.analysis.scorecard import scorecard
from deltaball.analysis.trainings import title, trainings
from deltaball.study.grids import all_axes
from deltaball.tables.columns import RESULTS, ROBUSTNESS

CLAIMS = [claim["claim"] for claim in RULES["001"]["claims"]]
SETTINGS = {"margin": 0.05, "confidence": 0.95, "paper": "001"}
NO_DRAWS = pd.DataFrame(columns=["attack", "certificate", "notion"])
SR, LR, SCR = "standard_robustness", "lipschitz_robustness", "strong_classification"
THRESHOLDS = {SR: 10, LR: 10, SCR: 0.52, f"{SCR}-logit": 0.3}
# By a short name, the axes of a training.
AXES = {
    "base": {"objective": "cross_entropy"},
    "random": {"objective": "augmented", "noise": "uniform"},
    "fgsm": {"objective": "augmented", "noise": "fgsm"},
    "adv": {"objective": "adversarial", "against": SR},
    "sr": {"objective": "constrained", "constraint": SR},
    "lr": {"objective": "constrained", "constraint": LR},
    "scr": {"objective": "constrained", "constraint": SCR},
    "logit": {"objective": "constrained", "constraint": f"{SCR}_of_logits"},
}
Values = Mapping[str, Mapping[str, float]]  # by notion and training
# Of SR, LR and SCR of a training where the paper is right, and where it is wrong.
RIGHT = {
    "base": (0.02, 0.01, 0.2),
    "random": (0.005, 0.01, 0.1),
    "fgsm": (0.01, 0.01, 0.15),
    "adv": (0.999, 0.01, 0.9),
    "sr": (0.95, 0.005, 0.2),
    "lr": (0.97, 0.15, 0.85),
    "scr": (0.02, 0.01, 0.6),
    "logit": (0.02, 0.01, 0.6),
}
WRONG = {
    "base": (0.85, 0.01, 0.2),
    "random": (0.95, 0.01, 0.5),
    "fgsm": (0.9, 0.01, 0.4),
    "adv": (0.2, 0.01, 0.1),
    "sr": (0.5, 0.8, 0.7),
    "lr": (0.3, 0.01, 0.1),
    "scr": (0.99, 0.01, 0.1),
    "logit": (0.99, 0.01, 0.1),
}


def table(
    shares: Mapping[str, tuple[float, float, float]],
    accuracy: Mapping[str, float],
    sampled: float = 0.999,
    dataset: str = "fashion_mnist",
    width: int = 100,
    seeds: int = 5,
    noise: float = 0.0005,
    samples: int = 20_000,
) -> pd.DataFrame:
    """As `tables.measured` has them, each training under attacks and random images of each notion at radius 0.1."""
    generator = np.random.default_rng(width)
    rows = []
    for training, (sr, lr, scr) in shares.items():
        for seed in range(seeds):
            name = f"{dataset} {width} {training} {seed}"
            network = {"network_id": name, "cluster": name, "trajectory_id": name, "dataset": dataset, "width": width}
            network |= {"method": "sgd", "architecture": "fcn", "depth": 1, "seed": seed, "epochs": 100}
            network |= {"status": "trained", "parameters": 795 * width, "objective": "cross_entropy", **AXES[training]}
            network |= {"test_accuracy": accuracy.get(training, accuracy["base"]) + noise * generator.normal()}
            network |= {"train_accuracy": 0.9}
            if training != "base":
                network |= {"radius": 0.1}
            if network["objective"] == "constrained":
                network |= {"alpha": 1.0, "beta": 0.2}
            for notion, share in ((SR, sr), (LR, lr), (SCR, scr), (f"{SCR}-logit", scr)):
                measure = {"notion": notion, "norm": "linf", "delta": 0.1, "gamma": THRESHOLDS[notion]}
                measure |= {"samples": samples, "epsilon": 0.05, "confidence": 0.95}
                attacked = float(np.clip(share + noise * generator.normal(), 0, 1))
                rows.append({**network, **measure, "measure": f"{notion} pgd", "attack": "pgd", "estimate": attacked})
                rows.append(
                    {**network, **measure, "measure": f"{notion} uniform", "sampling": "uniform", "estimate": sampled}
                )
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*ROBUSTNESS, *RESULTS, *all_axes(), *rows[0]])))


def true() -> pd.DataFrame:
    accuracy = {"base": 0.86, "adv": 0.77, "random": 0.86}
    of_signs = {**RIGHT, "lr": (0.97, 0.02, 0.85)}
    larger = {"base": (0.1, 0.01, 0.2), "random": (0.3, 0.01, 0.3), "fgsm": (0.3, 0.01, 0.3)}
    larger |= {"adv": (0.95, 0.01, 0.9), "sr": (0.9, 0.01, 0.5)}
    signs = table(of_signs, accuracy, dataset="gtsrb10")
    return pd.concat([table(RIGHT, accuracy), signs, table(larger, accuracy, width=1000)], ignore_index=True)


def false() -> pd.DataFrame:
    accuracy = {"base": 0.86, "adv": 0.84, "random": 0.6}
    of_signs = {**WRONG, "lr": (0.3, 0.2, 0.1)}
    larger = {"base": (0.9, 0.01, 0.6), "random": (0.3, 0.01, 0.3), "fgsm": (0.3, 0.01, 0.3)}
    larger |= {"adv": (0.1, 0.01, 0.9), "sr": (0.1, 0.01, 0.5)}
    signs = table(of_signs, accuracy, 0.8, dataset="gtsrb10")
    return pd.concat([table(WRONG, accuracy, 0.8), signs, table(larger, accuracy, width=1000)], ignore_index=True)


def unclear() -> pd.DataFrame:
    alike = {**dict.fromkeys(AXES, (0.5, 0.05, 0.5)), "base": (0.05, 0.05, 0.5)}
    alike |= {"sr": (0.9, 0.05, 0.5), "lr": (0.95, 0.05, 0.5)}
    few = {"seeds": 2, "noise": 0.05, "samples": 8, "sampled": 0.97}
    halves = [table(alike, {"base": 0.8}, dataset=one, **few) for one in ("fashion_mnist", "gtsrb10")]
    return pd.concat([*halves, table(alike, {"base": 0.8}, width=1000, **few)], ignore_index=True)


@pytest.fixture(scope="module", params=[true, false, unclear])
def judged(request: pytest.FixtureRequest) -> tuple[str, pd.DataFrame]:
    verdict = {true: "supported", false: "contradicted", unclear: "undecided"}[request.param]
    return verdict, scorecard(request.param(), NO_DRAWS, **SETTINGS)


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_gets_the_verdict_it_deserves(judged: tuple[str, pd.DataFrame], claim: str) -> None:
    verdict, found = judged
    parts = found[found["claim"] == claim]
    assert parts["verdict"].iloc[0] == verdict, parts[["part", "effect", "lower", "upper", "p_holm", "why"]].to_string()


def test_other_settings_thresholds_and_checkpoints_count_for_no_claim() -> None:
    papers = table(RIGHT, {"base": 0.86, "adv": 0.77})
    others = [
        papers.assign(beta=papers["beta"] * 5, estimate=0.5)[papers["objective"] == "constrained"],
        papers.assign(radius=papers["radius"] * 2, estimate=0.5)[papers["objective"] == "augmented"],
        papers.assign(gamma=papers["gamma"] / 2, estimate=0.5),
        papers.assign(epochs=50, estimate=0.5),
    ]
    renamed = [
        one.assign(
            network_id=f"{place} " + one["network_id"],
            cluster=one["cluster"] if place == 3 else f"{place} " + one["cluster"],
            measure=one["measure"] + (" half" if place == 2 else ""),
        )
        for place, one in enumerate(others)
    ]
    alone = scorecard(papers, NO_DRAWS, **SETTINGS)
    pd.testing.assert_frame_equal(scorecard(pd.concat([papers, *renamed]), NO_DRAWS, **SETTINGS), alone)


def test_what_a_study_lacks_is_not_run() -> None:
    found = scorecard(table({"base": RIGHT["base"], "sr": RIGHT["sr"]}, {"base": 0.86}), NO_DRAWS, **SETTINGS)
    overall = found[found["part"] == "overall"].set_index("claim")["verdict"]
    assert overall["lr_training_beats_sr_training"] == overall["larger_networks_handle_augmentation"] == "not run"
    assert overall["reported_baseline"] == overall["reported_sr_training"] == "supported"
    nothing = scorecard(true()[:0], NO_DRAWS, **SETTINGS)
    assert set(nothing["verdict"]) == {"not run"}


def test_a_single_training_is_tested_by_nothing() -> None:
    found = scorecard(table(RIGHT, {"base": 0.86}, seeds=1), NO_DRAWS, **SETTINGS)
    assert set(found["verdict"]) <= {"undecided", "not run"}


def test_the_error_of_a_mean_is_that_of_trainings_and_of_shared_points() -> None:
    """Simulated: networks differ, and all of them err at the same hard points."""
    generator = np.random.default_rng(0)
    points, seeds, repeats, inside = 200, 4, 2000, 0
    for _ in range(repeats):
        hard = generator.uniform(size=points)
        levels = np.clip(0.6 + 0.05 * generator.normal(size=seeds), 0, 1)
        rows = pd.DataFrame({"cluster": range(seeds), "robust": [(hard < one).mean() for one in levels]})
        lower, upper = level(mean(rows.assign(samples=points), "robust", "samples")).interval(0.95)
        inside += lower <= 0.6 <= upper
    assert 0.93 < inside / repeats < 0.99


def test_a_mean_of_nought_is_not_without_error() -> None:
    rows = pd.DataFrame({"cluster": [0, 1, 2], "robust": 0.0, "samples": 100})
    found = level(mean(rows, "robust", "samples"))
    assert found.estimate == 0
    assert found.p(0.05) > 0.01
    assert found.p(0.2) < 0.001


@pytest.mark.parametrize("values", [[0.1, 0.12, 0.09], [0.0, 0.0, 0.01], [1.0, 1.0, 1.0]])
def test_p_values_and_intervals_of_a_mean_agree(values: list[float]) -> None:
    found = level(
        mean(pd.DataFrame({"cluster": range(len(values)), "robust": values, "samples": 300}), "robust", "samples")
    )
    lower, upper = found.interval(0.95)
    assert lower <= found.estimate <= upper
    for end in (lower, upper):
        assert found.p(end) == pytest.approx(0.05, abs=1e-6) or end in (0, 1) or not 0 < end < 1


def test_the_three_metrics_stand_side_by_side() -> None:
    measured = table({"base": RIGHT["base"], "lr": RIGHT["lr"]}, {"base": 0.86})
    proven = measured[measured["attack"].notna() & (measured["notion"] == SCR)]
    bounds = [("ibp", 0.01), ("crown", 0.05)]
    proven = [proven.assign(attack=None, certificate=one, measure=one, estimate=share) for one, share in bounds]
    found = metrics(pd.concat([measured, *proven], ignore_index=True)).set_index(["training", "notion"])
    row = found.loc[("constrained_lipschitz_robustness", SCR)]
    assert row["security"] == pytest.approx(0.85, abs=0.001)
    assert row["security_lower"] < 0.85 < row["security_upper"]
    assert (row["accuracy"], row["satisfaction"]) == (0.999, pytest.approx(0.05))
    assert (row["security_by"], row["accuracy_by"], row["satisfaction_by"]) == ("pgd", "uniform", "crown")
    assert np.isnan(found.loc[("baseline", LR), "satisfaction"])
    assert found["networks"].eq(5).all()


def test_trainings_are_named_as_the_paper_names_them() -> None:
    networks = pd.DataFrame([{"noise": None, "against": None, "constraint": None, **axes} for axes in AXES.values()])
    named = [title(one) for one in trainings(networks)]
    assert named[:4] == ["Baseline", "Augmentation (RU)", "Augmentation (FGSM)", "Adversarial training"]
    assert named[4:6] == ["Constraint loss (SR)", "Constraint loss (LR)"]
    assert title("constrained_linf(f(x) - f(x0)) <= 1") == "Constraint loss (linf(f(x) - f(x0)) <= 1)"
    assert title("another") == "another"
