"""Results of several runs, machines or subsets of a study as one: the same id has the same numbers, or a line says no.

Numbers of one network that come from the same device and the same software must be equal, bit for bit. On another
device, or with other software, training rounds differently and ends at other weights, so that they agree only about
(`agreement`). Such a network is then taken whole from one of them, the one that has more estimates (of two with as
many, the first by name): tables never mix two sets of weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deltaball.base.errors import InputError
from deltaball.base.files import written_whole
from deltaball.base.statuses import DIVERGED, FAILED, FINISHED, MEASURABLE
from deltaball.estimation import convergence, curves
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.run import agreement, pieces, provenance, superseding
from deltaball.run.pieces import COLUMNS, KEYS, Piece
from deltaball.run.rows import status_counts
from deltaball.tables import columns, frames, outcomes
from deltaball.workflow import claims, jobs, launch


def merge_folders(plan: Plan, study: Path, folders: Iterable[Path]) -> str:
    """Merge results folders with the study's own; returns what there is, in words. Raises InputError as `merged`."""
    own_folder = plan.study.folder
    with claims.claim():
        launch.check_writable(own_folder)
        own = [own_folder] if (own_folder / "networks.parquet").exists() else []
        others = [folder for folder in folders if folder.resolve() != own_folder.resolve()]
        if not own and not others:
            raise InputError(f"{own_folder} has no tables yet, and no other FOLDER is given")
        found = [own_piece(plan)] if own else []
        found += [_contributing(plan, folder) for folder in others]
        return merge(plan, study, found, jobs.records_in(own_folder, *others))


def own_piece(plan: Plan) -> Piece:
    """The tables in the study's folder, without what an edit of the study superseded."""
    return superseding.current(plan, pieces.of_folder(plan.study.folder, own=True))


def _contributing(plan: Plan, folder: Path) -> Piece:
    """The tables of a folder. Raises InputError when the plan has none of its networks."""
    piece = pieces.of_folder(folder)
    ids = piece.tables["networks"]["network_id"]
    if len(ids) and not ids.isin([network.id for network in plan.networks]).any():
        raise InputError(f"{folder} has no network of the study '{plan.study.study}'; give a folder of the same study")
    return piece


def merge(plan: Plan, study: Path, given: Sequence[Piece], records: Iterable[Mapping[str, Any]] = ()) -> str:
    """Write the merged tables and where they come from; returns what there is, in words. Raises as `merged` does."""
    tables = merged(plan, given)
    write(plan, tables, records)
    provenance.write(plan, study)
    networks, estimates = tables["networks"], len(tables["robustness"])
    return f"{plan.study.folder}: {len(networks)} networks ({status_counts(networks)}), {estimates} estimates"


def merged(plan: Plan, given: Sequence[Piece]) -> dict[str, pd.DataFrame]:
    """The tables of a plan, in its order, from all pieces; rows of networks and measures not in it are left out.

    Curves and convergence are computed anew where there are outcomes. The order of the pieces changes nothing.
    Raises InputError naming network, column and both values where two pieces contradict each other, and where a
    piece has a planned number of other test points, or a network of other data, than the plan.
    """
    asked = {network.id: [one.name for one in plan.asked_of(network)] for network in plan.networks}
    estimated = {network.id: [one.name for one in plan.measures_of(network)] for network in plan.networks}
    rows = {name: _gathered(name, given, estimated if name == "robustness" else asked) for name in COLUMNS}
    rows["outcomes"] = outcomes.rounded(plan, rows["outcomes"])
    # The others are computed anew; a piece that knows of fewer judges has another curve, and is no contradiction.
    bare = _without_outcomes(rows["robustness"], rows["outcomes"])
    rows["curves"] = rows["curves"][rows["curves"]["network_id"].isin(bare)]
    agreement.check_data(plan, rows["networks"])
    agreement.check_points(plan, rows["robustness"])
    every_network = rows["networks"]
    rows["networks"] = every_network[every_network["status"].isin(FINISHED)]
    united = {name: agreement.united(name, table, [*KEYS[name], "version"]) for name, table in rows.items()}
    agreement.check_versions(united)
    version_of = _best_versions(united)
    tables = {
        name: table[table["version"] == table["network_id"].map(version_of)].drop(columns=["version", "source"])
        for name, table in united.items()
    }
    failed = _failed(every_network, tables["networks"]["network_id"])
    order = {identity: index for index, identity in enumerate(asked)}
    values, robustness = (_in_order(tables[name], asked) for name in ("outcomes", "robustness"))
    return {
        "networks": frames.networks(plan, [pd.concat([tables["networks"], failed], ignore_index=True)]),
        "outcomes": values,
        "curves": _curves(plan, tables["curves"], values, robustness, order),
        "convergence": _convergence(plan, tables["convergence"], values),
        "robustness": frames.robustness(plan, [robustness]),
    }


def write(plan: Plan, tables: Mapping[str, pd.DataFrame], records: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write tables, and job records if there are any, to the study's folder: all of them or none."""
    records = list(records)
    with ExitStack() as stack:
        # They take their names when all are written, the last one first: networks before what is said about them.
        if records:
            stack.enter_context(written_whole(plan.study.folder / jobs.MERGED_RECORDS)).write_text(jobs.lines(records))
        for name in ("robustness", "convergence", "curves", "outcomes", "networks"):
            if name != "outcomes" or len(tables[name]):
                temporary = stack.enter_context(written_whole(plan.study.folder / f"{name}.parquet"))
                frames.to_file(tables[name], temporary, name)
    if tables["outcomes"].empty:  # those that are there are of networks that the study no longer asks for
        (plan.study.folder / "outcomes.parquet").unlink(missing_ok=True)


def lacking(plan: Plan, piece: Piece) -> set[str]:
    """The ids of the trajectories of which the tables lack a network, or have one not measured as the plan asks."""
    networks = piece.tables["networks"]
    status = dict(networks[["network_id", "status"]].itertuples(index=False))
    estimates = {
        (row.network_id, row.measure): (row.samples, row.epsilon, row.confidence)
        for row in piece.tables["robustness"].itertuples()
    }
    drawn = set(piece.tables["convergence"][["network_id", "measure", "epsilon"]].itertuples(index=False, name=None))

    def is_finished(network: Network) -> bool:
        if status.get(network.id) not in MEASURABLE:
            return status.get(network.id) == DIVERGED
        return all(
            estimates.get((network.id, one.name)) == (one.samples, one.epsilon, one.confidence)
            for one in plan.measures_of(network)
        ) and all(
            (network.id, one.name, epsilon) in drawn
            for experiment in plan.experiments
            if network in experiment.networks
            for one in experiment.measures
            for epsilon in experiment.epsilons
        )

    found = {network.trajectory_id for network in plan.networks if not is_finished(network)}
    # Tables may come without outcomes; but what its shard has kept was lost from these.
    with_outcomes = set(piece.tables["outcomes"]["network_id"])
    measured = set(piece.tables["robustness"]["network_id"]) - with_outcomes
    return found | {
        network.trajectory_id
        for network in plan.networks
        if network.id in measured and jobs.part(plan, plan.shard_of[network.trajectory_id], "outcomes").exists()
    }


def _gathered(name: str, given: Sequence[Piece], asked: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The rows of networks and measures that are asked for, with their `source` and the `version` of their network."""
    rows = []
    for piece in given:
        networks = piece.tables["networks"]
        named_versions = networks["device"].str.cat(networks["software"], " with ")
        versions = dict(zip(networks["network_id"], named_versions, strict=True))
        table = piece.tables[name]
        table = table[table["network_id"].isin(asked)]
        if "measure" in KEYS[name]:
            pairs = zip(table["network_id"], table["measure"], strict=True)
            table = table[np.array([measure in asked[identity] for identity, measure in pairs], bool)]
        rows.append(
            table.assign(source=piece.source, version=table["network_id"].map(versions).astype("str").fillna(""))
        )
    return pd.concat(rows, ignore_index=True)


def _failed(networks: pd.DataFrame, finished: pd.Series) -> pd.DataFrame:
    """A row of each network that failed and is not finished anywhere."""
    failed = networks[networks["status"] == FAILED].sort_values("reason").drop_duplicates("network_id")
    return failed[~failed["network_id"].isin(finished)][list(COLUMNS["networks"])]


def _in_order(table: pd.DataFrame, asked: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Rows of networks and measures in the order in which they are asked for."""
    position = {(identity, name): index for identity in asked for index, name in enumerate(asked[identity])}
    order = {identity: index for index, identity in enumerate(asked)}
    keys = [(order[identity], position[identity, name]) for identity, name in table[["network_id", "measure"]].values]
    return table.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)


def _best_versions(united: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Of each network, the version (device and software) that has most estimates."""
    estimates = united["robustness"].groupby(["network_id", "version"]).size().rename("estimates").reset_index()
    candidates = united["networks"][["network_id", "version"]].merge(estimates, how="left")
    candidates = candidates.fillna({"estimates": 0}).sort_values(["estimates", "version"], ascending=[False, True])
    return dict(candidates.drop_duplicates("network_id")[["network_id", "version"]].itertuples(index=False))


def _curves(
    plan: Plan, carried: pd.DataFrame, values: pd.DataFrame, robustness: pd.DataFrame, order: Mapping[str, int]
) -> pd.DataFrame:
    without = _without_outcomes(robustness, values)
    derived = curves.curves(plan, values[~values["network_id"].isin(without)])
    rows = pd.concat([derived, carried[carried["network_id"].isin(without)]], ignore_index=True)
    families = {family: index for index, family in enumerate(dict.fromkeys(map(curves.family, plan.measures)))}
    found = {}
    for index, row in enumerate(rows.itertuples()):
        family = (row.notion, row.norm, None if pd.isna(row.gamma) else row.gamma)
        if family in families:
            found[order[row.network_id], families[family], row.delta] = index
    return rows.iloc[[found[key] for key in sorted(found)]].reset_index(drop=True).astype(columns.CURVES)


def _without_outcomes(robustness: pd.DataFrame, values: pd.DataFrame) -> set[str]:
    """The ids of networks with an estimate whose outcomes are not there."""
    have = set(values[["network_id", "measure"]].itertuples(index=False, name=None))
    pairs = robustness[["network_id", "measure"]].itertuples(index=False, name=None)
    return {pair[0] for pair in pairs if pair not in have}


def _convergence(plan: Plan, carried: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    derived = convergence.convergence(plan, values)
    there = set(derived[["network_id", "measure"]].itertuples(index=False, name=None))
    known = {(row.network_id, row.measure, row.epsilon, row.draw): row for row in carried.itertuples(index=False)}
    rows = [
        {**known[network.id, one.name, epsilon, draw]._asdict(), "experiment": number}
        for number, experiment in enumerate(plan.experiments)
        for network in experiment.networks
        for one in experiment.measures
        for epsilon in experiment.epsilons
        for draw in range(experiment.draws)
        if (network.id, one.name) not in there and (network.id, one.name, epsilon, draw) in known
    ]
    found = pd.concat([derived, pd.DataFrame(rows, columns=list(columns.CONVERGENCE))], ignore_index=True)
    return found.sort_values("experiment", kind="stable", ignore_index=True).astype(columns.CONVERGENCE)
