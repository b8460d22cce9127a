"""Whether the tables have every row that the plan asks for; if not, which are missing and why."""

from collections import defaultdict
from collections.abc import Collection, Iterator

import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.statuses import FINISHED, MEASURABLE
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.tables import frames

NAMED = 5


def check(plan: Plan, only: Collection[str] | None = None) -> str:
    """Returns in words what the tables of a study's folder hold, when that is all that is asked for.

    Raises InputError that names what is missing: a network that is neither trained nor diverged nor stuck, and every
    estimate of one that can be measured. With `only`, networks other than these (by id) may be missing.
    """
    networks, robustness = frames.load(plan)
    wanted = [network for network in plan.networks if only is None or network.id in only]
    untrained = list(_untrained(wanted, networks))
    absent = absent_estimates(plan, networks, robustness, wanted)
    unmeasured = [f"{network.id}, {measure}" for network, measure in absent]
    said = [
        f"{len(missing)} {what} missing ({'; '.join(missing[:NAMED])}{' …' if len(missing) > NAMED else ''})"
        for missing, what in ((untrained, "networks are"), (unmeasured, "estimates are"))
        if missing
    ]
    if said:
        raise InputError(f"{plan.study.folder}: {' and '.join(said)}; PROVENANCE.md names all; run again")
    return f"{plan.study.folder}: all {len(wanted)} networks and {len(robustness)} estimates are there"


def absent_estimates(
    plan: Plan, networks: pd.DataFrame, robustness: pd.DataFrame, wanted: Collection[Network] | None = None
) -> Iterator[tuple[Network, str]]:
    """The measures, by name, that are asked of networks which can be measured, and that have no row."""
    measurable = set(networks["network_id"][networks["status"].isin(MEASURABLE)])
    there = set(robustness[["network_id", "measure"]].itertuples(index=False, name=None))
    for network in plan.networks if wanted is None else wanted:
        for measure in plan.measures_of(network) if network.id in measurable else ():
            if (network.id, measure.name) not in there:
                yield network, measure.name


def estimates_there(plan: Plan) -> set[tuple[str, str]]:
    """The estimates, by network and measure, that the tables have as the plan asks for them; of a damaged one, none."""
    path, asked = plan.study.folder / "robustness.parquet", ["samples", "epsilon", "confidence", "points_seed"]
    if not path.exists():
        return set()
    try:
        rows = frames.read(path, ["network_id", "measure", *asked])
    except InputError:
        return set()
    wanted = {
        (network.id, one.name): (one.samples, one.epsilon, one.confidence, plan.study.guarantee.seed)
        for network in plan.networks
        for one in plan.measures_of(network)
    }
    pairs = rows[["network_id", "measure"]].itertuples(index=False, name=None)
    guarantees = rows[asked].itertuples(index=False, name=None)
    return {pair for pair, guarantee in zip(pairs, guarantees, strict=True) if wanted.get(pair) == tuple(guarantee)}


def by_measure(absent: Collection[tuple[Network, str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Absent estimates as grid, measure, and the ids of the networks."""
    networks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for network, measure in absent:
        networks[network.grid, measure].append(network.id)
    return ((*key, ids) for key, ids in networks.items())


def _untrained(wanted: Collection[Network], networks: pd.DataFrame) -> Iterator[str]:
    ids = {network.id for network in wanted}
    missing = networks[networks["network_id"].isin(ids) & ~networks["status"].isin(FINISHED)]
    for row in missing.itertuples():
        yield f"{row.network_id}: {row.status}" + ("" if pd.isna(row.reason) else f", {row.reason}")
