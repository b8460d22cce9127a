"""Pictures of closest violations: whose they are, and how far."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaball.analysis.trainings import KINDS as BY_OBJECTIVE
from deltaball.figures import style
from deltaball.report.reading import picture

KINDS = BY_OBJECTIVE.values()


def examples(norm: str, moved: int) -> pd.DataFrame:
    """Two points of four networks: the second network finds no violation of the second point."""
    image = np.zeros((4, 4, 1), np.uint8)
    rows = []
    for network in ("b", "a", "c", "d"):
        for point in (0, 1):
            perturbed = image.copy()
            perturbed[0, :2] = moved
            hit = (network, point) != ("b", 1)
            row = {"network_id": network, "dataset": "mnist5k", "point": point, "label": 3, "attack": "fmn"}
            row |= {"measure": f"margin_{norm}_3.0_fmn", "norm": norm, "delta": 3.0, "predicted": 3}
            row |= {"became": 5 if hit else 3, "height": 4, "width": 4, "channels": 1}
            rows.append(row | {"image": image.tobytes(), "perturbed": perturbed.tobytes()})
    others = pd.DataFrame(rows).assign(measure=f"class_change_{norm}_3.0_pgd", attack="pgd")
    return pd.concat([pd.DataFrame(rows), others])


@pytest.mark.parametrize(("norm", "distance"), [("l2", 2**0.5 * 0.2), ("linf", 0.2), ("l1", 0.4)])
def test_a_picture_has_the_first_network_of_each_kind_and_its_distances(
    tmp_path: Path, norm: str, distance: float
) -> None:
    style.use()
    from deltaball.figures import violations

    networks = pd.DataFrame({"network_id": ["a", "b", "c"], "architecture": "fcn", "method": "sgd"})
    networks = networks.assign(objective=["cross_entropy", "cross_lipschitz", "cross_entropy"], **dict.fromkeys(KINDS))
    (path,) = violations.draw(networks, examples(norm, 51), tmp_path)
    assert path.stat().st_size > 0
    shown = pd.read_csv(path.with_suffix(".csv"))
    # c is of the kind that a is first of, and d is not compared.
    assert shown["network_id"].to_list() == ["a", "a", "b", "b"]
    assert shown["distance"].to_list() == pytest.approx([distance] * 4)
    assert shown["attack"].eq("fmn").all()
    told = picture(path)["told"]
    assert told.startswith(
        f"Violations found: FCN, at 2 of 2 points, median {distance:.3g}; FCN, cross-Lipschitz, at 1"
    )
    assert "beyond 3" in told  # of one that is found and one that is not


def test_without_distances_there_is_no_picture(tmp_path: Path) -> None:
    style.use()
    from deltaball.figures import violations

    networks = pd.DataFrame({"network_id": ["a"], "architecture": "fcn", "method": "sgd", "objective": "augmented"})
    there = examples("l2", 51)
    assert (
        violations.draw(networks.assign(**dict.fromkeys(KINDS, "fgsm")), there[there["attack"] == "pgd"], tmp_path)
        == []
    )
