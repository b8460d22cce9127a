"""The command line: what can be asked, and how it ends."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import deltaball
from deltaball.base import environment, signals
from deltaball.base.errors import InputError, system_message
from deltaball.cli import commands, file_options
from deltaball.plan import loading

# What they have done when they are stopped, they do not do again.
GOES_ON = (commands.study, commands.run, commands.train, commands.measure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, or 2 after a line that says what the user can mend.

    Where a signal stopped it, 128 and the signal's number, as shells tell it.
    """
    environment.pin()
    given = _parser().parse_args(arguments)
    try:
        with signals.heeded():
            if getattr(given, "set", ()) and given.run is not commands.plan:
                given.study = loading.with_settings(given.study, given.set)
            given.run(given)
    except signals.Stopped as stopped:
        print("stopped; the same command goes on" if given.run in GOES_ON else "stopped", file=sys.stderr)
        return stopped.status
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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        if name not in ("samples", "schema", "measure-file", "gtsrb", "demogen", "corruptions"):
            added.add_argument(
                "--study", type=Path, default=Path("config.yaml"), metavar="FILE", help="default: config.yaml"
            )
            added.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="another value for a key of the study, such as grids.0.epochs=[5,10]; may be given several times",
            )
        return added

    study = command("study", commands.study, "run the whole study on this machine, with Snakemake")
    study.add_argument("--verbose", action="store_true", help="show what Snakemake says, instead of one line")
    plan = command("plan", commands.plan, "print what the study would train and measure, and what it costs")
    plan.add_argument("--shards", action="store_true", help="list the shards too")
    calibrate = command("calibrate", commands.calibrate, "measure what training takes here, for the plan's estimates")
    calibrate.add_argument("--device", choices=("cpu", "cuda"), help="default: the study's")
    calibrate.add_argument("--time-limit", metavar="TIME", help="such as 2m, after which no other pack is measured")
    command("data", commands.data, "prepare a data set in the store").add_argument("dataset")
    command("autoencoder", commands.autoencoder, "train an auto-encoder of the study").add_argument("name")
    gtsrb = command("gtsrb", commands.gtsrb, "make the data sets of GTSRB, with splits by track, in the data folder")
    gtsrb.add_argument(
        "source",
        nargs="?",
        type=Path,
        metavar="SOURCE",
        help="an .npz with track_train, or a folder of the benchmark's unpacked archives; default: the data folder's "
        "gtsrb.npz, or else the archives are downloaded from sid.erda.dk, 354 MB",
    )
    gtsrb.add_argument("--data", type=Path, default=Path("data"), metavar="FOLDER", help="default: data")
    gtsrb.add_argument(
        "--size", type=int, default=48, metavar="PIXELS", help="side of the images made from archives; default: 48"
    )
    corruptions = command("corruptions", commands.corruptions, "draw a data set's images under every corruption")
    corruptions.add_argument("dataset")
    corruptions.add_argument("--data", type=Path, default=Path("data"), metavar="FOLDER", help="default: data")
    corruptions.add_argument(
        "--output", type=Path, metavar="FILE", help="a picture (.png, .svg or .pdf); default: DATASET-corruptions.png"
    )
    demogen = command("demogen", commands.demogen, "make files for a study of DEMOGEN's networks of TensorFlow")
    demogen.add_argument("source", type=Path, metavar="SOURCE", help="where demogen_models.tar.gz (16 GB) was unpacked")
    demogen.add_argument("target", type=Path, metavar="FOLDER", help="such as zoo")
    _add_shard(command("train", commands.train, "train what the store lacks of a shard"))
    _add_shard(command("measure", commands.measure, "measure what the store lacks of a shard"))
    command("networks", commands.networks, "collect the shards' rows in networks.parquet")
    command("robustness", commands.robustness, "collect the shards' rows in robustness.parquet and outcomes.parquet")
    command("analyse", commands.analyse, "write the statistical tables")
    command("figures", commands.figures, "draw the figures")
    command(
        "examples",
        commands.examples,
        "draw test points of a few networks, and what attacks made of them, for the report",
    )
    command("report", commands.report, "write the report page, and the findings as README.md")
    run = command("run", commands.run, "train and measure on this machine without Snakemake, as much as fits in a time")
    run.add_argument("--grids", nargs="+", default=[], metavar="GRID", help="default: all")
    run.add_argument(
        "--sample",
        type=int,
        metavar="NETWORKS",
        help="of each grid only so many, drawn by chance; a larger number adds to a smaller one's",
    )
    run.add_argument("--device", choices=("cpu", "cuda"), help="default: the study's")
    run.add_argument("--time-limit", metavar="TIME", help="such as 9m; the same command goes on from there")
    merge = command("merge", commands.merge, "combine results folders of the same study with the one that is here")
    merge.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="such as elsewhere/results/paper")
    command(
        "provenance",
        commands.provenance,
        "write where the tables come from: code, hardware, data, time, what is missing",
    )
    command("complete", commands.complete, "check that the tables have every row that the study asks for")
    command(
        "collect", commands.collect, "tables and report of what is there, where an unfinished study left something out"
    )
    command("redraw", commands.redraw, "statistics, figures and report from the tables alone; trains nothing")
    file_options.add(
        command("measure-file", commands.measure_file, "measure one network of a file at once, without a study")
    )
    export = command("export", commands.export, "write one network as a .keras file")
    export.add_argument("network", help="its id in networks.parquet")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: ID.keras")
    _add_guarantee(
        command("samples", commands.samples, "print how many test points a guarantee needs, by several inequalities")
    )
    command("schema", commands.schema, "print the JSON schema of a study file")
    return parser


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shard", help="an id that the plan lists with --shards")
    parser.add_argument("--expect", metavar="DIGEST", help="refuse if the study asks something else by now")
    parser.add_argument(
        "--tries-left",
        type=int,
        default=0,
        metavar="N",
        help="fail for a network that fails, because the job is tried N times more; with 0 (the default) "
        "that network's rows say so",
    )


def _add_guarantee(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epsilon", type=float, required=True, help="the error, in the outcomes' unit")
    parser.add_argument("--confidence", type=float, required=True)
    parser.add_argument("--networks", type=int, default=1, help="how many estimates shall hold at once; default: 1")
    parser.add_argument("--low", type=float, default=0.0, help="the least an outcome can be; default: 0")
    parser.add_argument("--high", type=float, default=1.0, help="the most an outcome can be; default: 1")
