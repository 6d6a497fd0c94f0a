"""A real Slurm of one node on loopback, from Debian's packages, that can be stopped wholly.

    with running_slurm() as node: …        node.environment is what Slurm's commands need
    python tests/slurm_node.py COMMAND…    run a command beside it

munged, slurmctld and slurmd run in the foreground as children of this process, with configuration,
key, sockets, spool, logs and ports of their own in a temporary folder, which is removed. So several
may run at the same time, beside a Slurm of the machine. Where the packages are missing they are
installed, which needs root and apt.

There is no accounting and no cgroup, so a job's memory is watched by Slurm's own sampling, once a
second. A job that is requeued may start again after 10 s, and not after the usual two minutes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from debian import MissingError, install

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
PARTITION = "test"
START = 60.0
"""Seconds within which the node must be idle."""
END = 20.0
"""Seconds within which jobs, and then each daemon, must end before they are killed."""
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={share}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
KillWait=1
MinJobAge=600
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerParameters=batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes={host} MaxTime=INFINITE State=DOWN
"""


class SlurmError(Exception):
    """Slurm did not start, or one of its commands failed."""


def why_not() -> str:
    """The reason for which Slurm cannot run here, or ''. What is missing is installed."""
    if os.geteuid() != 0:
        return "a Slurm of one node is started by root"
    try:
        install(PROGRAMS, PACKAGES)
    except MissingError as error:
        return str(error)
    return ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A running Slurm; `environment` is the variable that its commands need."""

    folder: Path
    environment: dict[str, str]
    daemons: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def call(self, *words: str) -> str:
        """What a command of Slurm prints. Raises: SlurmError if it fails."""
        done = subprocess.run(
            words,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """The ids of the jobs that have not ended; array elements apart."""
        return self.call("squeue", "--noheader", "--array", "--format", "%i").split()

    def start(self, program: str, *words: str) -> None:
        """Start a daemon in the foreground."""
        with (self.folder / f"{program}.out").open("ab") as output:
            self.daemons[program] = subprocess.Popen(
                [shutil.which(program) or program, *words],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def start_engine(self) -> None:
        """Start the controller and the node's daemon, and wait for both. Raises: SlurmError."""
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D")
        _wait_for(lambda: _is_up(self), self)

    def kill_engine(self) -> None:
        """Kill the controller and the node's daemon. Jobs that run go on."""
        for name in ("slurmctld", "slurmd"):
            self.daemons[name].kill()
            self.daemons.pop(name).wait()

    def end(self) -> None:
        """End all daemons, the last one first, at worst by SIGKILL, and what still watches jobs."""
        while self.daemons:
            _, process = self.daemons.popitem()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for own in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                watches = (own / "cmdline").read_bytes().startswith(b"slurmstepd")
                if watches and str(self.folder).encode() in (own / "environ").read_bytes():
                    os.kill(int(own.name), signal.SIGKILL)


@contextmanager
def running_slurm() -> Iterator[Node]:
    """Start a Slurm and end it with all its jobs, daemons and files.

    Raises: MissingError; SlurmError.
    """
    install(PROGRAMS, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name, ExitStack() as ending:
        folder = Path(name)
        folder.chmod(0o755)
        node = _configure(folder)
        key = folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(os.urandom(1024))
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        files = [f"--{option}={folder}/munge.{suffix}" for option, suffix in munge.items()]
        own = [*files, f"--log-file={folder}/munge.log"]
        ending.callback(node.end)
        node.start("munged", "--foreground", "--force", *own)
        _wait_for(lambda: (folder / "munge.socket").exists(), node)
        node.start_engine()
        try:
            yield node
        finally:
            _end_jobs(node)


def _configure(folder: Path) -> Node:
    """Write slurm.conf, with ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [own.getsockname()[1] for own in sockets]
    for own in sockets:
        own.close()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    file = folder / "slurm.conf"
    text = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        controller=ports[0],
        node=ports[1],
        folder=folder,
        user="root",
        cpus=os.cpu_count(),
        memory=memory * 9 // 10,
        share=memory * 9 // 10 // (os.cpu_count() or 1),
        partition=PARTITION,
    )
    file.write_text(text.lstrip())
    for name in ("controller", "node"):
        (folder / name).mkdir()
    return Node(folder=folder, environment={"SLURM_CONF": str(file)})


def _is_up(node: Node) -> bool:
    with suppress(SlurmError):
        state = node.call("sinfo", "-h", "-p", PARTITION, "-o", "%t")
        return state in ("idle", "mix", "alloc")
    return False


def _wait_for(condition: Callable[[], bool], node: Node) -> None:
    """Wait until Slurm is ready. Raises: SlurmError with the last lines of all logs."""
    deadline = time.monotonic() + START
    while not condition():
        if time.monotonic() > deadline:
            logs = sorted([*node.folder.glob("*.log"), *node.folder.glob("*.out")])
            tails = (f"{file.name}:\n{file.read_text(errors='replace')[-1000:]}" for file in logs)
            raise SlurmError("Slurm did not start\n" + "\n".join(tails))
        time.sleep(0.2)


def _end_jobs(node: Node) -> None:
    """Cancel all jobs, and wait until none is left: slurmd leaves the steps of others running."""
    with suppress(SlurmError):
        deadline = time.monotonic() + END
        node.call("scancel", "--full", "--user", "root")
        while node.jobs() and time.monotonic() < deadline:
            time.sleep(0.2)


def main() -> int:
    """Run a command beside a Slurm of one node, which ends also on SIGTERM; its exit code."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with running_slurm() as node:
        return subprocess.run(
            sys.argv[1:], env=os.environ | node.environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
