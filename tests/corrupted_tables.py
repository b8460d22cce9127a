"""Rows of networks measured under corruptions, with estimates that a test chooses."""

from collections.abc import Mapping, Sequence

import pandas as pd

from deltaball.plan.plan import Plan


def measured(plan: Plan, estimates: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """`estimates` are those of each network, by the measure's name; of other measures 0.7."""
    known = {"test_accuracy": 0.95, "objective": "cross_entropy", "confidence": 0.95, "samples": 738}
    known |= dict.fromkeys(("noise", "against", "constraint", "adversary", "rounds"))
    rows = []
    for place, network in enumerate(plan.networks):
        for one in plan.measures_of(network):
            estimate = estimates[one.name][place] if one.name in estimates else 0.7
            ends = dict.fromkeys(("lower", "upper", "tight_lower", "tight_upper"), estimate)
            adapted = {name: network.axes.get(name) for name in ("adaptation", "corruption", "corrupted_images")}
            adapted["cluster"] = network.trunk[0] if network.trunk else network.trajectory_id
            rows.append({"network_id": network.id, **network.groups, **adapted, **known, "measure": one.name, **ends})
            rows[-1] |= {"estimate": estimate, "notion": one.notion}
    return pd.DataFrame(rows)
