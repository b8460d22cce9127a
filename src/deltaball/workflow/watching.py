"""How far a study is, on one line: read off what Snakemake says, which goes to a file, and off what is on disk.

On a terminal the line moves; in a log it is written anew now and then.
"""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from deltaball.base.wording import duration
from deltaball.plan.plan import Plan
from deltaball.workflow import jobs, resources

EVERY = {True: 0.5, False: 30.0}  # seconds between two lines, by whether a terminal shows them
IN_PLACE = "\r\x1b[K"  # to the start of the line, which is erased
OURS = "deltaball: "  # what begins like this is meant for the reader and not for the log alone
STARTING, TABLES_LAST = 0.1, 1.0  # minutes: of each job before it works, and of statistics, figures and report
TELLING = 0.03  # share of the work from which on its own pace says more than the plan's estimates
MAKING = {
    "analyse": "statistics",
    "figures": "figures",
    "examples": "images",
    "report": "the report",
    "networks": "tables",
    "measures": "tables",
}
LAST_LINES = 15  # of Snakemake's log, where a run failed and nothing else says why


class Watch:
    """Follows one run of Snakemake. `hear` takes its lines, from any thread; `tick` shows how far it is.

    `trained` says of a trajectory and checkpoint whether the store has it.
    """

    def __init__(self, plan: Plan, trained: Callable[[str, int], bool], out: TextIO, log: Path) -> None:
        self.plan, self.trained, self.out = plan, trained, out
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log.open("w", encoding="utf-8")
        self.lock = threading.Lock()
        self.terminal = out.isatty()
        self.began = time.monotonic()
        self.shown = self.began if not self.terminal else 0.0
        self.step, self.steps = 0, 0
        self.rule, self.job = "", ""
        self.running: dict[str, tuple[str, str]] = {}  # rule and shard of a job
        self.last: list[str] = []
        self.told = 0  # lines for the reader
        self.muted = False
        self.done = {
            stage: {shard for shard in plan.shards if jobs.part(plan, shard, part).exists()}
            for stage, part in jobs.PARTS.items()
        }
        self.waiting = [one for one in plan.networks if not trained(one.trajectory_id, one.checkpoint)]
        self.first = len(plan.networks) - len(self.waiting), self._measured()
        self.minutes = {
            stage: {name: STARTING + minutes(shard) for name, shard in plan.shards.items()}
            for stage, minutes in (
                ("train", lambda shard: shard.minutes),
                ("measure", lambda shard: resources.measuring(plan, shard).minutes),
            )
        }
        self.work = self._left()

    def hear(self, line: str) -> None:
        """Take a line of Snakemake's."""
        with self.lock:
            self.log.write(line)
            self.log.flush()
            self.last = [*self.last, line][-LAST_LINES:]
            if line.startswith(OURS) and not self.muted:
                self.told += 1
                self._write(f"{IN_PLACE * self.terminal}{line}")
            self._follow(line)

    def tick(self) -> None:
        """Show how far the run is, where it is time to."""
        with self.lock:
            if not self.muted and time.monotonic() - self.shown >= EVERY[self.terminal]:
                self._show()

    def mute(self) -> None:
        """Show nothing more, because the run is being stopped; the log goes on."""
        with self.lock:
            self.muted = True
            self._write(f"{IN_PLACE}stopping …" if self.terminal else "")

    def close(self, failed: bool = False) -> None:
        """End the line, and where the run failed and nothing said why, give Snakemake's last lines."""
        with self.lock:
            self._write(IN_PLACE if self.terminal else "")
            if failed and not self.told:
                self._write("".join(self.last) + f"all that Snakemake said is in {self.log.name}\n")
            self.log.close()

    def line(self, columns: int) -> str:
        """What is shown, in at most so many letters: as much as fits."""
        self.waiting = [one for one in self.waiting if not self.trained(one.trajectory_id, one.checkpoint)]
        count = len(self.plan.networks)
        trained, measured = count - len(self.waiting), self._measured()
        tables = self._tables()
        if trained == count == measured or (tables and not self._at(*jobs.STAGES)):
            stage = tables or ("finishing" if 0 < self.steps == self.step else "getting ready")
            steps = f"step {self.step} of {self.steps}" if self.steps else ""
            variants = [f"{stage}: {steps}, {self._took()}", f"{stage}, {self._took()}", stage]
        else:
            numbers = f"{trained:,} of {count:,} networks trained, {measured:,} measured"
            short = f"{trained}/{count} trained, {measured} measured"
            rate, left = self._rate(trained, measured), f"{self._time_left()} left"
            stage = self._stage()
            variants = [f"{stage}: {numbers}, {rate}, {left}", f"{numbers}, {rate}, {left}", f"{numbers}, {left}"]
            variants += [f"{short}, {left}", f"{trained}/{count}, {left}", short]
        return next((text for text in variants if len(text) <= columns), variants[-1][:columns])

    def _show(self) -> None:
        self.shown = time.monotonic()
        columns = shutil.get_terminal_size().columns - 1 if self.terminal else 200
        text = self.line(columns)
        self._write(f"{IN_PLACE}{text}" if self.terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _follow(self, line: str) -> None:
        if started := re.match(r"(?:local)?(?:rule|checkpoint) (\w+):", line):
            self.rule, self.job = started[1], ""
        elif named := re.match(r"    jobid: (\d+)", line):
            self.job = named[1]
            self.running[self.job] = (self.rule, "")
        elif shard := re.match(r"    wildcards: .*shard=([^,\s]+)", line):
            self.running[self.job] = (self.rule, shard[1])
            self.done.get(self.rule, set()).discard(shard[1])
        elif ended := re.match(r"Finished jobid: (\d+)", line):
            rule, name = self.running.pop(ended[1], ("", ""))
            if name in self.plan.shards:
                self.done.get(rule, set()).add(name)
        elif steps := re.match(r"(\d+) of (\d+) steps", line):
            self.step, self.steps = int(steps[1]), int(steps[2])

    def _at(self, *rules: str) -> bool:
        return any(rule in rules for rule, _ in self.running.values())

    def _tables(self) -> str:
        names = [name for rule, name in MAKING.items() if self._at(rule)]
        return " and ".join(dict.fromkeys(names))

    def _stage(self) -> str:
        words = {"data": "getting data", "train": "training", "measure": "measuring"}
        names = [name for rule, name in words.items() if self._at(rule)]
        return " and ".join(names) or "planning"

    def _measured(self) -> int:
        return sum(self.plan.shard_of[one.trajectory_id] in self.done["measure"] for one in self.plan.networks)

    def _rate(self, trained: int, measured: int) -> str:
        seconds = max(time.monotonic() - self.began, 1e-9)
        made = trained - self.first[0] or measured - self.first[1]
        rate = made / seconds
        return f"{rate:.2g} networks/s" if rate >= 0.1 or not made else f"{60 * rate:.2g} networks/min"

    def _left(self) -> float:
        """Minutes of work that are to come, by the plan's estimates; of a shard in training, those of its networks."""
        waiting = {(one.trajectory_id, one.checkpoint) for one in self.waiting}
        left = TABLES_LAST
        for name, shard in self.plan.shards.items():
            if name not in self.done["train"]:
                places = [(one.id, step) for one in shard.trajectories for step in one.checkpoints]
                left += self.minutes["train"][name] * sum(place in waiting for place in places) / len(places)
            if name not in self.done["measure"]:
                left += self.minutes["measure"][name]
        return left

    def _time_left(self) -> str:
        left, seconds = self._left(), time.monotonic() - self.began
        if self.work and self.work - left >= TELLING * self.work:
            return duration(seconds * left / (self.work - left))
        return "about " + duration(60 * left / (os.cpu_count() or 1))

    def _took(self) -> str:
        return f"{duration(time.monotonic() - self.began)} so far"
