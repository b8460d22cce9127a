"""The commands: each hands what was given to the room that does it, and prints what comes back.

Rooms are imported by the command that needs them, so that a small command starts at once, and so that torch and Keras
are set up before they are imported.
"""

import contextlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deltaball.base.errors import InputError
from deltaball.plan import loading

if TYPE_CHECKING:
    from deltaball.workflow.jobs import Job


def study(given: Namespace) -> None:
    from deltaball.run import pipeline

    status = pipeline.run(given.study, given.verbose)
    if status:
        sys.exit(status)


def plan(given: Namespace) -> None:
    from deltaball.run import preview
    from deltaball.store.store import Store

    planned = loading.planned(given.study, given.set)
    print("\n".join(preview.lines(planned, Store(planned.study.store))))
    if given.shards:
        print("\n".join(preview.shards(planned)))


def calibrate(given: Namespace) -> None:
    """Shards are cut by estimated minutes, so new rates give shards other ids.

    What is trained and measured is found in the store all the same, but a study that is under way would meet shards
    that it does not know: so not while one runs here.
    """
    from deltaball.run import devices, libraries, limited
    from deltaball.study import reading
    from deltaball.workflow import claims

    limit = limited.seconds(given.time_limit) if given.time_limit else None
    study = reading.load(given.study)
    device = given.device or study.compute.device
    with claims.claim(), devices.held(device):
        libraries.prepare_torch(device)
        libraries.prepare_jax()
        from deltaball.run import calibration

        print(calibration.calibrate(device, study.store, limit))
    print("shards are cut by them from now on; what is trained stays, and is found in the store")


def data(given: Namespace) -> None:
    from deltaball.run import preparing

    print(preparing.prepare(given.study, given.dataset))


def autoencoder(given: Namespace) -> None:
    from deltaball.run import devices, libraries

    planned = loading.planned(given.study)
    with devices.held(planned.study.compute.device):
        libraries.prepare_torch(planned.study.compute.device)
        from deltaball.run import autoencoding

        print(autoencoding.make(planned, given.name))


def demogen(given: Namespace) -> None:
    from deltaball.exchange import demogen

    print(f"{given.target}: {len(demogen.convert(given.source, given.target))} networks")


def corruptions(given: Namespace) -> None:
    from deltaball.run import corrupting

    print(corrupting.draw(given.dataset, given.data, given.output))


def gtsrb(given: Namespace) -> None:
    from deltaball.run import preparing

    for line in preparing.gtsrb(given.source, given.data, given.size):
        print(line, flush=True)


def train(given: Namespace) -> None:
    with _job("train", given) as job:
        from deltaball.run import work

        work.train(job, given.tries_left)


def measure(given: Namespace) -> None:
    with _job("measure", given) as job:
        from deltaball.run import work

        work.measure(job, given.tries_left)


def networks(given: Namespace) -> None:
    from deltaball.run import rows

    print(rows.collect_networks(loading.planned(given.study)))


def robustness(given: Namespace) -> None:
    from deltaball.run import rows

    print(rows.collect_robustness(loading.planned(given.study)))


def analyse(given: Namespace) -> None:
    from deltaball.analysis import writing

    writing.write_tables(loading.planned(given.study))


def figures(given: Namespace) -> None:
    from deltaball.figures import drawing

    drawing.draw(loading.planned(given.study))


def examples(given: Namespace) -> None:
    from deltaball.run.libraries import prepare_torch

    prepare_torch("cpu")
    from deltaball.run import examples

    print(examples.write(loading.planned(given.study)))


def report(given: Namespace) -> None:
    from deltaball.report import page, readme

    plan = loading.planned(given.study)
    print(readme.write(plan))
    print(page.write(plan, given.study))


def run(given: Namespace) -> None:
    from deltaball.run import in_process

    in_process.run(given.study, given.grids, given.device, given.time_limit, given.sample)


def merge(given: Namespace) -> None:
    from deltaball.run import merging

    print(merging.merge_folders(loading.planned(given.study), given.study, given.folders))


def provenance(given: Namespace) -> None:
    from deltaball.run import provenance

    print(provenance.write(loading.planned(given.study), given.study))


def complete(given: Namespace) -> None:
    from deltaball.run import completeness

    print(completeness.check(loading.planned(given.study)))


def collect(given: Namespace) -> None:
    from deltaball.run import collecting

    collecting.collect(loading.planned(given.study), given.study)


def redraw(given: Namespace) -> None:
    from deltaball.run import collecting

    collecting.redraw(loading.planned(given.study), given.study)


def export(given: Namespace) -> None:
    from deltaball.run import exporting

    print(exporting.export(given.study, given.network, given.output))


def measure_file(given: Namespace) -> None:
    from deltaball.run import libraries

    libraries.prepare_torch(given.device)
    from deltaball.cli import file_options
    from deltaball.run import measured_file

    report = measured_file.measured(file_options.request(given))
    print(measured_file.text(report))
    if given.json:
        measured_file.write(report, given.json)


def samples(given: Namespace) -> None:
    from deltaball.estimation import sample_sizes

    print("\n".join(sample_sizes.lines(given.epsilon, given.confidence, given.networks, given.low, given.high)))


def schema(given: Namespace) -> None:
    from deltaball.study import schema

    print(json.dumps(schema.schema(), indent=2))


@contextlib.contextmanager
def _job(stage: str, given: Namespace) -> Iterator["Job"]:
    """A job on the shard that was asked for: recorded, alone on its device, with torch ready."""
    from deltaball.run import devices
    from deltaball.workflow import jobs, stages

    planned = loading.planned(given.study)
    shard = planned.shard(given.shard)
    digest = {"train": stages.shard_digest, "measure": stages.measures_digest}[stage]
    # Snakemake records what the study asked when it started; a job reads the file when its turn comes.
    if given.expect not in (None, digest(planned, shard)):
        raise InputError(f"{given.study} was edited while it was run; run it again")
    with jobs.recorded(planned, stage, shard) as job, devices.ready(job):
        yield job
