"""Measures of what a kernel draws: what they are called, what they ask, and what is refused in one line."""

import re
from pathlib import Path

import pytest
import yaml
from builders import grid, planned

from deltaball.base.errors import InputError
from deltaball.study import reading
from deltaball.study.kernels import KERNELS


def names(**entry: object) -> list[str]:
    return [one.name for one in planned(grid(epochs=5), measures=[{"notion": "class_change", **entry}]).measures]


def test_a_measure_is_named_by_its_kernel_and_what_is_not_usual():
    assert names(perturbation="gaussian", sigma=[0.1, 0.2]) == [
        "class_change_gaussian_0.1_mean",
        "class_change_gaussian_0.2_mean",
    ]
    assert names(perturbation=["uniform", "uniform_clipped"], delta="8/255", draws=10) == [
        f"class_change_{name}_linf_{8 / 255!r}_mean-10" for name in ("uniform", "uniform_clipped")
    ]
    assert names(perturbation="near", delta=28, density="reciprocal", least=2.0, labels=["any", "kept"]) == [
        "class_change_near_l2_28.0_reciprocal_2.0_mean",
        "class_change_near_l2_28.0_reciprocal_2.0_kept_mean",
    ]
    assert names(perturbation="gaussian", sigma=0.1, sampling=["share", "unanimous"], draws=50) == [
        "class_change_gaussian_0.1_share-50x0.05",
        "class_change_gaussian_0.1_unanimous-50",
    ]
    # As before there were kernels.
    assert names(delta=0.1, sampling="uniform") == ["class_change_linf_0.1_uniform"]


def test_an_auto_encoder_is_named_with_what_its_weights_depend_on():
    entry = {"notion": "class_change", "perturbation": "on_manifold", "sigma": 0.1, "autoencoder": "one"}

    def named(**changed: object) -> str:
        coders = [{"name": "one", "dataset": "mnist5k", **changed}]
        (measure,) = planned(grid(epochs=5), measures=[entry], autoencoders=coders).measures
        assert measure.where == "decoded codes with Gaussian noise, σ = 0.1, auto-encoder one"
        return measure.name

    names = {named(), named(kind="plain"), named(seed=1), named(epochs=3)}
    assert len(names) == 4
    assert all(re.fullmatch("class_change_on_manifold_0.1_one-[0-9a-f]{8}_mean", name) for name in names)
    assert named(penalty=10) == named()


def test_estimates_are_counted_with_all_their_kernels():
    entry = {"perturbation": ["gaussian", "gaussian_clipped"], "sigma": [0.1, 0.2], "sampling": ["mean", "share"]}
    plan = planned(grid(epochs=[5, 6]), measures=[{"notion": "class_change", **entry}])
    assert plan.study.estimates() == len(plan.networks) * len(plan.measures) == 16


def test_what_is_made_of_the_same_draws_is_searched_once():
    entry = {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1}
    whole = planned(grid(epochs=5), measures=[{**entry, "sampling": ["mean", "share", "cvar", "unanimous"]}])
    assert len({one.search for one in whole.measures}) == 1
    assert {one.search.name for one in whole.measures} == {"class_change_gaussian_0.1_mean"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sampling": "share", "tau": 1.0}, "tau: 1.0 is wrong"),
        ({"sampling": "cvar", "tau": 0}, "tau: 0 is wrong"),
        ({"sampling": "mean", "tau": 0.1}, "tau 0.1 is for one of share, cvar"),
        ({"sigma": None}, "missing key 'sigma' of perturbation 'gaussian'"),
        ({"sigma": 0}, "sigma: 0 is wrong"),
        ({"delta": 0.1}, "perturbation 'gaussian' takes no delta; it takes sigma"),
        ({"norm": "l2"}, "perturbation 'gaussian' takes no norm"),
        ({"attack": "pgd"}, "attack 'pgd' draws from no perturbation; possible: mean, share"),
        ({"sampling": "uniform"}, "sampling 'uniform' draws from no perturbation"),
        ({"density": "reciprocal"}, "density 'reciprocal' down to least = 0: 1/ε has no finite integral there"),
        ({"density": "reciprocal", "least": 0}, "give a least above 0"),
        ({"density": "uniform", "least": 0.1}, "least 0.1: must be below sigma, which is 0.1"),
        ({"least": 0.05}, "least 0.05: is for a density of sigma, and none is asked"),
        ({"perturbation": "uniform", "sigma": None, "density": "uniform"}, "missing key 'delta' of perturbation"),
        ({"perturbation": "uniform", "sigma": None, "delta": 2}, "delta 2.0 in norm linf: pixels lie in [0, 1]"),
        ({"perturbation": "near", "sigma": None, "delta": 2, "norm": "l1"}, "possible there: uniform_clipped"),
        ({"perturbation": "gauss"}, "'gauss' is not known; did you mean 'gaussian'"),
        ({"notion": "margin", "delta": 1, "sigma": None}, "cannot judge margin: it compares distances"),
        ({"notion": "softmax_variation", "sampling": "share"}, "cannot judge softmax_variation: it is about the share"),
        ({"perturbation": None, "sigma": None, "delta": 0.1, "sampling": "mean"}, "needs a perturbation to draw from"),
        ({"points": "cube", "labels": "kept"}, "labels 'kept' around points of the cube: they have no labels"),
        ({"points": "cube", "notion": "classification"}, "images there have no labels, and classification needs them"),
        ({"perturbation": "near", "sigma": None, "delta": 2, "points": "cube"}, "perturbation 'near' takes no points"),
        (
            {"sampling": "worst"},
            "sampling 'worst': images of perturbation 'gaussian' fill no ball; possible: uniform, uni",
        ),
        (
            {"perturbation": "uniform", "sigma": None, "delta": 0.1, "density": "uniform", "sampling": "worst"},
            "sampling 'worst': is of balls of one size; leave density uniform out",
        ),
        # R2 is a mean margin, which needs the range that it is cut at.
        ({"notion": "margin", "perturbation": None, "sigma": None}, "missing key 'delta' (distances are cut at δ"),
        ({"perturbation": None, "sigma": None}, "missing key 'delta' (radii of the ball"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(entry: dict, said: str):
    whole = {"notion": "class_change", "perturbation": "gaussian", "sigma": 0.1, **entry}
    with pytest.raises(InputError) as refused:
        reading.measure({key: value for key, value in whole.items() if value is not None})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_page_about_them_says_what_can_be_asked(root: Path):
    page = (root / "docs/studies.md").read_text(encoding="utf-8")
    section = page.partition("### Perturbations and scores\n")[2].partition("\n## ")[0]
    examples = [one for block in re.findall(r"```yaml\n(.*?)```", section, re.S) for one in yaml.safe_load(block)]
    coders = [{"name": "manifold", "dataset": "mnist5k"}]
    plan = planned(grid(epochs=5), measures=examples, autoencoders=coders)
    asked = {one.kernel.name for one in plan.measures if one.kernel}
    named = set(re.findall(r"^\| `(\w+)` \|", section.partition("`sampling` says")[0], re.M))
    # Corruptions have a page of their own.
    assert asked <= named <= set(KERNELS)
    assert {name for name, one in KERNELS.items() if not one.corruptions} <= named
