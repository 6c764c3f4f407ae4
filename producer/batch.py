"""Offline batches: a file of requests in, a file of answers out, whatever interrupts it.

Every line is submitted under an idempotency key of the run and its number, so that a line submitted again,
after Ctrl-C, a kill or an outage, is the same job: it runs once, and its stored result answers both.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from redis.exceptions import NoPermissionError

from . import batch_lines, batch_resume
from .batch_flight import Flight
from .batch_lines import Line
from .batch_resume import LineSet
from .client import Client
from .connection import AWAY
from .errors import BatchError, BrokerUnavailable, InvalidJob
from .job import Job

CHUNK = 64
"""Most jobs in one write."""

POLL_S = 0.25
"""Longest wait for results before progress is told, in seconds; also how soon a stop is noticed."""

OUTAGE_PAUSE_S = 0.5
"""How long to leave a Redis alone that is away or out of memory."""

HINT_S = 10.0
"""How long nothing may be answered before somebody is told what is missing, and how often that is looked at."""

OUTAGE = (BrokerUnavailable, *AWAY)


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch at one moment, in lines. ``resumed`` of ``done`` were finished before this start.

    ``waiting`` says what holds the batch up, such as a Redis that is away; empty while it goes on.
    """

    total: int
    done: int
    errors: int
    resumed: int
    inflight: int
    waiting: str = ""


class Batch:
    """One batch over the file ``source`` for one model, its answers in the file ``out`` as they come.

    Args:
        tier: by default the model's slowest.
        in_flight: most lines that are submitted and not yet answered; bounds the memory.
        overwrite: begin anew, whatever the output holds.

    Raises:
        UnknownModel, UnknownTier: naming what there is.
        BatchError: the input cannot be read, the output cannot be where it is to be, or both are one file.
    """

    def __init__(
        self,
        client: Client,
        source: Path,
        out: Path,
        model: str,
        tier: str | None = None,
        *,
        tenant: str = "default",
        in_flight: int = 256,
        overwrite: bool = False,
    ) -> None:
        _refuse_files(source, out)
        settings = client.settings
        tier = tier or max(settings.model(model).tiers, key=lambda name: settings.tiers[name].target_wait_s)
        settings.tier(model, tier)
        limits = settings.model(model).limits
        self._client = client
        self._source = source
        self._out = out
        self._overwrite = overwrite
        self._in_flight = in_flight
        # A queue takes a chunk whole or not at all, so a larger one than it may hold would wait for ever.
        self._chunk = min(CHUNK, in_flight, limits.max_queued)
        self._longest = batch_lines.LONGEST_PER_INPUT_BYTE * limits.max_input_bytes
        self._asked = batch_resume.Asked.about(source, model, tier, tenant)
        self._stopping = False

    def stop(self) -> None:
        """Have :meth:`run` submit nothing more, write what has come, and end. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> Iterator[Progress]:
        """Do the batch, or go on with it; yields at least every ``POLL_S`` seconds and once at the end.

        Ends early when stopped: then fewer lines are done than there are, and the same call later goes on.

        Raises:
            BatchError: the output belongs to something else, or cannot be written.
        """
        try:
            with batch_resume.opened_alone(self._out) as file:
                yield from self._run(file)
        except OSError as error:
            raise BatchError(f"{error}. What is written stays; the same command goes on") from error

    def _run(self, file: BinaryIO) -> Iterator[Progress]:
        sidecar = batch_resume.sidecar(self._out)
        if self._overwrite:
            sidecar.unlink(missing_ok=True)
            file.truncate(0)
        with self._source.open("rb") as source:
            total = sum(1 for _ in batch_lines.read(source, self._longest))
        if not sidecar.exists() and file.seek(0, os.SEEK_END):
            yield self._found_complete(total, file)
            return
        run = batch_resume.claim_run(self._out, self._asked)
        finished, errors = batch_resume.survey(file, self._out)
        with (
            self._source.open("rb") as source,
            closing(Flight(self._client, file, finished, self._chunk)) as flight,
        ):
            flight.errors = errors
            yield from self._fly(self._lines(source, finished), run, total, flight)
            file.flush()
            os.fsync(file.fileno())
        if len(finished) >= total:
            sidecar.unlink()

    def _lines(self, source: BinaryIO, finished: LineSet) -> Iterator[Line]:
        for number, raw in batch_lines.read(source, self._longest):
            if number not in finished:
                yield batch_lines.parse(number, raw, self._longest)

    def _fly(self, lines: Iterator[Line], run: str, total: int, flight: Flight) -> Iterator[Progress]:
        resumed = len(flight.finished)
        more = True
        hint, hint_at = "", time.monotonic() + HINT_S

        def progress(waiting: str = "") -> Progress:
            return Progress(total, len(flight.finished), flight.errors, resumed, len(flight), waiting)

        while not self._stopping and (more or len(flight)):
            waiting = ""
            try:
                room = self._in_flight - len(flight)
                if more and room >= self._chunk:  # not for each job that ends, a write of its own
                    more = self._take(islice(lines, room), run, flight)
                waiting = flight.send()
                flight.collect(POLL_S)
                if len(flight.finished) > resumed:
                    hint, hint_at = "", math.inf
                elif time.monotonic() >= hint_at:
                    hint, hint_at = self._hint(), time.monotonic() + HINT_S
            except OUTAGE as error:
                flight.resend()
                waiting = str(error)
                time.sleep(OUTAGE_PAUSE_S)
            yield progress("; ".join(filter(None, (waiting, hint))))
        if self._stopping:
            with suppress(*OUTAGE):
                flight.collect(0.0)  # what has come
        yield progress()

    def _hint(self) -> str:
        with suppress(NoPermissionError):  # who may submit need not be allowed to look
            return self._client.obstacle(self._asked.model)
        return ""

    def _take(self, lines: Iterator[Line], run: str, flight: Flight) -> bool:
        """Take lines on; False when there was none left."""
        any_left = False
        for line in lines:
            any_left = True
            try:
                flight.add(line.number, line.custom_id, self._job(line, run))
            except InvalidJob as error:
                flight.answer(line.number, line.custom_id, error)
        return any_left

    def _job(self, line: Line, run: str) -> Job:
        if line.error is not None:
            raise line.error
        return self._client.job(
            self._asked.model,
            line.fields["input"],
            tier=self._asked.tier,
            parameters=line.fields.get("parameters"),
            tenant=self._asked.tenant,
            idempotency_key=f"{run}:{line.number}",
        )

    def _found_complete(self, total: int, file: BinaryIO) -> Progress:
        if not batch_resume.is_complete(self._source, self._out, self._longest):
            raise BatchError(
                f"{self._out} exists and is not the output of this input: name another --out, or begin anew "
                "with --overwrite"
            )
        _, errors = batch_resume.survey(file, self._out)
        return Progress(total, total, errors, total, 0)


def _refuse_files(source: Path, out: Path) -> None:
    """See that the files are what they are meant to be, before anything is written."""
    if not source.is_file():
        raise BatchError(f"{source} is not a file: name a JSONL file, one request to a line")
    for file in (out, batch_resume.sidecar(out)):
        if file.exists() and file.samefile(source):
            raise BatchError(f"{file} is the input itself, which must not be written over: name another --out")
    if not out.parent.is_dir():
        raise BatchError(f"the folder {out.parent} does not exist: make it, or name another --out")
    if out.is_dir():
        raise BatchError(f"{out} is a folder: name a file in it with --out")
