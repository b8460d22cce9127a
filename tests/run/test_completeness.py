"""A run ends well where every row that the plan asks for is there, and names what is missing where not."""

from pathlib import Path

import pytest
from few_study import STUDY, written

from deltaball.cli import main
from deltaball.estimation import measuring
from deltaball.tables import frames
from deltaball.training import sgd


@pytest.fixture
def results(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study that is not run yet."""
    written(tmp_path, data_folder, grids=[{**STUDY["grids"][0], "learning_rate": [0.1, 0.2]}])
    monkeypatch.chdir(tmp_path)
    return Path("results/tiny")


def test_a_whole_study_is_complete(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"]) == 0
    capsys.readouterr()
    assert main.main(["complete"]) == 0
    assert capsys.readouterr().out == f"{results}: all 4 networks and 8 estimates are there\n"


def test_an_estimate_that_is_missing_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"]) == 0
    table = frames.read(results / "robustness.parquet")
    frames.write(table[1:], results / "robustness.parquet")
    capsys.readouterr()
    assert main.main(["complete"]) == 2
    said = capsys.readouterr().err
    missing = f"{table['network_id'][0]}, {table['measure'][0]}"
    assert f"{results}: 1 estimates are missing ({missing}); PROVENANCE.md names all" in said
    assert main.main(["provenance"]) == 0
    page = (results / "PROVENANCE.md").read_text()
    assert f"| one | 1 | {table['measure'][0]} was not measured | {table['network_id'][0]} |" in page
    assert main.main(["run"]) == 0
    assert len(frames.read(results / "robustness.parquet")) == 8


@pytest.mark.parametrize("stage", ["train", "measure"])
def test_networks_that_fail_are_no_success_and_the_next_run_goes_on(
    stage: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = {"train": sgd, "measure": measuring}[stage]
    whole, refused = getattr(room, stage), []

    def faulty(pack: object, *rest: object) -> int:
        first = next(iter(pack))
        identity = first[0] if stage == "measure" else first.id
        if len(pack) == (2 if stage == "measure" else 1) and refused in ([], [identity]):
            refused[:] = [identity]
        if len(pack) > (2 if stage == "measure" else 1) or refused == [identity]:
            raise RuntimeError("a fault on purpose")
        return whole(pack, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(room, stage, faulty)
        assert main.main(["run"]) == 2
    said = capsys.readouterr().err
    assert {"train": "2 networks are missing", "measure": "4 estimates are missing"}[stage] in said
    assert main.main(["run"]) == 0
    assert set(frames.read(results / "networks.parquet")["status"]) == {"trained"}
