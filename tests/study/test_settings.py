"""`--set KEY=VALUE`: the study as if its file said so, and one line for what is wrong."""

from pathlib import Path

import pytest
import yaml
from builders import grid, study

from deltaball.cli import main
from deltaball.plan import loading
from deltaball.plan.networks import Network
from deltaball.study import reading


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(study(grid(name="B.1"), grid("cnn"))))
    return Path("config.yaml")


def networks(path: Path) -> list[Network]:
    return loading.planned(path).networks


ANCHORED = """
study: test
data: nowhere
guarantee: {epsilon: 0.05, confidence: 0.95}
measures: [{notion: class_change, delta: 0.1}]
grids:
- &one
  {name: a, dataset: mnist5k, method: sgd, architecture: fcn, depth: 1, width: &wide [8, 16], activation: relu,
   learning_rate: 0.1, epochs: 1}
- {<<: *one, name: b, width: *wide, seed: 1}
"""
SETTINGS = ["grids.0.epochs=[1, 2]", "grids.0.width=8", "measures.0.delta=8/255", "compute.device=cuda", "results=here"]


def test_a_setting_is_what_the_file_would_say(path: Path) -> None:
    found = reading.load(path, SETTINGS)
    said = study(grid(name="B.1", epochs=[1, 2], width=8), grid("cnn"), compute={"device": "cuda"}, results="here")
    said["measures"] = [{"notion": "class_change", "delta": "8/255"}]
    Path("said.yaml").write_text(yaml.safe_dump(said))
    assert found == reading.load(Path("said.yaml"))
    # What jobs and reports read is a study file too.
    written = loading.with_settings(path, SETTINGS)
    assert written == Path("here/test/study.yaml")
    assert written.read_text().startswith(f"# config.yaml --set {SETTINGS[0]}")
    assert reading.load(written) == found
    assert networks(written) == networks(Path("said.yaml"))
    assert networks(path) != networks(written)


def test_two_grids_that_share_an_anchor_are_set_apart(path: Path) -> None:
    path.write_text(ANCHORED)
    one, other = reading.load(path, ["grids.0.width.0=9"]).grids
    assert (one.width, other.width) == ([9, 16], [8, 16])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("grids.0.epochs=many", ["config.yaml --set grids.0.epochs=many", "grids[0].epochs", "'many'"]),
        ("grids.0.epochs=1000000000", ["grids[0].epochs", "less than"]),
        ("grids.0.epoch=5", ["grids[0].epoch", "did you mean 'epochs'"]),
        ("grids.B.1.epochs=5", ["grids has no place 'B'", "0 (B.1), 1 (cnn-sgd)"]),
        ("measures.7.delta=0.1", ["measures has no place '7'", "possible: 0"]),
        ("guarantee.epsilon.most=1", ["guarantee.epsilon is 0.05 and has no keys"]),
        ("guarantee.epsilon=0.001", ["guarantee.epsilon = 0.001 needs"]),
        ("grids.0.epochs", ["KEY=VALUE"]),
        ("=5", ["KEY=VALUE"]),
        ("grids.0.epochs=[", ["--set grids.0.epochs=[", "not valid YAML"]),
        ("study=", ["study"]),
    ],
)
def test_what_cannot_be_set_is_one_line(
    path: Path, setting: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("plan", "run"):
        assert main.main([command, "--set", setting]) == 2
        message = capsys.readouterr().err
        assert message.startswith("deltaball: ")
        assert message.count("\n") == 1
        for part in said:
            assert part in message
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 5}, "it is a key of .*grids of method sgd or imp"),
        ({"delta": 0.1}, "it is a key of measures"),
        ({"shard_minutes": 5}, "it is a key of compute"),
        ({"gamma": 0.5}, "measures of notion variation_above"),
        ({"measure": []}, "did you mean 'measures'"),
    ],
)
def test_a_misplaced_key_is_told_its_place(path: Path, changed: dict, said: str) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(study(**changed)))
    with pytest.raises(ValueError, match=said):
        reading.load(path)


def test_what_two_entries_ask_for_names_both(path: Path) -> None:
    twice = [
        {"notion": "class_change", "delta": [0.1, 0.2]},
        {"notion": "class_change", "delta": 0.2, "only": {"grid": "B.1"}},
    ]
    Path("config.yaml").write_text(yaml.safe_dump(study(grid(name="B.1"), grid("cnn"), measures=twice)))
    with pytest.raises(
        ValueError, match=r"^config\.yaml: measures\[0\] and measures\[1\] both ask for class_change .* 0\.2"
    ):
        loading.planned(path)
