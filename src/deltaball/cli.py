"""The command line: one command per stage. The only room in which training and estimation meet."""

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import deltaball
from deltaball import jobs, stages, study_file
from deltaball.errors import InputError
from deltaball.plan import Measure, Plan, Shard, Trajectory, plan

if TYPE_CHECKING:
    import pandas as pd

    from deltaball.datasets import Dataset
    from deltaball.merging import Piece
    from deltaball.store import Store

TRAINING = {"sgd": "sgd", "imp": "pruning", "hmc": "hmc"}  # the room of each method


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
        print(f"deltaball: {_spoken(problem)}", file=sys.stderr)
        return 2
    return 0


def _spoken(problem: OSError) -> str:
    where = f"{problem.filename}: " if problem.filename else ""
    return f"{where}{problem.strerror or problem}"


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
    command("data", _data, "prepare a data set in the store").add_argument("dataset")
    for name, run, summary in (
        ("train", _as_job("train", _train), "train what the store lacks of a shard"),
        ("measure", _as_job("measure", _measure), "measure what the store lacks of a shard"),
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
    from deltaball import devices, launch, preview

    planned = stages.planned(chosen.study)
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
    from deltaball import preview

    planned = stages.planned(chosen.study)
    print("\n".join(preview.lines(planned, _store(planned))))
    if chosen.shards:
        print("\n".join(preview.shards(planned)))


def _store(planned: Plan) -> "Store":
    from deltaball.store import Store

    return Store(planned.study.store)


def _data(chosen: argparse.Namespace) -> None:
    from deltaball import datasets
    from deltaball.errors import alternatives
    from deltaball.store import written_whole

    planned = stages.planned(chosen.study)
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


def _as_job(stage: str, work: Callable[[jobs.Job, int], None]) -> Callable[[argparse.Namespace], None]:
    """A command that does `work` on a shard as one job: recorded, alone on its device, with torch ready."""

    def run(chosen: argparse.Namespace) -> None:
        planned, shard = _shard(chosen)
        digests = {"train": stages.shard_digest, "measure": stages.measures_digest}
        _unchanged(chosen, digests[stage](planned, shard))
        with jobs.recorded(planned, stage, shard) as job, _device(job):
            work(job, chosen.tries_left)

    return run


@contextlib.contextmanager
def _device(job: jobs.Job) -> Iterator[None]:
    from deltaball import devices

    kind, asked = job.plan.study.compute.device, time.monotonic()
    with devices.held() if kind == "cuda" else contextlib.nullcontext():
        job.waited = time.monotonic() - asked
        torch = _prepare_torch(kind)
        if any(one.method == "hmc" for one in job.shard.trajectories):
            _prepare_jax()
        job.device = torch.cuda.get_device_name() if kind == "cuda" else platform.machine()
        try:
            yield
        except OSError as problem:
            raise InputError(f"shard {job.shard.id}: {_spoken(problem)}") from None
        finally:
            if kind == "cuda":
                job.device_memory_mb = round(torch.cuda.max_memory_allocated() / 2**20)


def _train(job: jobs.Job, tries_left: int) -> None:
    planned, shard = job.plan, job.shard
    from deltaball import tables

    store, _ = _trained(job)
    table = tables.trained(planned, shard.trajectories, store, job.failures)
    job.judged(tries_left, made=int((table["status"] != "failed").sum()))
    tables.write(table, jobs.part(planned, shard.id, "trained"))


def _shard(chosen: argparse.Namespace) -> tuple[Plan, Shard]:
    """The shard that a job was asked for."""
    planned = stages.planned(chosen.study)
    shard = planned.shard(chosen.shard)
    return planned, shard


def _unchanged(chosen: argparse.Namespace, found: str) -> None:
    # Snakemake records what the study asked when it started; a job reads the file when its turn comes.
    if chosen.expect not in (None, found):
        raise InputError(f"{chosen.study} was edited while it was run; run it again")


def _trained(job: jobs.Job) -> tuple["Store", "Dataset"]:
    """The store with everything of a shard trained, and its data; trains nothing that is there already.

    What failed for good when the shard was trained is not tried again by the job that measures it.
    """
    from deltaball.store import EvictedError

    planned, shard = job.plan, job.shard
    store, facts = _store(planned), planned.facts[shard.dataset]
    if not store.has_dataset(facts):  # the store was emptied, or the study moved here, since it was prepared
        from deltaball import datasets

        store.save_dataset(datasets.load(facts.name, Path(planned.study.data)))
    dataset = store.load_dataset(facts)

    def train(pack: Sequence[Trajectory]) -> int:
        return _trained_pack(planned, pack, dataset, store)

    settled = _given_up(job) if job.stage == "measure" else set()
    for trunks in _trunks(planned, shard):
        job.isolated(trunks, train)
    if planned.evicts(shard):
        measure = _Measuring(planned, shard, dataset, store)
        settled |= {one.id for one in shard.trajectories if measure.is_complete([one])}

        def train(pack: Sequence[Trajectory]) -> int:  # what the disk has to hold is the weights of a pack
            trained = _trained_pack(planned, pack, dataset, store)
            try:
                measure(pack)
            except EvictedError:  # another job of this shard was first, in this very moment
                _trained_pack(planned, pack, dataset, store)
                measure(pack)
            for one in pack:
                store.evict(one.id)
            return trained

    trained = 0
    for number, pack in enumerate(shard.packs, 1):
        print(f"pack {number} of {len(shard.packs)}: {len(pack)} trajectories of {pack[0].method}", flush=True)
        trained += job.isolated([one for one in pack if one.id not in settled], train)
    networks = sum(store.has(one.id, step) for one in shard.trajectories for step in one.checkpoints)
    print(f"shard {shard.id}: trained {trained} networks, found {networks - trained} in the store", flush=True)
    return store, dataset


def _given_up(job: jobs.Job) -> set[str]:
    """The trajectories that failed when the shard was trained."""
    from deltaball import tables

    path = jobs.part(job.plan, job.shard.id, "trained")
    table = tables.read(path) if path.exists() else None
    failed = set() if table is None else {*table["network_id"][table["status"] == "failed"]}
    return {one.trajectory_id for one in job.plan.networks if one.id in failed}


def _trained_pack(planned: Plan, pack: Sequence[Trajectory], dataset: "Dataset", store: "Store") -> int:
    """Train what the store lacks of a pack, and first of what it is pruned from; returns how many of the pack."""
    lacking = [one.parent for one in pack if one.parent and not all(store.has(one.id, at) for at in one.checkpoints)]
    for parents in planned.packed(parent for parent in lacking if not store.has(*parent)):
        _trained_pack(planned, parents, dataset, store)
    room = importlib.import_module(f"deltaball.training.{TRAINING[pack[0].method]}")
    return room.train(pack, planned.layers(pack[0]), dataset, store, planned.study.compute.device)


def _trunks(planned: Plan, shard: Shard) -> list[tuple[Trajectory, ...]]:
    """Packs of the dense checkpoints that the shard's pruned networks are compared with, where others train them."""
    own = {one.id for one in shard.trajectories}
    trunks = {one.trunk for one in planned.networks_of(shard.trajectories) if one.trunk and one.trunk[0] not in own}
    return planned.packed(trunks)


class _Measuring:
    """What is to be measured of a shard's networks and the trunks they are compared with; called on a pack of them."""

    def __init__(self, planned: Plan, shard: Shard, dataset: "Dataset", store: "Store") -> None:
        from deltaball.estimation import estimate

        self.room, self.planned, self.store = estimate, planned, store
        self.asked, self.seed = _asked(planned, shard), planned.study.guarantee.seed
        samples = max((count for wanted in self.asked.values() for count in wanted.values()), default=0)
        self.images = dataset.x_test[estimate.draw_points(dataset.facts, samples, self.seed)]

    def _asked_of(self, pack: Sequence[Trajectory]) -> dict[tuple[str, int], dict[Measure, int]]:
        places = [(one.id, step) for one in pack for step in one.checkpoints]
        return {place: self.asked[place] for place in places if place in self.asked}

    def is_complete(self, pack: Sequence[Trajectory]) -> bool:
        """Whether all of a pack is there and was measured before, so that its weights are not needed."""
        there = all(self.store.has(one.id, step) for one in pack for step in one.checkpoints)
        return there and self.room.is_complete(self._asked_of(pack), self.seed, self.store)

    def __call__(self, pack: Sequence[Trajectory]) -> int:
        device, layers = self.planned.study.compute.device, self.planned.layers(pack[0])
        chains = pack[0].method == "hmc"
        return self.room.measure(self._asked_of(pack), layers, self.images, self.seed, self.store, device, chains)


def _measure(job: jobs.Job, tries_left: int) -> None:
    planned, shard = job.plan, job.shard
    from deltaball import tables
    from deltaball.estimation import estimate

    # Whatever the store lost since it was trained (a damaged file) is trained again first.
    store, dataset = _trained(job)
    measure = _Measuring(planned, shard, dataset, store)
    there = [place for place in measure.asked if store.has(*place)]
    computed = sum(job.isolated(pack, measure) for pack in planned.packed(there))
    print(f"shard {shard.id}: computed {computed:,} outcomes (network × measure × point)", flush=True)
    robustness, outcomes = estimate.estimates(planned, shard.trajectories, store)
    job.judged(tries_left, made=len(robustness))
    tables.write(outcomes, jobs.part(planned, shard.id, "outcomes"))
    tables.write(robustness, jobs.part(planned, shard.id, "measured"))


def _asked(planned: Plan, shard: Shard) -> dict[tuple[str, int], dict[Measure, int]]:
    """What is to be measured of each checkpoint of a shard, and on how many points.

    Not every checkpoint is a network (a round of pruning on the way is none), and trunks are compared with.
    """
    asked: dict[tuple[str, int], dict[Measure, int]] = {}
    for network in planned.networks_of(shard.trajectories):
        wanted = planned.asked_of(network)
        for place in [(network.trajectory_id, network.checkpoint), *([network.trunk] if network.trunk else [])]:
            known = asked.setdefault(place, {})
            known |= {one: max(count, known.get(one, 0)) for one, count in wanted.items()}
    return {place: wanted for place, wanted in asked.items() if wanted}


def _parts(planned: Plan, kind: str, whole: bool) -> list["pd.DataFrame"]:
    """The shards' parts of a table. Raises InputError when one is not there and the `whole` study is asked for."""
    from deltaball import tables

    paths = [jobs.part(planned, shard, kind) for shard in planned.shards]
    # Snakemake has seen every part; but a job that another Snakemake left behind may be writing its own anew.
    missing = [path for path in paths if not path.exists()]
    if missing and whole:
        raise InputError(f"{missing[0]} is not there, nor {len(missing) - 1} more; run again, or `deltaball collect`")
    return [tables.read(path) for path in paths if path.exists()]


def _networks(chosen: argparse.Namespace, whole: bool = True) -> None:
    from deltaball import tables

    planned = stages.planned(chosen.study)
    table = tables.networks(planned, _parts(planned, "trained", whole), jobs.lost(planned))
    tables.write(table, planned.study.folder / "networks.parquet")
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().items())
    print(f"{planned.study.folder / 'networks.parquet'}: {len(table)} networks ({counts})")


def _robustness(chosen: argparse.Namespace, whole: bool = True) -> None:
    from deltaball import tables
    from deltaball.estimation import convergence, curves

    planned = stages.planned(chosen.study)
    folder = planned.study.folder
    table = tables.robustness(planned, _parts(planned, "measured", whole))
    outcomes = tables.outcomes(planned, _parts(planned, "outcomes", whole))
    tables.write(outcomes, folder / "outcomes.parquet")
    tables.write(curves.curves(planned, outcomes), folder / "curves.parquet")
    tables.write(convergence.convergence(planned, outcomes), folder / "convergence.parquet")
    tables.write(table, folder / "robustness.parquet")
    print(f"{planned.study.folder / 'robustness.parquet'}: {len(table)} estimates")


def _analyse(chosen: argparse.Namespace) -> None:
    from deltaball import analysis

    analysis.write_tables(stages.planned(chosen.study))


def _figures(chosen: argparse.Namespace) -> None:
    from deltaball import figures

    figures.draw(stages.planned(chosen.study))


def _report(chosen: argparse.Namespace) -> None:
    from deltaball import report

    print(report.write(stages.planned(chosen.study), chosen.study))


def _run(chosen: argparse.Namespace) -> None:
    from deltaball import devices, launch, merging, running

    began = time.monotonic()
    limit = running.seconds(chosen.time_limit) if chosen.time_limit else None
    planned = stages.planned(chosen.study)
    device = chosen.device or planned.study.compute.device
    compute = {"device": device, "shard_minutes": running.shard_minutes(planned, limit)}
    planned = plan(planned.study.model_copy(update={"compute": planned.study.compute.model_copy(update=compute)}))
    folder = planned.study.folder
    work, trained = {"train": _train, "measure": _measure}, []

    def job(stage: str, shard: Shard) -> None:
        log = jobs.log(planned, stage, shard.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("a") as said,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            jobs.recorded(planned, stage, shard) as job,
            _device(job),
        ):
            work[stage](job, 0)
        if stage == "train":
            trained.append(shard.id)

    # One device for all jobs, because CUDA is started once.
    with launch.claim(), devices.held() if device == "cuda" else contextlib.nullcontext():
        _prepare_torch(device)
        launch.check_writable(folder)
        there = [merging.of_folder(folder)] if (folder / "networks.parquet").exists() else []
        finished = merging.finished_shards(planned, there[0]) if there else set()
        shards = [one for one in _shards_of(planned, chosen.grids) if one.id not in finished]
        # Keras takes its backend when it is imported.
        if any(one.method == "hmc" for shard in shards for one in shard.trajectories):
            _prepare_jax()
        # Reading the tables took this long, and so may writing them.
        reserve = 2 * (time.monotonic() - began) + 1
        ended = running.Ended()
        try:
            running.run(planned, shards, job, ended, limit and limit - reserve, began)
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
    from deltaball.errors import alternatives

    known = [grid.name for grid in planned.study.grids]
    for one in grids:
        if one not in known:
            raise InputError(f"--grids {one}: the study has no such grid; {alternatives(one, known)}")
    wanted = {network.trajectory_id for network in planned.networks if not grids or network.grid in grids}
    return [shard for shard in planned.shards.values() if any(one.id in wanted for one in shard.trajectories)]


def _merge(chosen: argparse.Namespace) -> None:
    from deltaball import launch, merging

    planned = stages.planned(chosen.study)
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
    from deltaball import merging, provenance

    found = merging.merged(planned, pieces)
    merging.write(planned, found, records)
    provenance.write(planned, study)
    counts = ", ".join(f"{count} {status}" for status, count in found["networks"]["status"].value_counts().items())
    print(f"{planned.study.folder}: {len(found['networks'])} networks ({counts}), {len(found['robustness'])} estimates")


def _provenance(chosen: argparse.Namespace) -> None:
    from deltaball import provenance

    print(provenance.write(stages.planned(chosen.study), chosen.study))


def _collect(chosen: argparse.Namespace) -> None:
    _networks(chosen, whole=False)
    _robustness(chosen, whole=False)
    _provenance(chosen)
    _redraw(chosen)
    # Tables older than their parts: Snakemake makes them again, and for that what is missing.
    for name in ("networks", "robustness", "outcomes"):
        os.utime(stages.planned(chosen.study).study.folder / f"{name}.parquet", (0, 0))


def _redraw(chosen: argparse.Namespace) -> None:
    _analyse(chosen)
    _figures(chosen)
    _report(chosen)


def _export(chosen: argparse.Namespace) -> None:
    from deltaball.architectures import keras_model
    from deltaball.errors import alternatives

    planned = stages.planned(chosen.study)
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
    if network.method == "hmc":
        raise InputError(f"network {network.id} is a mean over a chain's samples, which one .keras file cannot hold")
    model = keras_model(planned.layers(network), planned.facts[network.dataset].shape)
    model.set_weights(checkpoint.weights)
    from deltaball.store import written_whole

    with written_whole(output) as path:
        model.save(path)
    print(output)


def _samples(chosen: argparse.Namespace) -> None:
    from deltaball import sampling

    print("\n".join(sampling.lines(chosen.epsilon, chosen.confidence, chosen.networks, chosen.low, chosen.high)))


def _schema(chosen: argparse.Namespace) -> None:
    print(json.dumps(study_file.schema(), indent=2))


def _prepare_torch(device: str) -> ModuleType:
    # One thread per job: two torch processes with two threads each on two cores run a hundred times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Without it MKL may round a product differently where its operands lie differently in memory, so that a network
    # would depend, in the last bit, on its place in a pack. It is read when torch is imported.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    import torch

    torch.set_num_threads(1)
    # Exactly float32 everywhere: by default convolutions on a GPU use TF32 and matrix products do not.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device is 'cuda' and torch finds no GPU here; set it to 'cpu' or run on a GPU node")
    return torch


def _prepare_jax() -> None:
    # Keras chooses its backend, and XLA its threads, when they are imported: one thread per job, like torch.
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    # JAX would take most of a GPU's memory at once, and torch measures in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
