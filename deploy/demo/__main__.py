"""The demo (``make demo``): a fleet that scales from zero and back to zero, with real models, in under four minutes.

Interactive jobs, batches and a job of a stock Celery application are submitted. The autoscaler starts a worker for
each model, interactive jobs overtake the batches, and at the end the fleet drains to zero. The exit code is 0 if all of
this happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import redis

from producer import Client, StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import broker_url

from ..machine import detached, flower, teardown
from . import plot, report, work
from .screen import Screen, console
from .watch import Watch
from .work import Asker, CompletedJob

OUT = Path("demo-out")
LIMIT_S = 220.0
"""Time limit of the demo, in seconds; it fails when it takes longer."""
IDLE_S = 5.0
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(StokerError):
    """The demo did not go as expected."""


def main() -> int:
    """Run the demo and return its exit code: 0 for success, 1 for a failure, 130 after an interruption."""
    for signum in INTERRUPTIONS:
        signal.signal(signum, signal.default_int_handler)
    try:
        with _only_one(), console.status("starting the fleet") as status:
            screen = Screen(status)
            with _fleet(screen) as settings:
                demo = Demo(settings, screen)
                demo.run()
        demo.report()
    except KeyboardInterrupt:
        console.print("interrupted; the fleet is stopped")
        return 130
    except (StokerError, OSError) as error:
        console.print(f"THE DEMO FAILED: {error}", style="bold red", markup=False, soft_wrap=True)
        console.print(f"Logs: {OUT / 'fleet' / 'logs'}")
        return 1
    return 0


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    OUT.mkdir(exist_ok=True)
    with (OUT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo is running here, which holds {lock.name}; wait until it ends") from None
        yield


@contextlib.contextmanager
def _fleet(screen: Screen) -> Iterator[Settings]:
    """The fleet of ./fleet.toml with a separate state folder and server, isolated from any other fleet."""
    home = (OUT / "fleet").absolute()
    os.environ.pop("REDIS_URL", None)
    os.environ["STOKER_REDIS__URL"] = ""  # overrides the file: the demo never uses real queues
    os.environ["STOKER_STATE_DIR"] = str(home)
    os.environ["STOKER_SCALING__IDLE_S"] = str(IDLE_S)
    os.environ["STOKER_SCALING__KEEP_LOADS"] = "0"  # no model stays loaded for later jobs
    settings = Settings.load()
    for model in ("smollm2", "minilm"):
        settings.model(model)
    _stop(settings)  # processes of an earlier demo that was killed
    shutil.rmtree(home, ignore_errors=True)
    try:
        with _uninterrupted():
            detached.up_detached(settings, lambda _: None)
        screen.say(
            f"the fleet is up: a Valkey server, the autoscaler, no worker. Flower: {flower.url(settings)}, user "
            f"{flower.USER}, password in {OUT / 'fleet' / flower.password_file(settings).name}"
        )
        yield settings
    finally:
        _stop(settings)
        screen.say("the fleet is stopped")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer interruptions to the end of the block: a process started but not yet recorded would be orphaned."""
    asked: list[int] = []
    before = {signum: signal.signal(signum, lambda signum, _: asked.append(signum)) for signum in INTERRUPTIONS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if asked:
            raise KeyboardInterrupt


def _stop(settings: Settings) -> None:
    grace = {**dict.fromkeys(teardown.ORDER, 5.0), "supervisor": 30.0}
    with _uninterrupted():
        teardown.stop_all(settings, lambda _: None, grace)


class Demo:
    """One run of the demo, and its report."""

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self.settings = settings
        self._screen = screen
        self._deadline = time.monotonic() + LIMIT_S
        self._served: list[CompletedJob] = []
        self._marks: list[tuple[float, str]] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._askers: list[Asker] = []
        self._redis = redis.Redis.from_url(settings.redis_url)
        self._watch = Watch(self._redis, settings, screen.show, screen.decided)

    def run(self) -> None:
        """Submit all jobs, and wait until they have ended and the fleet has drained to zero.

        Raises:
            DemoError: a job or a process failed, or the demo took longer than ``LIMIT_S``.
        """
        with Client(self.settings) as client, (OUT / "commands.log").open("wb") as log:
            self._watch.start()
            try:
                self._ask(client)
                self._start_others(log)
                self._wait("the batches and the stock application", self._others_ended)
                self._screen.say("the batches are done", "green")
                self._mark("batches done")
                for asker in self._askers:
                    asker.stop()
                self._wait("the last answers", lambda: not any(asker.is_alive() for asker in self._askers))
                self._check_askers()
                self._wait("the fleet to drain to zero", lambda: self._watch.samples[-1].at_rest)
                self._screen.say("drained to zero", "green")
                self._mark("at zero")
            finally:
                self._abandon()

    def _ask(self, client: Client) -> None:
        self._mark("first job")
        for model, texts, parameters in (
            ("smollm2", work.PROMPTS, {"max_new_tokens": work.ANSWER_TOKENS}),
            ("minilm", work.QUESTIONS, {}),
        ):
            asker = Asker(client, model, texts, parameters, self._batch_depth, self._screen.answered)
            self._askers.append(asker)
            asker.start()
        self._screen.say(f"submitted {work.FIRST_PROMPT!r}; another interactive job every {work.ASK_EVERY_S:g} s")

    def _batch_depth(self, model: str) -> int:
        return self._watch.samples[-1].queued[model, "batch"] if self._watch.samples else 0

    def _start_others(self, log: IO[bytes]) -> None:
        for old in OUT.glob("*.jsonl*"):
            old.unlink()
        self._batches = work.write_batches(OUT)
        for model, source in self._batches.items():
            self._processes[f"stoker batch {source}"] = work.start_batch(model, source, log)
            self._screen.say(f"stoker batch {source} --model {model} --out {work.answers_file(source)}")
        self._stock = work.start_stock(broker_url(self.settings), LIMIT_S, log)
        self._processes["the stock Celery application"] = self._stock
        self._screen.say("a stock Celery application sends stoker.infer to smollm2.interactive")

    def _others_ended(self) -> bool:
        for what, process in self._processes.items():
            if process.poll():
                raise DemoError(f"{what} ended with exit code {process.returncode}; see {OUT / 'commands.log'}")
        self._check_askers()
        return all(process.returncode == 0 for process in self._processes.values())

    def _check_askers(self) -> None:
        for asker in self._askers:
            if asker.failure is not None:
                raise DemoError(f"an interactive job failed: {asker.failure}")

    def _wait(self, what: str, until: Callable[[], bool]) -> None:
        while not until():
            if not self._watch.is_alive():
                raise DemoError(f"the watch failed while the demo waited for {what}; its error is above")
            if time.monotonic() > self._deadline:
                raise DemoError(f"still waiting after {LIMIT_S:.0f} s for {what}")
            time.sleep(0.1)

    def _mark(self, word: str) -> None:
        self._marks.append((time.time(), word))

    def _abandon(self) -> None:
        """Stop the threads and processes that submit jobs; after a successful run they have ended."""
        for asker in self._askers:
            asker.stop(abandon=True)
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._watch.stop()
        self._redis.close()

    def report(self) -> None:
        """Print answers and figures, and save the plot.

        Raises:
            DemoError: the first answer is wrong.
        """
        interactive = [job for asker in self._askers for job in asker.served]
        first = min((job for job in interactive if job.asked == work.FIRST_PROMPT), key=lambda job: job.submitted_at)
        stock = self._read_stock()
        batch = [job for model, source in self._batches.items() for job in work.read_batch(model, source)]
        lives = self._watch.lives
        ready_at = {life.model: life.ready_at for life in lives.values() if life.ready_at is not None}
        of_batch = next(job for job in batch if job.model == first.model)
        tell = functools.partial(console.print, markup=False, soft_wrap=True)
        tell(f"\nClient                  {first.asked!r} -> {first.text!r}")
        tell(f"Stock Celery            {stock.asked!r} -> {stock.text!r}")
        tell(f"Batch, 1 of {len(batch)} lines   {of_batch.asked!r} -> {of_batch.text!r}")
        tell(f"\nFrom zero: {report.from_zero(first, self._watch.decisions, lives)}\n")
        console.print(report.table([*interactive, *batch], ready_at))
        tell("(cold: submitted before a worker of its model was ready)")
        tell(f"\n{report.overtaking([*interactive, *batch], ready_at)}")
        picture = OUT / "demo.png"
        plot.save(self._watch.samples, self._marks, "From zero to zero: queue depth and workers", picture)
        tell(f"\nPlot: {picture}. Answers of the batches: {OUT}/*.answers.jsonl")
        tell("The demo's fleet is stopped. `make up` starts one that keeps running, and prints the URL of its Flower.")
        if "Paris" not in first.text:
            raise DemoError(f"the first answer does not contain 'Paris': {first.text!r}")

    def _read_stock(self) -> CompletedJob:
        assert self._stock.stdout is not None
        with self._stock.stdout as output:
            try:
                return work.read_stock(output.read())
            except ValueError as error:
                raise DemoError(f"the stock Celery application: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
