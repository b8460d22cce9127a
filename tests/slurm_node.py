"""A real Slurm of one node on this machine, with two pretended GPUs. Needs its packages, root, and no other Slurm."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
# MinJobAge: squeue must still know a job when Snakemake asks. No accounting, no munge, no cgroups.
SLURM_CONF = """# for the tests of process {process}
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
MpiDefault=none
MailProg=/bin/true
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=light Nodes=n1 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n1 MaxTime=INFINITE State=UP
"""
MARK = "DELTABALL_TESTS_CLUSTER"
GRES_CONF = "NodeName=n1 Name=gpu File=/dev/tty[0-1]\n"


def why_not() -> str:
    """Why no Slurm can be started here; empty if it can."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "squeue") if not shutil.which(name)]
    if missing:
        return f"no Slurm here ({missing[0]} is missing): apt-get install slurm-wlm"
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    if (CONFIGURATION / "slurm.conf").exists() and not remains():
        return f"{CONFIGURATION}/slurm.conf is there: this machine has a Slurm of its own, or other tests are running"
    if not Path("/dev/tty1").exists():
        return "no /dev/tty0 and /dev/tty1 to pass for GPUs"
    return ""


def remains() -> "Slurm | None":
    """The cluster of tests that were killed before they could stop it."""
    path = CONFIGURATION / "slurm.conf"
    written = path.read_text() if path.exists() else ""
    owner = re.match(r"# for the tests of process (\d+)\n", written)
    if not owner or Path("/proc", owner[1]).exists():
        return None
    return Slurm(Path(re.search(r"^StateSaveLocation=(.+)/state$", written, re.MULTILINE)[1]))


class Slurm:
    """The running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> None:
        if before := remains():
            before.stop()
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        # Not elsewhere: the executor's job step takes SLURM_CONF out of the environment.
        CONFIGURATION.mkdir(exist_ok=True)
        (CONFIGURATION / "slurm.conf").write_text(SLURM_CONF.format(process=os.getpid(), host=host, folder=self.folder))
        (CONFIGURATION / "gres.conf").write_text(GRES_CONF)
        subprocess.run(["slurmctld", "-c"], check=True)
        subprocess.run(["slurmd", "-N", "n1"], check=True)
        os.environ[MARK] = str(self.folder)  # every job has the environment of the Snakemake that submits it
        deadline = time.monotonic() + 300
        while not self.say("sinfo", "-h", "-t", "idle", "-o", "%n"):
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the daemons, and remove the configuration: without its daemons it makes every Slurm command wait."""
        if self._daemons():
            self.say("scancel", "--state=PENDING")
            self.say("scancel", "--signal=KILL", "--full", "--state=RUNNING")
        for process in self.left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in self._daemons():
            os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 200
        while self._daemons() and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)

    def _daemons(self) -> list[int]:
        found = []
        for name in ("slurmd", "slurmctld"):
            with contextlib.suppress(OSError):
                process = int((self.folder / f"{name}.pid").read_text())
                # Of a machine that has started anew, the number may be another process's.
                if Path("/proc", str(process), "comm").read_text().strip() == name:
                    found.append(process)
        return found

    def left_behind(self) -> list[int]:
        """Processes of jobs that are over for Slurm but not for the machine, as after a node was down."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                process = int(path.parent.name)
                if f"{MARK}={self.folder}\0".encode() in path.read_bytes() and process != os.getpid():
                    found.append(process)
        return found

    def say(self, *command: str) -> str:
        """What a Slurm command answers; empty if it fails."""
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def jobs(self, *options: str, rule: str = "", folder: Path | None = None) -> list[dict[str, str]]:
        """The jobs of a rule that are queued or running, or all with ``--states=all``; of one clone, or of all."""
        fields = {"id": "%i", "state": "%T", "memory": "%m", "partition": "%P", "folder": "%Z", "comment": "%k"}
        lines = self.say("squeue", "-h", "-o", "|".join(fields.values()), *options).splitlines()
        found = [dict(zip(fields, line.split("|"), strict=True)) for line in lines]
        mine = [one for one in found if folder is None or one["folder"] == str(folder)]
        return [one for one in mine if one["comment"].startswith(f"rule_{rule}")]
