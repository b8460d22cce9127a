"""The command line: one command per stage."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltaball
from deltaball.base.errors import InputError, system_message
from deltaball.plan import loading
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan, plan
from deltaball.run import libraries, work
from deltaball.study import reading, schema
from deltaball.study.methods import METHODS
from deltaball.workflow import jobs, stages

if TYPE_CHECKING:
    import pandas as pd

    from deltaball.run.merging import Piece
    from deltaball.store.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, or 2 after a line that says what the user can mend."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as problem:
        print(f"deltaball: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:
        print(f"deltaball: {system_message(problem)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deltaball", description="Global robustness of thousands of networks, with guarantees."
    )
    parser.add_argument("--version", action="version", version=f"deltaball {deltaball.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        if name not in ("samples", "schema"):
            added.add_argument(
                "--study", type=Path, default=Path("config.yaml"), metavar="FILE", help="default: config.yaml"
            )
        return added

    command("study", _study, "run the whole study on this machine, with Snakemake")
    command("plan", _plan, "print what the study would train and measure, and what it costs")
    calibrate = command("calibrate", _calibrate, "measure what training takes here, for the plan's estimates")
    calibrate.add_argument("--device", choices=("cpu", "cuda"), help="default: the study's")
    command("data", _data, "prepare a data set in the store").add_argument("dataset")
    for name, run, summary in (
        ("train", _as_job("train", work.train), "train what the store lacks of a shard"),
        ("measure", _as_job("measure", work.measure), "measure what the store lacks of a shard"),
    ):
        added = command(name, run, summary)
        added.add_argument("shard", help="an id that the plan lists with --shards")
        added.add_argument("--expect", metavar="DIGEST", help="refuse if the study asks something else by now")
        added.add_argument(
            "--tries-left",
            type=int,
            default=0,
            metavar="N",
            help="fail for a network that fails, because the job is tried N times more; with 0 (the default) "
            "that network's rows say so",
        )
    commands.choices["plan"].add_argument("--shards", action="store_true", help="list the shards too")
    command("networks", _networks, "collect the shards' rows in networks.parquet")
    command("robustness", _robustness, "collect the shards' rows in robustness.parquet and outcomes.parquet")
    command("analyse", _analyse, "write the statistical tables")
    command("figures", _figures, "draw the figures")
    command("report", _report, "write the report page")
    run = command("run", _run, "train and measure on this machine without Snakemake, as much as fits in a time")
    run.add_argument("--grids", nargs="+", default=[], metavar="GRID", help="default: all")
    run.add_argument("--device", choices=("cpu", "cuda"), help="default: the study's")
    run.add_argument("--time-limit", metavar="TIME", help="such as 9m; the same command goes on from there")
    merge = command("merge", _merge, "combine results folders of the same study with the one that is here")
    merge.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="such as elsewhere/results/paper")
    command("provenance", _provenance, "write where the tables come from: code, hardware, data, time, what is missing")
    command("collect", _collect, "tables and report of what is there, where an unfinished study left something out")
    command("redraw", _redraw, "statistics, figures and report from the tables alone; trains nothing")
    export = command("export", _export, "write one network as a .keras file")
    export.add_argument("network", help="its id in networks.parquet")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: ID.keras")
    samples = command("samples", _samples, "print how many test points a guarantee needs, by several inequalities")
    samples.add_argument("--epsilon", type=float, required=True, help="the error, in the outcomes' unit")
    samples.add_argument("--confidence", type=float, required=True)
    samples.add_argument("--networks", type=int, default=1, help="how many estimates shall hold at once; default: 1")
    samples.add_argument("--low", type=float, default=0.0, help="the least an outcome can be; default: 0")
    samples.add_argument("--high", type=float, default=1.0, help="the most an outcome can be; default: 1")
    command("schema", _schema, "print the JSON schema of a study file")
    return parser


def _study(chosen: argparse.Namespace) -> None:
    from deltaball.run import devices, preview
    from deltaball.workflow import launch

    planned = loading.planned(chosen.study)
    store = _store(planned)
    quiet = ["--quiet", "host", "reason"]
    resumed = ["--cores", "all", "--rerun-incomplete", "--keep-going", "--show-failed-logs"]
    if planned.study.compute.device == "cuda":
        resumed += ["--resources", f"gpu={max(1, len(devices.listed()))}"]
    before = preview.in_store(planned, store)
    status = launch.snakemake([*resumed, *quiet, "--configfile", str(chosen.study)])
    after = preview.in_store(planned, store)
    print(f"{len(planned.networks)} networks planned: {len(before)} were there, {len(after - before)} trained now")
    if status not in (0, launch.INTERRUPTED):
        launch.collect(planned, chosen.study)
    if status:
        sys.exit(status)
    print(f"the report is {(planned.study.folder / 'report.html').resolve()}")


def _plan(chosen: argparse.Namespace) -> None:
    from deltaball.run import preview

    planned = loading.planned(chosen.study)
    print("\n".join(preview.lines(planned, _store(planned))))
    if chosen.shards:
        print("\n".join(preview.shards(planned)))


def _calibrate(chosen: argparse.Namespace) -> None:
    """Shards are cut by estimated minutes, so new rates give shards other ids.

    What is trained and measured is found in the store all the same, but a study that is under way would meet shards
    that it does not know: so not while one runs here.
    """
    from deltaball.plan import costs
    from deltaball.run import calibration, devices
    from deltaball.workflow import launch

    study = reading.load(chosen.study)
    device = chosen.device or study.compute.device
    with launch.claim(), devices.held() if device == "cuda" else contextlib.nullcontext():
        libraries.prepare_torch(device)
        libraries.prepare_jax()
        rates = calibration.calibrated(device, study.store, calibration.PROBES)
    share = costs.within(rates.ratios.values(), 1.5)
    print(f"{costs.write(rates, study.store)}: rates of {rates.hardware}; {share:.0%} of the probes within 1.5 ×")
    print("shards are cut by them from now on; what is trained stays, and is found in the store")


def _store(planned: Plan) -> "Store":
    from deltaball.store.store import Store

    return Store(planned.study.store)


def _data(chosen: argparse.Namespace) -> None:
    from deltaball.base.errors import alternatives
    from deltaball.base.files import written_whole
    from deltaball.data import datasets

    planned = loading.planned(chosen.study)
    name = chosen.dataset
    if name not in planned.facts:
        raise InputError(f"{chosen.study} uses no data set '{name}'; {alternatives(name, planned.facts)}")
    dataset = datasets.load(name, Path(planned.study.data))
    _store(planned).save_dataset(dataset)
    facts = dataset.facts
    content = {
        "name": name,
        "sha256": facts.fingerprint,
        "train": facts.train,
        "test": facts.test,
        "classes": facts.classes,
    }
    with written_whole(planned.study.folder / "data" / f"{name}.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{name}: {facts.train} training and {facts.test} test images, arrays sha256 {facts.fingerprint}")


def _as_job(stage: str, do: Callable[[jobs.Job, int], None]) -> Callable[[argparse.Namespace], None]:
    """A command that does its work on a shard as one job: recorded, alone on its device, with torch ready."""

    def run(chosen: argparse.Namespace) -> None:
        planned, shard = _shard(chosen)
        digests = {"train": stages.shard_digest, "measure": stages.measures_digest}
        _unchanged(chosen, digests[stage](planned, shard))
        with jobs.recorded(planned, stage, shard) as job, work.on_device(job):
            do(job, chosen.tries_left)

    return run


def _shard(chosen: argparse.Namespace) -> tuple[Plan, Shard]:
    """The shard that a job was asked for."""
    planned = loading.planned(chosen.study)
    shard = planned.shard(chosen.shard)
    return planned, shard


def _unchanged(chosen: argparse.Namespace, found: str) -> None:
    # Snakemake records what the study asked when it started; a job reads the file when its turn comes.
    if chosen.expect not in (None, found):
        raise InputError(f"{chosen.study} was edited while it was run; run it again")


def _parts(planned: Plan, kind: str, whole: bool) -> list["pd.DataFrame"]:
    """The shards' parts of a table. Raises InputError when one is not there and the `whole` study is asked for."""
    from deltaball.tables import frames

    paths = [jobs.part(planned, shard, kind) for shard in planned.shards]
    # Snakemake has seen every part; but a job that another Snakemake left behind may be writing its own anew.
    missing = [path for path in paths if not path.exists()]
    if missing and whole:
        raise InputError(f"{missing[0]} is not there, nor {len(missing) - 1} more; run again, or `deltaball collect`")
    return [frames.read(path) for path in paths if path.exists()]


def _networks(chosen: argparse.Namespace, whole: bool = True) -> None:
    from deltaball.tables import frames

    planned = loading.planned(chosen.study)
    table = frames.networks(planned, _parts(planned, "trained", whole), jobs.lost(planned))
    frames.write(table, planned.study.folder / "networks.parquet")
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().items())
    print(f"{planned.study.folder / 'networks.parquet'}: {len(table)} networks ({counts})")


def _robustness(chosen: argparse.Namespace, whole: bool = True) -> None:
    from deltaball.estimation import convergence, curves
    from deltaball.tables import frames

    planned = loading.planned(chosen.study)
    folder = planned.study.folder
    table = frames.robustness(planned, _parts(planned, "measured", whole))
    outcomes = frames.outcomes(planned, _parts(planned, "outcomes", whole))
    frames.write(outcomes, folder / "outcomes.parquet")
    frames.write(curves.curves(planned, outcomes), folder / "curves.parquet")
    frames.write(convergence.convergence(planned, outcomes), folder / "convergence.parquet")
    frames.write(table, folder / "robustness.parquet")
    print(f"{planned.study.folder / 'robustness.parquet'}: {len(table)} estimates")


def _analyse(chosen: argparse.Namespace) -> None:
    from deltaball.analysis import writing

    writing.write_tables(loading.planned(chosen.study))


def _figures(chosen: argparse.Namespace) -> None:
    from deltaball.figures import drawing

    drawing.draw(loading.planned(chosen.study))


def _report(chosen: argparse.Namespace) -> None:
    from deltaball.report import page

    print(page.write(loading.planned(chosen.study), chosen.study))


def _run(chosen: argparse.Namespace) -> None:
    from deltaball.run import devices, limited, merging
    from deltaball.workflow import launch

    began = time.monotonic()
    limit = limited.seconds(chosen.time_limit) if chosen.time_limit else None
    planned = loading.planned(chosen.study)
    device = chosen.device or planned.study.compute.device
    compute = {"device": device, "shard_minutes": limited.shard_minutes(planned, limit)}
    planned = plan(planned.study.model_copy(update={"compute": planned.study.compute.model_copy(update=compute)}))
    folder = planned.study.folder
    do, trained = {"train": work.train, "measure": work.measure}, []

    def job(stage: str, shard: Shard) -> None:
        log = jobs.log(planned, stage, shard.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("a") as said,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            jobs.recorded(planned, stage, shard) as job,
            work.on_device(job),
        ):
            do[stage](job, 0)
        if stage == "train":
            trained.append(shard.id)

    # One device for all jobs, because CUDA is started once.
    with launch.claim(), devices.held() if device == "cuda" else contextlib.nullcontext():
        libraries.prepare_torch(device)
        launch.check_writable(folder)
        there = [merging.of_folder(folder)] if (folder / "networks.parquet").exists() else []
        finished = merging.finished_shards(planned, there[0]) if there else set()
        shards = [one for one in _shards_of(planned, chosen.grids) if one.id not in finished]
        # Keras takes its backend when it is imported.
        if any(METHODS[one.method].on_jax for shard in shards for one in shard.trajectories):
            libraries.prepare_jax()
        # Reading the tables took this long, and so may writing them.
        reserve = 2 * (time.monotonic() - began) + 1
        ended = limited.Ended()
        try:
            limited.run(planned, shards, job, ended, limit and limit - reserve, began)
        finally:
            parts = [merging.of_shard(planned, planned.shards[one]) for one in trained]
            failures = {
                network.id: f"its shard failed: {reason}"
                for shard, reason in ended.failed.items()
                for network in planned.networks_of(planned.shards[shard].trajectories)
            }
            _merged(planned, chosen.study, [*there, *parts, merging.of_failures(failures)])
    if ended.left:
        print(f"{len(ended.left)} of {len(shards)} shards are left; the same command goes on from here")
    if ended.failed:
        raise InputError(f"{len(ended.failed)} shards failed, {next(iter(ended.failed))} first; see {folder / 'logs'}")


def _shards_of(planned: Plan, grids: Sequence[str]) -> list[Shard]:
    """The shards that hold networks of these grids; all if none is named."""
    from deltaball.base.errors import alternatives

    known = [grid.name for grid in planned.study.grids]
    for one in grids:
        if one not in known:
            raise InputError(f"--grids {one}: the study has no such grid; {alternatives(one, known)}")
    wanted = {network.trajectory_id for network in planned.networks if not grids or network.grid in grids}
    return [shard for shard in planned.shards.values() if any(one.id in wanted for one in shard.trajectories)]


def _merge(chosen: argparse.Namespace) -> None:
    from deltaball.run import merging
    from deltaball.workflow import launch

    planned = loading.planned(chosen.study)
    folder = planned.study.folder
    with launch.claim():
        launch.check_writable(folder)
        own = [folder] if (folder / "networks.parquet").exists() else []
        others = [one for one in chosen.folders if one.resolve() != folder.resolve()]
        if not own and not others:
            raise InputError(f"{folder} has no tables yet, and no other FOLDER is given")
        pieces = [merging.of_folder(one) for one in [*own, *others]]
        _merged(planned, chosen.study, pieces, jobs.records_in(folder, *others))


def _merged(planned: Plan, study: Path, pieces: Sequence["Piece"], records: Sequence[Mapping[str, Any]] = ()) -> None:
    from deltaball.run import merging, provenance

    found = merging.merged(planned, pieces)
    merging.write(planned, found, records)
    provenance.write(planned, study)
    counts = ", ".join(f"{count} {status}" for status, count in found["networks"]["status"].value_counts().items())
    print(f"{planned.study.folder}: {len(found['networks'])} networks ({counts}), {len(found['robustness'])} estimates")


def _provenance(chosen: argparse.Namespace) -> None:
    from deltaball.run import provenance

    print(provenance.write(loading.planned(chosen.study), chosen.study))


def _collect(chosen: argparse.Namespace) -> None:
    _networks(chosen, whole=False)
    _robustness(chosen, whole=False)
    _provenance(chosen)
    _redraw(chosen)
    # Tables older than their parts: Snakemake makes them again, and for that what is missing.
    for name in ("networks", "robustness", "outcomes"):
        os.utime(loading.planned(chosen.study).study.folder / f"{name}.parquet", (0, 0))


def _redraw(chosen: argparse.Namespace) -> None:
    _analyse(chosen)
    _figures(chosen)
    _report(chosen)


def _export(chosen: argparse.Namespace) -> None:
    from deltaball.base.errors import alternatives
    from deltaball.networks.keras_models import keras_model

    planned = loading.planned(chosen.study)
    network = next((one for one in planned.networks if one.id == chosen.network), None)
    if network is None:
        raise InputError(
            f"{chosen.study} plans no network '{chosen.network}'; "
            f"{alternatives(chosen.network, [one.id for one in planned.networks])}"
        )
    output = chosen.output or Path(f"{network.id}.keras")
    if output.suffix != ".keras":
        raise InputError(f"--output {output}: should end in .keras")
    checkpoint = _store(planned).find(network.trajectory_id, network.checkpoint)
    if checkpoint is None or not checkpoint.weights:
        raise InputError(
            f"network {network.id} has no weights in {planned.study.store}; "
            f"run `deltaball train --study {chosen.study} {planned.shard_of[network.trajectory_id]}`, "
            f"with weights: keep for grid '{network.grid}'"
        )
    if METHODS[network.method].averages_samples:
        raise InputError(f"network {network.id} is a mean over a chain's samples, which one .keras file cannot hold")
    model = keras_model(planned.layers(network), planned.facts[network.dataset].shape)
    model.set_weights(checkpoint.weights)
    from deltaball.base.files import written_whole

    with written_whole(output) as path:
        model.save(path)
    print(output)


def _samples(chosen: argparse.Namespace) -> None:
    from deltaball.estimation import sample_sizes

    print("\n".join(sample_sizes.lines(chosen.epsilon, chosen.confidence, chosen.networks, chosen.low, chosen.high)))


def _schema(chosen: argparse.Namespace) -> None:
    print(json.dumps(schema.schema(), indent=2))
