"""How a study is given, refused and killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_study import (
    CNN,
    FCN,
    NETWORKS,
    ROOT,
    TINY,
    assert_equal_tables,
    checkpoints,
    command,
    deltaball,
    jobs,
    snakemake,
    tables,
    write_study,
)

from deltaball.cli import main
from deltaball.workflow.claims import claim


def test_a_study_given_on_the_command_line_replaces_the_default_whole(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    output = snakemake(tmp_path, "-n", "--configfile", "other.yaml")
    assert jobs(output)["train"] == 1
    assert "results/tiny" not in output


def test_a_study_given_by_a_profile_replaces_the_default_whole(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/config.yaml").write_text("configfile: other.yaml\n")
    output = snakemake(tmp_path, "-n", "--profile", "here")
    assert jobs(output)["train"] == 1
    assert "results/tiny" not in output


def asked(output: str) -> dict[str, list[str]]:
    """The resources that the jobs of each rule ask for in a dry run."""
    found: dict[str, list[str]] = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)*)", output, re.M):
        found.setdefault(rule, []).extend(re.findall(r"^ +resources: (.*)$", block, re.M))
    return found


def test_the_slurm_profile_plans_the_papers_study_and_a_gpu_for_each_heavy_job(tmp_path: Path) -> None:
    for name in ("slurm", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    output = snakemake(tmp_path, "-n", "--profile", "slurm", "--default-resources", "slurm_partition=fast")
    counts = jobs(output)
    assert counts["train"] == counts["measure"]
    assert 20 <= sum(counts.values()) <= 60
    for rule, requests in asked(output).items():
        assert all(("gpu=1" in one) == (rule in ("train", "measure")) for one in requests)
        assert rule == "all" or all("slurm_partition=fast" in one for one in requests)
    assert len(asked(output)["train"]) == counts["train"]
    # The command line wins over the profile.
    write_study(tmp_path, {**TINY, "study": "other", "grids": [CNN]}, "other.yaml")
    output = snakemake(tmp_path, "-n", "--profile", "slurm", "--configfile", "other.yaml")
    assert jobs(output)["train"] == 1
    assert "results/other" in output
    assert all("gpu=0" in one and "cpus_per_task=1" in one for one in asked(output)["train"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--configfile", "a.yaml", "b.yaml"], "one study at a time"),
        (["--config", "study=x"], "--config study"),
        (["--configfile", "b.yaml"], "b.yaml: grids[0].dpeth: unknown key 'dpeth'"),
    ],
)
def test_snakemake_refuses_in_one_line_and_starts_no_job(tmp_path: Path, arguments: list[str], expected: str) -> None:
    write_study(tmp_path, TINY)
    write_study(tmp_path, TINY, "a.yaml")
    write_study(tmp_path, {**TINY, "grids": [{**FCN, "dpeth": 1}]}, "b.yaml")
    done = subprocess.run(command(*arguments), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("deltaball:")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "results").exists()


def of_session(leader: int) -> list[int]:
    """The processes that a session's leader started, and those that they started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found


def killed(folder: Path, run: list[str], share: float) -> dict[str, int]:
    """Kill a run, its shells and its jobs, all at once, when a share of the networks is trained; what there is then."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(run, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        while len(checkpoints(folder)) < share * NETWORKS:
            assert process.poll() is None, "the study ended before it was killed"
            time.sleep(0.005)
        # Snakemake has a group of its own, and a process may start another while the first ones die.
        while alive := of_session(process.pid):
            for one in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.poll()
    there = checkpoints(folder)
    assert 0 < len(there) < NETWORKS
    return there


def test_killed_twice_while_training_it_loses_nothing_that_was_finished(finished: Path, tmp_path: Path) -> None:
    write_study(tmp_path, {**TINY, "measures": [{"notion": "class_change", "delta": 0.1}]})
    for name in ("Snakefile", "rules", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    first = killed(tmp_path, command(), 0.1)
    second = killed(tmp_path, [sys.executable, "-m", "deltaball", "study"], 0.6)
    done = deltaball(tmp_path, "study")
    assert done.returncode == 0, done.stdout + done.stderr
    again = checkpoints(tmp_path)
    assert {name: again[name] for name in first} == first
    assert {name: again[name] for name in second} == second
    whole = tables(finished)
    for name in ("robustness", "outcomes"):
        whole[name] = whole[name].query("measure == 'class_change_linf_0.1_fgsm'").reset_index(drop=True)
    assert_equal_tables(tables(tmp_path), whole)


def test_the_plan_of_the_paper_is_printed_per_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["plan", "--study", str(ROOT / "studies/paper.yaml")]) == 0
    said = capsys.readouterr().out
    grids = dict(re.findall(r"^(B\.\d|all) +([\d,]+)", said, re.M))
    expected = ["720", "2,880", "405", "2,160", "4,860", "1,296", "864", "1,296", "432", "14,913"]
    assert list(grids.values()) == expected


def test_the_planning_benchmark_measures_both_and_imports_nothing_heavy() -> None:
    script = [sys.executable, str(ROOT / "benchmarks/planning.py"), "config.yaml", "1"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "imported by parsing: none" in done.stdout
    assert len(re.findall(r"median \d+\.\d\d s", done.stdout)) == 2


@pytest.mark.parametrize("looking", [["-n"], ["--summary"], ["--dag"], ["--rulegraph"], ["--list-rules"]])
def test_who_only_looks_needs_no_claim_and_changes_nothing(tmp_path: Path, looking: list[str]) -> None:
    write_study(tmp_path, {**TINY, "grids": [CNN]})
    with claim(tmp_path):
        assert "another run is under way" not in snakemake(tmp_path, *looking)
    assert not (tmp_path / "results").exists()
