"""Workers as processes of this machine, each in a session of its own, so that they outlive the autoscaler."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from producer.contract.heartbeat import WorkerState
from producer.contract.process_identity import since_boot_s, this_machine

from . import orphans, records
from .protocol import Ended, Launched, LaunchError, Placement

if TYPE_CHECKING:
    from producer.contract.heartbeat import Heartbeat

log = logging.getLogger(__name__)

# Without -P, a folder named workers in the current directory would be run instead of the package.
WORKER = (sys.executable, "-P", "-m", "workers")
LOGS_KEPT = 50
WORKER_LOG = re.compile(r"-[0-9a-f]{6}[.]log$")
"""The end of a worker's log file name. The directory also holds logs of other processes."""
LINGER_S = 30.0
"""How long what a worker has started may outlive it: a server is told to end, and killed by the worker's own rules."""
LAST_WORDS_FROM = 16_384
LAST_WORDS_LINES = 2
LAST_WORDS_CHARS = 400
KILLED = "from outside"
OUT_OF_MEMORY = "by the kernel: the memory of the machine, or of its control group, ran out"
"""The causes for a worker that ended by SIGKILL."""
VMSTAT = Path("/proc/vmstat")


class LocalLauncher:
    """Starts ``python -m workers`` and knows its workers by their process records.

    Args:
        state_dir: holds ``logs/NAME.log`` and ``run/NAME.json``.
        env: environment variables for workers, added to those of this process.
        command: the program; ``--model``, ``--device``, ``--device-type``, ``--name`` and ``--launched-by`` follow.
        collects: whether nothing else in this process starts processes, so that every other child is an orphan to
            wait for.
    """

    def __init__(
        self, state_dir: Path, env: Mapping[str, str], command: Sequence[str] = WORKER, *, collects: bool = False
    ) -> None:
        self.run_dir = state_dir / "run"
        self.log_dir = state_dir / "logs"
        self.env = dict(env)
        self.command = tuple(command)
        self.collects = collects
        self._id = launcher_id(state_dir)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: list[Ended] = []
        self._lingering_since: dict[str, float] = {}
        self._oom_kills = oom_kills()

    @property
    def id(self) -> str:
        """See :func:`launcher_id`."""
        return self._id

    def start(self, placement: Placement) -> str:
        """Start a worker process; see :class:`Launcher`."""
        name = f"{placement.model}-{secrets.token_hex(3)}"
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another launcher removed it
                self._clear_logs()
            child = self._spawn(name, placement)
        except OSError as error:
            raise LaunchError(f"no worker of {placement.model} could be started: {error}") from error
        # The record follows at once: if this process is killed in between, only the heartbeat shows the worker (adopt).
        record = replace(
            records.of_process(child.pid, "worker", name),
            model=placement.model,
            device=placement.device,
            device_uuid=placement.uuid,
        )
        try:
            records.write(self.run_dir, record)
        except OSError as error:
            child.kill()  # without a record it could not be found again
            child.wait()
            raise LaunchError(f"no record of {name} could be written: {error}") from error
        self._children[name] = child
        return name

    def _spawn(self, name: str, placement: Placement) -> subprocess.Popen[bytes]:
        arguments = ["--model", placement.model, "--device", placement.device]
        arguments += ["--device-type", placement.type] if placement.type else []
        arguments += ["--device-uuid", placement.uuid] if placement.uuid else []
        arguments += self._marks(name)
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [*self.command, *arguments],
                env={**os.environ, **self.env, **device_env(placement), records.MARK: records.mark(self.run_dir, name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _marks(self, name: str) -> tuple[str, ...]:
        """The command-line arguments that identify the worker ``name`` of this launcher."""
        return "--name", name, "--launched-by", self.id

    def _clear_logs(self) -> None:
        """Remove the oldest logs of workers that have ended."""
        known = {record.name for record in records.read(self.run_dir)}
        logs = [log for log in self.log_dir.glob("*.log") if WORKER_LOG.search(log.name)]
        newest_first = sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)
        for old in newest_first[LOGS_KEPT - 1 :]:  # the log of the worker being started is added
            if old.stem not in known:
                old.unlink(missing_ok=True)

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        """Write the missing records of this launcher's workers; see :class:`Launcher`.

        A process with a record may be killed, and a heartbeat may be forged: the process's own command line must
        identify it as a worker of this launcher with that name.
        """
        ours = [beat for beat in beats if beat.launched_by == self.id]
        known = {record.name for record in records.read(self.run_dir)} if ours else set()
        for beat in ours:
            drains = since_boot_s() if beat.state is WorkerState.DRAINING else None
            record = records.Record(
                "worker",
                beat.name,
                beat.pid,
                beat.machine,
                beat.pid_started_ticks,
                beat.model,
                beat.device,
                drains,
                beat.device_uuid,
            )
            if beat.name not in known and records.started_as(record, *self._marks(beat.name)):
                records.write(self.run_dir, record)
                log.warning("adopted %s (pid %d), whose record was never written", beat.name, beat.pid)

    def drain(self, name: str, grace_s: float) -> None:
        """SIGTERM, or SIGKILL without grace; see :class:`Launcher`."""
        for record in self._workers():
            if record.name != name:
                continue
            if grace_s > 0 and record.draining_since is None:
                # Written before the signal: a worker that ended first would otherwise count as lost.
                records.write(self.run_dir, replace(record, draining_since=since_boot_s()))
            records.send(record, signal.SIGTERM if grace_s > 0 else signal.SIGKILL)

    def list(self) -> Sequence[Launched]:
        """The workers whose processes are alive, including those that an earlier autoscaler started.

        One of whose processes some live has not ended: they may hold its device.
        """
        if self.collects:
            orphans.collect(self._children.values())
        living = []
        for record in self._workers():
            if records.alive(record) or self._lingers(record):
                living.append(launched(record))
            else:
                self._bury(record)
        return living

    def _lingers(self, record: records.Record) -> bool:
        """Whether a worker that has ended left processes behind. They get ``LINGER_S`` to end by themselves."""
        left = records.left_behind(self.run_dir, record.name)
        if not left:
            self._lingering_since.pop(record.name, None)
            return False
        if time.monotonic() - self._lingering_since.setdefault(record.name, time.monotonic()) > LINGER_S:
            log.warning("%s left %d processes behind, which do not end: killed", record.name, len(left))
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        return True

    def ended(self) -> Sequence[Ended]:
        """The workers that ended since the last call."""
        self.list()
        ended, self._ended = self._ended, []
        return ended

    def _workers(self) -> Sequence[records.Record]:
        return [record for record in records.read(self.run_dir) if record.role == "worker"]

    def _bury(self, record: records.Record) -> None:
        records.remove(self.run_dir, record.name)
        child = self._children.pop(record.name, None)
        code = child.wait() if child is not None else None  # dead as its record is, so this only collects it
        how = "ended unseen" if code is None else f"exit {code}" if code >= 0 else signal.Signals(-code).name
        killed = code == -signal.SIGKILL
        out_of_memory = killed and self._oom_killed()
        killer = OUT_OF_MEMORY if out_of_memory else KILLED
        words = killer if killed else last_words(self._log(record.name))  # a killed worker logs no cause
        self._ended.append(
            Ended(
                record.name,
                record.model,
                asked=record.draining_since is not None,
                lived_s=record.identity.age_s,
                cause=f"{how}: {words}" if words else how,
                outside=out_of_memory,
                device_key=record.device_uuid or record.device,
            )
        )

    def _oom_killed(self) -> bool:
        """Whether the kernel has killed a process for lack of memory since a worker was last found killed."""
        before, self._oom_kills = self._oom_kills, oom_kills()
        return self._oom_kills > before

    def _log(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"


def launcher_id(state_dir: Path) -> str:
    """The id of the local launcher with this state directory on this machine: a hash of both."""
    # The directory tells apart two fleets on one machine. The host name may change, so the machine's id is used.
    place = f"{this_machine()}:{state_dir.absolute()}"
    return f"local:{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it was booted; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def launched(record: records.Record) -> Launched:
    """The worker of a process record. Its times are Unix seconds by the wall clock as it is set now."""
    now = time.time()
    drains = None if record.draining_since is None else now - (since_boot_s() - record.draining_since)
    started_at = now - record.identity.age_s
    return Launched(record.name, record.model, record.device, record.pid, started_at, drains, record.device_uuid)


def device_env(placement: Placement) -> dict[str, str]:
    """The environment that restricts a worker to its device."""
    if placement.kind == "cuda":
        # A UUID means the same GPU in every order. Where there is none: NVML counts in the order of the PCI bus, CUDA
        # by default the fastest first.
        gpu = placement.uuid or placement.device.removeprefix("cuda:")
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu}
    return {"OMP_NUM_THREADS": "1"}  # beside other busy processes, more threads run slower by an order


DATED = re.compile(r"\[?\d+[-:]\d\d")


def last_words(log: Path, begin: int = 0) -> str:
    """The end of a log from byte ``begin``, on one line: its last error, whole, else its last lines; or empty."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(begin, file.tell() - LAST_WORDS_FROM))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    lines = [line.rstrip() for line in lines if line.strip()]
    # Lines of other threads may follow the error.
    errors = [
        nth for nth, (before, line) in enumerate(zip(["", *lines], lines, strict=False)) if _is_error(before, line)
    ]
    if not errors:
        return " | ".join(line.strip() for line in lines[-LAST_WORDS_LINES:])[:LAST_WORDS_CHARS]
    first, *rest = lines[errors[-1] :]
    # An error of several lines goes on until the next line that a logger has dated.
    more = itertools.takewhile(lambda line: not DATED.match(line), rest)
    return " | ".join([first, *(line.strip() for line in more)])[:LAST_WORDS_CHARS]


def _is_error(before: str, line: str) -> bool:
    """Whether a line ends a traceback, whose lines are indented and name a file, or was logged as an error."""
    ends_traceback = before.startswith("  ") and re.match(r"[\w.]+(: |$)", line) is not None
    return ends_traceback or re.search(r"\b(CRITICAL|ERROR)\b", line) is not None
