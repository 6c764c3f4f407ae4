"""The contestants, and how each is set up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from producer.contract.errors import ConfigError

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENTS = CHECKOUT / ".venv-peers"
APPLICATIONS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way through a queue: an application (``peers/``), and the worker process that serves it."""

    name: str
    application: str
    """Its module in ``peers/``."""
    worker: tuple[str, ...]
    """Program, of the environment's ``bin``, and arguments."""
    environment: str = ""
    """A folder of ``.venv-peers``; empty for what runs in ours: us, and stock Celery at the same version."""
    variant: str = ""
    ways: tuple[str, ...] = ("enqueue",)
    """Methods of the application that queue jobs, each timed."""
    share: float = 1.0
    """Share of the jobs that is measured; below 1 for peers that would take minutes."""
    at_once: int = 1
    """Jobs that its worker runs at the same time."""
    sends_events: bool = False
    """Whether its worker is to be heard on Celery's event channel."""
    patience_s: float = 60.0
    """How long to wait, without any progress, for what a killed worker held."""

    @property
    def bin(self) -> Path:
        """Where its programs are."""
        return ENVIRONMENTS / self.environment / "bin" if self.environment else Path(sys.executable).parent


def _celery(pool: str) -> Contestant:
    flags = ("-c", "1", "-E", "--without-gossip", "--without-mingle", "-l", "WARNING")
    worker = ("celery", "-A", "celery_app:app", "worker", "-P", pool, *flags)
    # Kombu looks for what was left behind 10 s after its start, and then every 100 s.
    return Contestant(f"celery {pool}", "celery_app", worker, sends_events=True, patience_s=125)


def _taskiq(broker: str) -> Contestant:
    flags = ("-w", "1", "--max-async-tasks", "10", "--log-level", "WARNING")
    worker = ("taskiq", "worker", "taskiq_app:broker", *flags)
    return Contestant(f"taskiq, {broker}", "taskiq_app", worker, "taskiq", variant=broker, at_once=10)


def _rq(name: str, kind: str, share: float) -> Contestant:
    worker = ("rq", "worker", "--quiet", "-w", kind, "--maintenance-interval", "5")
    # A job counts as abandoned 60 s after its time limit, or after two looks a minute apart.
    return Contestant(name, "rq_app", worker, "rq", share=share, patience_s=100)


OURS = "stoker"
STOCK = "celery prefork"

ROSTER = (
    Contestant(
        OURS,
        "stoker_app",
        ("python", "-m", "workers", "--model", "echo", "--device", "cpu:0"),
        ways=("enqueue", "enqueue_singly"),
        share=3.0,  # this fast, all jobs would take a moment
        at_once=32,
        sends_events=True,
    ),
    _celery("prefork"),
    _celery("threads"),
    _celery("solo"),
    Contestant(
        "celery-batches",
        "celery_batches_app",
        ("celery", "-A", "celery_batches_app:app", "worker", "-P", "solo", "-E", "-l", "WARNING"),
        "celery-batches",
        patience_s=125,
    ),
    Contestant("dramatiq, 1 thread", "dramatiq_app", ("dramatiq", "dramatiq_app", "-p", "1", "-t", "1"), "dramatiq"),
    Contestant(
        "dramatiq, 8 threads", "dramatiq_app", ("dramatiq", "dramatiq_app", "-p", "1", "-t", "8"), "dramatiq", at_once=8
    ),
    _taskiq("stream"),
    _taskiq("list"),
    Contestant("arq", "arq_app", ("arq", "arq_app.WorkerSettings"), "arq", at_once=10),
    Contestant("saq", "saq_app", ("saq", "saq_app.settings", "--quiet"), "saq", at_once=2),
    _rq("rq, a process a job", "rq.Worker", 0.1),
    _rq("rq, one process", "rq.SimpleWorker", 0.5),
    Contestant("huey", "huey_app", ("huey_consumer", "huey_app.huey", "-w", "1", "-k", "thread", "-n", "-q"), "huey"),
)


def chosen(names: str) -> list[Contestant]:
    """The contestants whose names begin with one of these, separated by semicolons; all for an empty text.

    Raises:
        ConfigError: an unknown name (lists the known ones), or a peer is not installed (names the command).
    """
    wanted = [name.strip() for name in names.split(";") if name.strip()]
    for name in wanted:
        if not any(each.name.startswith(name) for each in ROSTER):
            raise ConfigError(f"--only {name!r}: allowed are {'; '.join(each.name for each in ROSTER)}")
    found = [each for each in ROSTER if not wanted or any(each.name.startswith(name) for name in wanted)]
    missing = sorted({each.environment for each in found if not (each.bin / "python").exists()})
    if missing:
        raise ConfigError(f"no environment for {', '.join(missing)} in {ENVIRONMENTS}: run  make bench-setup")
    return found
