"""Pieces of a study become the whole in any order, however they overlap; contradictions and damage become a line."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import grid, planned
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaball.base.errors import InputError
from deltaball.cli import main
from deltaball.estimation import convergence, curves
from deltaball.estimation.estimates import described
from deltaball.estimation.statistics import Mean
from deltaball.plan import loading
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.run import merging, pieces
from deltaball.tables import frames, outcomes
from deltaball.workflow import jobs

CPU = {"device": "cpu (x86_64)", "software": "torch 2"}
GPU = {"device": "cuda (a GPU)", "software": "torch 2"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """7 networks: 6 of SGD, of which one is drawn 10 times for a convergence experiment, and a pruned one."""
    measure = {"notion": "class_change", "delta": 0.1}
    only = {"grid": "fcn-sgd", "width": 8, "epochs": 5}
    return planned(
        grid(width=[8, 16, 32]),
        grid("fcn", "imp", width=8),
        measures=[measure, {"notion": "softmax_variation", "delta": [0.1, 0.2]}],
        guarantee={"epsilon": 0.15, "confidence": 0.95},
        convergence=[{"measure": {**measure, "only": only}, "epsilon": [0.2, 0.1], "draws": 2}],
    )


def piece(plan: Plan, networks: Sequence[Network], where: dict[str, str] = CPU, measured: bool = True) -> pieces.Piece:
    """What a run of these networks leaves; the same numbers for a network every time."""
    rows, estimates, lists = [], [], []
    for network in networks:
        generator = np.random.default_rng(int(network.id[:8], 16))
        accuracy = float(generator.uniform(0.5, 1))
        data = plan.facts[network.dataset].fingerprint
        rows.append(
            {"network_id": network.id, "status": "trained", "test_accuracy": accuracy, "data_sha256": data, **where}
        )
        for one, samples in plan.asked_of(network).items():
            values = generator.uniform(size=samples).astype(np.float32)
            values = values.round() if one.notion == "class_change" else values
            first = values[: one.samples]
            lists.append({"network_id": network.id, "measure": one.name, "values": values})
            lower, upper = Mean.of(one).tight_interval(first[None], one.confidence)
            tight = {"tight_lower": lower[0], "tight_upper": upper[0], "lower": 0.0, "upper": 1.0, "side": "upper"}
            estimate = first.mean(dtype=np.float64)
            tight["points_seed"] = plan.study.guarantee.seed
            estimates.append({"network_id": network.id, **described(one), "estimate": estimate, **tight})
    columns = pieces.COLUMNS
    found = {
        "networks": pd.DataFrame(rows, columns=list(columns["networks"])),
        "robustness": pd.DataFrame(estimates if measured else [], columns=list(columns["robustness"])),
        "outcomes": outcomes.rounded(plan, pd.DataFrame(lists if measured else [], columns=list(columns["outcomes"]))),
    }
    found["curves"] = curves.curves(plan, found["outcomes"])
    found["convergence"] = convergence.convergence(plan, found["outcomes"])
    return pieces.of_tables("here", found)


def written(folder: Path, one: pieces.Piece, without: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True)
    for name, table in one.tables.items():
        if name not in without:
            frames.write(table, folder / f"{name}.parquet")
    return folder


def assert_equal(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name in pieces.COLUMNS:
        pair = [found[name].copy() for found in (one, other)]
        for table in pair if name == "outcomes" else ():
            table["values"] = table["values"].map(tuple)
        pd.testing.assert_frame_equal(*pair, check_exact=True, obj=name)


def changed(one: pieces.Piece, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> pieces.Piece:
    return pieces.Piece("there", {**one.tables, name: change(one.tables[name].copy())})


def test_of_one_whole_piece_nothing_changes(plan: Plan) -> None:
    whole = piece(plan, plan.networks)
    found = merging.merged(plan, [whole])
    assert list(found["networks"]["network_id"]) == [one.id for one in plan.networks]
    assert set(found["networks"]["status"]) == {"trained"}
    assert_equal({**found, "networks": found["networks"][list(pieces.COLUMNS["networks"])]}, dict(whole.tables))


@given(data=st.data())
@settings(max_examples=6)
def test_pieces_however_they_overlap_and_in_any_order_are_the_whole(plan: Plan, data: st.DataObject) -> None:
    some = st.lists(st.sampled_from(range(len(plan.networks))), unique=True)
    subsets = data.draw(st.lists(st.tuples(some, st.booleans()), min_size=1, max_size=4))
    parts = [piece(plan, [plan.networks[at] for at in chosen], measured=measured) for chosen, measured in subsets]
    found = merging.merged(plan, parts)
    assert_equal(found, merging.merged(plan, data.draw(st.permutations(parts))))
    trained = sorted({at for chosen, _ in subsets for at in chosen})
    measured = sorted({at for chosen, also in subsets for at in chosen if also})
    parts = [piece(plan, [plan.networks[at] for at in trained], measured=False)]
    parts.append(piece(plan, [plan.networks[at] for at in measured]))
    assert_equal(found, merging.merged(plan, parts))
    status = found["networks"]["status"]
    assert [at for at in range(len(plan.networks)) if status[at] == "trained"] == trained
    assert set(found["robustness"]["network_id"]) == {plan.networks[at].id for at in measured}
    # In two steps as in one; and what is merged is merged with its pieces again.
    halfway = pieces.of_tables("halfway", merging.merged(plan, parts[:2]))
    assert_equal(found, merging.merged(plan, [halfway, *parts[2:]]))
    assert_equal(found, merging.merged(plan, [pieces.of_tables("all", found), *parts]))


def test_what_failed_in_one_run_may_be_trained_in_another(plan: Plan) -> None:
    first, second, third, *_ = plan.networks
    failed = pieces.of_failures({first.id: "its node burnt", third.id: "z"})
    again = pieces.of_failures({third.id: "a"})
    found = merging.merged(plan, [failed, piece(plan, [first, second]), again])["networks"]
    assert list(found["status"][:4]) == ["trained", "trained", "failed", "planned"]
    assert list(found["reason"].dropna()) == ["a"]


def test_rows_of_other_studies_are_left_out(plan: Plan) -> None:
    smaller = planned(
        grid(width=16),
        measures=[{"notion": "class_change", "delta": 0.1}],
        guarantee={"epsilon": 0.15, "confidence": 0.95},
    )
    found = merging.merged(smaller, [piece(plan, plan.networks)])
    assert len(found["networks"]) == len(found["robustness"]) == len(found["outcomes"]) == len(found["curves"]) == 2
    assert found["convergence"].empty
    # Nor curves of which there are no outcomes to draw them anew.
    bare = changed(piece(plan, plan.networks), "outcomes", lambda table: table[:0])
    pd.testing.assert_frame_equal(merging.merged(smaller, [bare])["curves"], found["curves"], check_exact=True)


def add(column: str, amount: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table.index[0], column] += amount
        return table

    return change


def flip(table: pd.DataFrame) -> pd.DataFrame:
    values = table["values"].iloc[0].copy()
    values[3] = 1 - values[3]
    return table.assign(values=[values, *table["values"].iloc[1:]])


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("networks", add("test_accuracy", 1e-9), r"test_accuracy is 0\.\d+ in here and 0\.\d+ in there"),
        ("networks", lambda table: table.assign(status="diverged"), "status is trained in here and diverged in there"),
        (
            "networks",
            lambda table: table.assign(data_sha256="0" * 64),
            "data_sha256 is 000000000000 in there and 06edf",
        ),
        ("robustness", add("estimate", 1e-12), r"class_change_linf_0\.1_fgsm: estimate is 0\.\d+ in here and"),
        ("robustness", add("lower", 0.1), r"lower is 0\.0 in here and 0\.1 in there"),
        ("robustness", add("samples", 1), r"samples is 83 in there and 82 in this study"),
        ("robustness", add("points_seed", 1), r"points_seed is 1 in there and 0 in this study; measure it again"),
        ("outcomes", flip, r"outcome of test point 3 is \d in \w+ and \d in \w+"),
    ],
)
def test_a_contradiction_is_one_line_with_the_network_and_both_values(
    plan: Plan, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], named: str
) -> None:
    one = piece(plan, plan.networks[:1])
    other = changed(one, name, change)
    for parts in ([one, other], [other, one]):
        with pytest.raises(InputError) as refused:
            merging.merged(plan, parts)
        assert plan.networks[0].id in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=named):
        merging.merged(plan, [one, other])


def test_fewer_points_must_be_how_more_points_begin(plan: Plan) -> None:
    whole = piece(plan, plan.networks)
    fewer = changed(whole, "outcomes", lambda table: table.assign(values=[one[:82] for one in table["values"]]))
    for parts in ([whole, fewer], [fewer, whole]):
        assert_equal(merging.merged(plan, parts), merging.merged(plan, [whole]))


def test_curves_are_kept_of_networks_whose_outcomes_are_not(plan: Plan) -> None:
    whole = merging.merged(plan, [piece(plan, plan.networks)])
    half, other = piece(plan, plan.networks[:3]), piece(plan, plan.networks[2:])
    found = merging.merged(plan, [changed(half, "outcomes", lambda table: table[:0]), other])
    for name in ("networks", "robustness", "curves", "convergence"):
        pd.testing.assert_frame_equal(found[name], whole[name], check_exact=True)
    bare = merging.merged(plan, [changed(piece(plan, plan.networks), "outcomes", lambda table: table[:0])])
    pd.testing.assert_frame_equal(bare["curves"], whole["curves"], check_exact=True)
    pd.testing.assert_frame_equal(bare["convergence"], whole["convergence"], check_exact=True)


def test_a_piece_that_knows_of_fewer_judges_has_other_curves(plan: Plan) -> None:
    whole = piece(plan, plan.networks)
    fewer = changed(whole, "curves", add("attacked", 0.1))
    for parts in ([whole, fewer], [fewer, whole]):
        assert_equal(merging.merged(plan, parts), merging.merged(plan, [whole]))


def test_a_network_of_two_devices_is_taken_whole_from_one(plan: Plan) -> None:
    first, second = plan.networks[:2]
    near = [add("test_accuracy", -0.009), add("estimate", 0.1)]
    twin = changed(changed(piece(plan, [first], GPU), "networks", near[0]), "robustness", near[1])
    there = merging.merged(plan, [piece(plan, [first, second]), twin])
    assert list(there["networks"]["device"].dropna()) == [CPU["device"]] * 2
    # The GPU's has more estimates: nothing of the CPU's is left beside them.
    here = piece(plan, [first, second], measured=False)
    for parts in ([here, twin], [twin, here]):
        found = merging.merged(plan, parts)
        assert list(found["networks"]["device"].dropna()) == [GPU["device"], CPU["device"]]
        assert found["networks"]["test_accuracy"][0] == twin.tables["networks"]["test_accuracy"][0]
        assert list(found["robustness"]["estimate"]) == list(twin.tables["robustness"]["estimate"])


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        (
            "networks",
            add("test_accuracy", -0.011),
            r"test_accuracy is .* \(on cuda .* \(on cpu .*, more than 0\.01 apart",
        ),
        ("robustness", add("estimate", -0.16), r"class_change\S+: estimate is .*, more than 0\.15 apart"),
        (
            "networks",
            lambda table: table.assign(status="stuck"),
            r"status is stuck in there \(on cuda .* and trained in here",
        ),
    ],
)
def test_devices_may_not_be_far_apart(
    plan: Plan, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], named: str
) -> None:
    twin = changed(piece(plan, plan.networks[:1], GPU), name, change)
    with pytest.raises(InputError, match=named):
        merging.merged(plan, [piece(plan, plan.networks[:1]), twin])


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[:1]], ignore_index=True)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("networks", twice, "network [0-9a-f]{16} is there twice"),
        ("robustness", twice, "network [0-9a-f]{16}, class_change_linf_0.1_fgsm is there twice"),
        ("networks", lambda table: table.assign(status="fine"), "has the status 'fine'"),
        ("networks", lambda table: table[1:], "robustness of .* has rows of network .* not among its trained networks"),
        ("networks", lambda table: table.drop(columns="status"), "has no column status"),
        ("networks", lambda table: table.assign(test_accuracy="high"), "networks of .* cannot be used"),
        ("robustness", lambda table: table.assign(estimate=np.nan), "has no estimate"),
        ("curves", lambda table: table.drop(columns="open"), "has no column open"),
    ],
)
def test_damage_is_named_and_nothing_is_written(
    plan: Plan, tmp_path: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], named: str
) -> None:
    folder = written(tmp_path / "damaged", changed(piece(plan, plan.networks), name, change))
    with pytest.raises(InputError, match=named) as refused:
        pieces.of_folder(folder)
    assert str(folder) in str(refused.value)


def test_a_cut_file_and_an_empty_folder_are_named(plan: Plan, tmp_path: Path) -> None:
    folder = written(tmp_path / "cut", piece(plan, plan.networks))
    whole = (folder / "outcomes.parquet").read_bytes()
    (folder / "outcomes.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut/outcomes\.parquet is damaged"):
        pieces.of_folder(folder)
    with pytest.raises(InputError, match=r"nowhere has no networks\.parquet"):
        pieces.of_folder(tmp_path / "nowhere")


STUDY = """
study: small
guarantee: {epsilon: 0.15, confidence: 0.95}
measures: [{notion: class_change, delta: [0.1, 0.2]}]
grids:
  - {name: one, dataset: mnist5k, method: sgd, architecture: fcn, depth: 1, width: 8, activation: relu,
     learning_rate: [0.1, 0.2], epochs: [1, 2]}
  - {name: two, dataset: mnist5k, method: sgd, architecture: fcn, depth: 1, width: 16, activation: relu,
     learning_rate: 0.1, epochs: [1, 2]}
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".checksums")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_command_merges_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY)
    plan = loading.planned(Path("config.yaml"))
    parts = [[one for one in plan.networks if one.grid == name] for name in ("one", "two")]
    for place, networks in zip(("a", "b"), parts, strict=True):
        folder = written(Path(place), piece(plan, networks))
        shard = next(one for one in plan.shards.values() if one.grid == networks[0].grid)
        with jobs.recorded(plan, "train", shard):
            pass
        shutil.move(plan.study.folder / "jobs", folder / "jobs")
    results = plan.study.folder
    assert main.main(["merge", "a", "b"]) == 0
    assert "small: 6 networks (6 trained), 12 estimates" in capsys.readouterr().out
    before = contents(results)
    assert set(before) == {
        *(f"{name}.parquet" for name in pieces.COLUMNS),
        "jobs.jsonl",
        "PROVENANCE.md",
    }
    assert [one["grid"] for one in jobs.records(plan)] == ["one", "two"]
    # Again, and the other way around: the same bytes.
    for folders in (["b", "a"], ["a"], []):
        assert main.main(["merge", *folders]) == 0
        assert contents(results) == before
    page = (results / "PROVENANCE.md").read_text()
    for name, count in (("one", 4), ("two", 2), ("all", 6)):
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |")).split(" | ")
        assert [int(cell) for cell in row[1:3]] == [count, count]
        assert [int(cell) for cell in row[7:10]] == [2 * count] * 3  # estimates, outcomes, curves
    assert "No network is missing" in page
    # A contradiction: one line, and not a byte changed.
    wrong = written(Path("c"), changed(piece(plan, parts[1]), "networks", add("test_accuracy", 1e-9)))
    capsys.readouterr()
    assert main.main(["merge", str(wrong)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert parts[1][0].id in said
    assert contents(results) == before


def test_what_is_missing_is_in_the_provenance_with_its_reason(plan: Plan, tmp_path: Path) -> None:
    from deltaball.run import provenance

    here = planned(
        grid(width=[8, 16, 32]),
        measures=[{"notion": "class_change", "delta": 0.1}],
        guarantee={"epsilon": 0.15, "confidence": 0.95},
        results=str(tmp_path),
    )
    first, second, third, *_ = here.networks
    parts = [piece(here, [first]), piece(here, [second], measured=False), pieces.of_failures({third.id: "no | room"})]
    merging.write(here, merging.merged(here, parts))
    study = tmp_path / "study.yaml"
    study.touch()
    page = list(provenance.lines(here, study))
    missing = page[page.index("## Missing") + 2 :]
    assert missing[2:] == [
        f"| fcn-sgd | 1 | not measured | {second.id} |",
        f"| fcn-sgd | 1 | failed: no / room | {third.id} |",
        f"| fcn-sgd | 3 | not trained yet | {', '.join(one.id for one in here.networks[3:])} |",
    ]


def test_a_folder_of_another_study_is_refused_by_name(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(STUDY.replace("width: 8", "width: 24").replace("width: 16", "width: 48"))
    written(Path("other"), piece(plan, plan.networks))
    assert main.main(["merge", "other"]) == 2
    assert "other has no network of the study 'small'; give a folder of the same study" in capsys.readouterr().err
    assert not Path("results/small/networks.parquet").exists()
