"""The whole study on this machine, with Snakemake."""

import sys
from pathlib import Path

from deltaball.plan import loading
from deltaball.report import findings
from deltaball.run import completeness, devices, preparing, preview
from deltaball.store.store import Store
from deltaball.workflow import launch
from deltaball.workflow.watching import Watch


def run(study: Path, verbose: bool = False) -> int:
    """Run Snakemake on a study file; returns its exit status. What fails in part is collected all the same.

    One line says how far it is, and what Snakemake says goes to a file; with `verbose` it is shown instead.
    """
    planned = loading.planned(study)
    store = Store(planned.study.store)
    preparing.check_there(planned, store, planned.networks)
    quiet = ["--quiet", "host", "reason"]
    resumed = ["--cores", "all", "--rerun-incomplete", "--keep-going", "--show-failed-logs"]
    if planned.study.compute.device == "cuda":
        resumed += ["--resources", f"gpu={max(1, len(devices.listed()))}"]
    before, estimates = preview.in_store(planned, store), completeness.estimates_there(planned)
    watch = None if verbose else Watch(planned, store.has, sys.stdout, planned.study.folder / "logs/snakemake.log")
    status = launch.snakemake([*resumed, *quiet, "--configfile", str(study)], watch=watch)
    if watch:
        watch.close(failed=status != 0 and not launch.was_stopped(status))
    after = preview.in_store(planned, store)
    if launch.was_stopped(status):
        trained = f"{len(after):,} of {len(planned.networks):,} networks are trained"
        print(f"stopped; the same command goes on ({trained})", file=sys.stderr)
        return status
    print(f"{len(planned.networks)} networks planned: {len(before)} were there, {len(after - before)} trained now")
    now = completeness.estimates_there(planned)
    print(f"{len(now)} estimates of them: {len(now & estimates)} were there, {len(now - estimates)} measured now")
    if status:
        launch.collect(planned, study)
        return status
    print("\n".join(findings.lines(planned)))
    print(f"the report is {(planned.study.folder / 'report.html').resolve()}")
    return 0
