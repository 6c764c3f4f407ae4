"""A batch over local files: ``stoker batch``. The output file itself records which lines are finished.

Every line is submitted under an idempotency key made of the run's id and the line's number. A line submitted again
after Ctrl-C, a kill or an outage is therefore the same job: it runs once, and its stored result answers both
submissions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from redis.exceptions import NoPermissionError, RedisError

from producer.client import Client
from producer.contract.errors import BatchError
from producer.contract.server.redis_errors import cannot_serve

from ..access.api_key import ApiKey
from . import resume
from .lines import lines
from .lines.custom_ids import FirstLines
from .lines.in_flight import Flight, chunk
from .lines.line_source import LineSource
from .lines.line_translation import Terms, tell_alike
from .lines.submit_loop import fly

MOST_MISTAKES = 10
"""Most repeated custom_ids that one error names."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch, in lines. ``resumed`` of ``done`` were finished before this start.

    ``waiting`` is what blocks the batch, such as a Redis that is away; empty while it goes on.
    """

    total: int
    done: int
    errors: int
    resumed: int
    inflight: int
    waiting: str = ""


class FileBatch:
    """One batch over the file ``source``, its answers in the file ``out`` as they come.

    Args:
        model: of the lines that name none.
        tier: by default each model's slowest.
        in_flight: most lines of each model that are submitted and not yet answered; bounds the memory.
        overwrite: start again, whatever the output holds.

    Raises:
        UnknownModel, UnknownTier: with those that exist.
        BatchError: the input cannot be read, the output cannot be written, or both are the same file.
    """

    def __init__(
        self,
        client: Client,
        source: Path,
        out: Path,
        model: str | None = None,
        tier: str | None = None,
        *,
        tenant: str = "default",
        in_flight: int = 256,
        overwrite: bool = False,
    ) -> None:
        _refuse_files(source, out)
        settings = client.settings
        if model is not None:
            model = settings.named(model)
            settings.tier(model, tier or settings.default_tier(model))
        self._client = client
        self._source = source
        self._out = out
        self._overwrite = overwrite
        self._in_flight = in_flight
        self._chunk = min(in_flight, chunk(settings, tenant))
        self._longest = lines.longest(settings, model)
        self._asked = resume.BatchIdentity.about(source, model, tier, tenant)
        self._stopping = False

    def stop(self) -> None:
        """Have :meth:`run` stop submitting, write the answers it has, and end. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> Iterator[Progress]:
        """Run the batch, or resume it; yields at least every ``submit_loop.POLL_S`` seconds and once at the end.

        Ends early when stopped, with fewer lines done than there are; the same call resumes it later.

        Raises:
            BatchError: the output belongs to another batch or cannot be written, or a custom_id occurs twice.
        """
        try:
            with resume.opened_alone(self._out) as file:
                yield from self._run(file)
        except OSError as error:
            raise BatchError(f"{error}. What is written stays; the same command goes on") from error

    def _run(self, file: BinaryIO) -> Iterator[Progress]:
        sidecar = resume.sidecar(self._out)
        if self._overwrite:
            sidecar.unlink(missing_ok=True)
            file.truncate(0)
        total = self._count()
        if not sidecar.exists() and file.seek(0, os.SEEK_END):
            yield self._found_complete(total, file)
            return
        run = resume.claim_run(self._out, self._asked)
        finished, errors = resume.survey(file, self._out)
        terms = Terms(
            self._client.settings, run, ApiKey(id="", tenant=self._asked.tenant), self._asked.model, self._asked.tier
        )
        with (
            self._source.open("rb") as source,
            closing(Flight(self._client, terms, tell_alike(run), _OutputFile(file), finished, self._chunk)) as flight,
        ):
            flight.errors = errors
            yield from self._fly(LineSource(source, self._longest, finished, terms.model_of), total, flight)
            file.flush()
            os.fsync(file.fileno())
        if len(finished) >= total:
            sidecar.unlink()

    def _count(self) -> int:
        """The number of lines. Nothing runs if a custom_id occurs twice, since its answer would be ambiguous."""
        total, seen, repeated = 0, FirstLines(), []
        with self._source.open("rb") as source:
            for number, raw in lines.read(source, self._longest):
                total += 1
                line = lines.parse(number, raw, self._longest)
                if (first := seen.add(line.custom_id, number)) != number:
                    repeated.append(f"line {number} has the custom_id {line.custom_id!r:.80} of line {first}")
                    if len(repeated) == MOST_MISTAKES:
                        break
        if repeated:
            said = "\n".join(repeated)
            raise BatchError(f"{self._source}: each custom_id gets one answer, so none may be there twice:\n{said}")
        return total

    def _fly(self, left: LineSource, total: int, flight: Flight) -> Iterator[Progress]:
        resumed = len(flight.finished)
        waiting = ""
        for waiting in fly(left, flight, lambda _: self._in_flight, lambda: self._stopping, self._hint):
            flight.send_again()
            yield Progress(total, len(flight.finished), flight.errors, resumed, len(flight), waiting)
        if self._stopping:
            try:
                flight.collect(0.0)  # what has come
            except RedisError as error:
                if not cannot_serve(error):
                    raise
        yield Progress(total, len(flight.finished), flight.errors, resumed, len(flight))

    def _hint(self) -> str:
        if self._asked.model is None:
            return ""
        with suppress(NoPermissionError):  # a user that may submit need not have the right to read
            return self._client.obstacle(self._asked.model)
        return ""

    def _found_complete(self, total: int, file: BinaryIO) -> Progress:
        if not resume.is_complete(self._source, self._out, self._longest):
            raise BatchError(
                f"{self._out} exists and is not the output of this input: name another --out, or begin anew "
                "with --overwrite"
            )
        _, errors = resume.survey(file, self._out)
        return Progress(total, total, errors, total, 0)


class _OutputFile:
    """The output file as a sink: a written line is finished."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, told: bytes, failed: bool, job_id: str | None) -> None:  # noqa: ARG002  as any sink
        self._file.write(told)

    def flush(self) -> None:
        self._file.flush()


def _refuse_files(source: Path, out: Path) -> None:
    """Check the input and output files before anything is written."""
    if not source.is_file():
        raise BatchError(f"{source} is not a file: name a JSONL file, one request to a line")
    for file in (out, resume.sidecar(out)):
        if file.exists() and file.samefile(source):
            raise BatchError(f"{file} is the input itself, which must not be written over: name another --out")
    if not out.parent.is_dir():
        raise BatchError(f"the folder {out.parent} does not exist: make it, or name another --out")
    if out.is_dir():
        raise BatchError(f"{out} is a folder: name a file in it with --out")
