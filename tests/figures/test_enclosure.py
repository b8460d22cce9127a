"""Networks between both sides."""

from pathlib import Path

import pytest
from drawn_figures import drawn, small
from synthetic_tables import write_tables

from deltaball.analysis.enclosures import enclosures
from deltaball.tables import frames


def test_networks_are_drawn_between_both_sides_at_the_deltas_asked_for(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    every = enclosures(*frames.load(plan), frames.load_curves(plan)[0])
    for notion, of_all in (("class_change", 6), ("softmax_variation", 6), ("variation_above", 10), ("margin", 6)):
        shown, said = drawn(plan, f"enclosure_mnist5k_{notion}")
        asked = {one.delta for one in plan.measures if one.notion == notion}
        # The margin curve has δ's of its own.
        assert set(shown["delta"]) == asked
        assert shown["network_id"].nunique() == of_all
        wanted = every[(every["notion"] == notion) & every["delta"].isin(asked)]
        assert shown["gap"].tolist() == pytest.approx(wanted["gap"].tolist())
        assert f"{of_all} of {of_all} networks that certificates are asked of" in said
        assert ("(10 planned in all)" in said) == (of_all < 10)
        assert f"Half of the bars are shorter than {shown['gap'].median():.3f}" in said
        assert f"{100 * (shown['gap'] < shown['epsilon']).mean():.0f} % are shorter than ε" in said
        assert ("FGSM alone would have said" in said) == (notion != "margin")
    lower, upper = shown["certified"], shown["attacked"]
    assert ((shown["lower"] <= lower) & (lower <= upper) & (upper <= shown["upper"])).all()


def test_a_network_that_only_an_experiment_certifies_is_not_among_those_asked_for(tmp_path: Path) -> None:
    other = {"grid": "one", "width": 64, "learning_rate": 0.01, "epochs": 5}
    experiment = {"notion": "class_change", "delta": 0.06, "attack": "pgd", "certificate": "crown", "only": other}
    plan = small(tmp_path, convergence=[{"measure": experiment, "epsilon": [0.2, 0.1], "draws": 5}])
    write_tables(plan)
    every = enclosures(*frames.load(plan), frames.load_curves(plan)[0])
    (added,) = plan.experiments[0].networks
    assert added.id in set(every["network_id"][every["notion"] == "class_change"])
    shown, said = drawn(plan, "enclosure_mnist5k_class_change")
    assert added.id not in set(shown["network_id"])
    assert "6 of 6 networks that certificates are asked of" in said


def test_a_variation_is_drawn_the_other_way_round(tmp_path: Path) -> None:
    plan = small(tmp_path)
    write_tables(plan)
    shown, said = drawn(plan, "enclosure_mnist5k_softmax_variation")
    assert (shown["attacked"] <= shown["certified"]).all()
    assert "its lower end is what FGSM and PGD found, its upper end what CROWN excluded" in said
    _, said = drawn(plan, "enclosure_mnist5k_class_change")
    proved = "its lower end is what IBP, CROWN and the exact answer proved"
    assert f"{proved}, its upper end what FGSM, FMN and PGD left" in said


def test_sides_that_never_meet_are_said_to(tmp_path: Path) -> None:
    measures = [
        {"notion": "class_change", "delta": [0.01, 0.02], "attack": "fgsm"},
        {"notion": "class_change", "delta": 0.005, "certificate": "crown"},
    ]
    plan = small(tmp_path, measures=measures)
    write_tables(plan)
    shown, said = drawn(plan, "enclosure_mnist5k_class_change")
    assert shown.empty
    assert "yet" not in said
    assert "certificates are asked for at δ = 0.005 and attacks at δ = 0.01, 0.02" in said
