"""The run of one batch by the holder of its lease: validate, submit, assemble. Finished steps are not repeated."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from redis.exceptions import RedisError

from producer.client import Client
from producer.contract import heartbeat
from producer.contract.errors import BrokerUnavailable, StokerError
from producer.contract.server.redis_errors import cannot_serve

from ..access import api_key_store
from .lines import lines
from .lines.in_flight import CHUNK, Flight, chunk
from .lines.line_source import LineSource
from .lines.line_translation import NotRun, Terms, cancelled, expired, tell_openai
from .lines.submit_loop import OUTAGE_PAUSE_S, POLL_S, fly
from .lines.validation import ValidationReport, check
from .progress import Pace, width
from .storage.lease import Field, Lease
from .storage.parts import OutputParts
from .storage.records import CANCELLABLE, ENDED, BatchRecord, FileMistake, FileRecord, Status
from .storage.registry import Registry
from .storage.store import SOURCE, Store

if TYPE_CHECKING:
    from redis import Redis

LOOK_S = 5.0
"""Interval at which the workers are counted, in seconds."""

CANCEL_S = 30.0
"""Seconds after which cancelled jobs without a result are taken for cancelled."""

REVOKED = FileMistake(code="api_key_revoked", message="the API key that made the batch was revoked: it is cancelled")
DELETED = FileMistake(code="file_not_found", message="the input file was deleted")

_CHECKING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""By tenant: one batch of a tenant is validated at a time in a process, since the table of custom_ids takes memory."""

SLICE_S, REST_S = 0.02, 1.0
"""Seconds after which a pause as long follows the validation of a line, up to the latter: to decode a long line holds
up the other threads."""


class Stopped(StokerError):
    """The process is to end; the batch goes on in another process, or later."""


class BatchRun:
    """The run of one batch, from its present state to its end.

    Args:
        redis, client: of this run alone.
        stop: set when it is to stop, and to go on later or in another process.
        advance: called at each progress.
    """

    def __init__(
        self,
        redis: Redis,
        client: Client,
        store: Store,
        lease: Lease,
        stop: threading.Event,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._client = client
        self._store = store
        self._lease = lease
        self._stop = stop
        self._advance = advance
        self._key_looked_at = -math.inf
        self._parts = OutputParts(store, lease, client)

    def run(self) -> Status:
        """Run it to its end, and return how it ended.

        Raises:
            Stopped: it was told to stop before the batch has ended; the lease is given up.
            LeaseLost: another process runs it.
            OSError: its files cannot be read or written.
            redis.RedisError: Redis is away; call it again, under the same lease.
        """
        try:
            self._commit()  # tells whether the batch was cancelled
            if (record := self._lease.record()).status == "validating":
                self._check(record)
            if (record := self._lease.record()).status == "in_progress":
                self._fly(record)
            if (record := self._lease.record()).status == "finalizing":
                self._finalize(record)
            return self._close()
        except Stopped:
            self._commit(let_go=True)
            raise
        except OSError:
            self._lease.commit()  # raises LeaseLost when they went because another process ended the batch
            raise

    def _commit(self, fields: Mapping[str, Field] | None = None, *, over: bool = False, let_go: bool = False) -> None:
        """Commit, retrying through outages. A lease that expires meanwhile is lost."""
        while True:
            try:
                self._parts.commit(fields, over=over, let_go=let_go)
                if not over and not let_go:
                    self._look_at_key()
                return
            except RedisError as error:
                if self._stop.is_set() or not cannot_serve(error):
                    raise
                time.sleep(OUTAGE_PAUSE_S)

    def _look_at_key(self) -> None:
        """Cancel the batch if its API key was revoked since."""
        if self._lease.cancelling or time.monotonic() < self._key_looked_at + LOOK_S:
            return
        self._key_looked_at = time.monotonic()
        record = self._lease.record()
        if record.status in CANCELLABLE and api_key_store.is_revoked(self._redis, record.asked.caller.id):
            self._lease.commit(fields={"cancelling_at": int(time.time()), "mistakes": _told([REVOKED])})

    def _alive(self) -> None:
        """Renew the lease when it is time; ends the run when it is to stop."""
        self._advance()
        if self._stop.is_set():
            raise Stopped("the batch is to stop")
        if self._parts.due:
            self._commit()

    def _terms(self, record: BatchRecord) -> Terms:
        asked = record.asked
        deadline = datetime.fromtimestamp(asked.expires_at, UTC)
        return Terms(
            self._client.settings, record.id, asked.caller, asked.model, endpoint=asked.endpoint, deadline=deadline
        )

    def _input(self, record: BatchRecord) -> BinaryIO:
        return self._store.open(f"{SOURCE}/{record.asked.input_file_id}")

    def _check(self, record: BatchRecord) -> None:
        """Validate the input. Any mistake ends the batch, and all of them are listed."""
        checking = _CHECKING[record.tenant]
        while not checking.acquire(timeout=1.0):
            self._alive()
        checked = ValidationReport()
        try:
            settings = self._client.settings
            longest = lines.longest(settings)
            most = settings.gateway.max_file_lines
            with self._input(record) as file:
                read = self._in_slices(lines.read(file, longest))
                for _ in check(read, longest, self._terms(record), most, checked):
                    self._alive()
                    if self._lease.cancelling:
                        break
        except FileNotFoundError:
            checked.mistakes.append(DELETED)
        finally:
            checking.release()
        now = int(time.time())
        if self._lease.cancelling:
            self._commit({"status": "cancelled", "cancelled_at": now})
        elif checked.mistakes:
            self._commit({"status": "failed", "failed_at": now, "mistakes": _told(checked.mistakes)})
        else:
            self._commit({"status": "in_progress", "in_progress_at": now, "total": checked.total})

    def _in_slices(self, read: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """The lines, with a pause for the other batches of the process after each that took long."""
        for each in read:
            began = time.monotonic()
            yield each
            if (took := time.monotonic() - began) >= SLICE_S:
                self._alive()
                self._stop.wait(min(took, REST_S))

    def _fly(self, record: BatchRecord) -> None:
        """Answer every line: by its job, or as not run because the batch ended before."""
        finished = self._parts.survey(self._alive)
        longest = lines.longest(self._client.settings)
        tell = tell_openai(record.id, self._why)
        terms, size = self._terms(record), chunk(self._client.settings, record.tenant)
        fresh = Flight(self._client, terms, tell, self._parts, finished, size)
        try:
            source = self._input(record)
        except FileNotFoundError:  # nobody knows any more what was asked; what was answered is not lost
            self._finish("failed", mistakes=_told([DELETED]))
            return
        with source as file, closing(fresh) as flight:
            left = LineSource(file, longest, finished, terms.model_of)
            pace = Pace(time.time(), len(finished))

            def over() -> bool:
                return self._lease.cancelling or time.time() >= record.asked.expires_at or self._stop.is_set()

            answered = len(finished)
            for _ in fly(left, flight, self._width(), over):
                if len(finished) > answered:
                    answered = len(finished)
                    self._advance()
                if self._parts.due:
                    now = time.time()
                    rate = pace.add(now, len(finished))
                    self._commit({"lines_per_s": round(rate, 3), "told_at": round(now, 3)})
                    flight.send_again()
            if self._stop.is_set():
                raise Stopped("the batch is to stop")
            ending = self._answer_the_rest(left, flight)
        self._finish(ending)

    def _finish(self, ending: Status, **besides: Field) -> None:
        """Finalize: step 6 of ``parts``."""
        self._commit({"status": "finalizing", "finalizing_at": int(time.time()), "ending": ending, **besides})

    def _width(self) -> Callable[[str], int]:
        beats: list[heartbeat.Heartbeat] = []
        look_at = 0.0

        def of(model: str) -> int:
            nonlocal beats, look_at
            if time.monotonic() >= look_at:
                beats, look_at = heartbeat.read_all(self._redis), time.monotonic() + LOOK_S
            return width(beats, model)

        return of

    def _answer_the_rest(self, left: LineSource, flight: Flight) -> Status:
        """Answer the remaining lines without submitting more: jobs that ended keep their answers, others were not
        run."""
        ending: Status = "cancelled" if self._lease.cancelling else "expired"
        any_left = bool(len(flight))
        if any_left:
            self._cancel_flight(flight)
            flight.give_up(self._why())
        for count, line in enumerate(left.rest(), 1):
            any_left = True
            flight.refuse(line, self._why())
            if count % CHUNK == 0:
                self._alive()
        return ending if any_left else "completed"

    def _why(self) -> NotRun:
        return cancelled() if self._lease.cancelling else expired()

    def _cancel_flight(self, flight: Flight) -> None:
        """Cancel the jobs in flight; those that ended before keep their answers."""
        deadline = time.monotonic() + CANCEL_S
        cancelled = False
        while len(flight) and time.monotonic() < deadline:
            try:
                if not cancelled:
                    self._client.cancel_many(flight.job_ids, tenant=self._lease.record().tenant)
                    cancelled = True
                flight.collect(POLL_S)
            except (BrokerUnavailable, RedisError) as error:
                if not cannot_serve(error):
                    raise
                time.sleep(OUTAGE_PAUSE_S)
            self._alive()
            if not flight.waits:
                return

    def _finalize(self, record: BatchRecord) -> None:
        """Assemble the output: steps 7 and 8 of ``parts``."""
        registry, made = Registry(self._redis), {}
        for failed, field in ((False, "output"), (True, "error")):
            file_id = f"file-{record.id.removeprefix('batch_')}-{field}"
            if size := self._parts.put_together(failed, file_id, self._alive):
                made[f"{field}_file_id"] = file_id
                name = f"{record.id}_{field}.jsonl"
                registry.add_file(
                    FileRecord(
                        id=file_id,
                        tenant=record.tenant,
                        filename=name,
                        purpose="batch_output",
                        size=size,
                        created_at=int(time.time()),
                    )
                )
        self._commit({"status": record.ending, f"{record.ending}_at": int(time.time()), **made})

    def _close(self) -> Status:
        """Clean up: steps 9 and 10 of ``parts``."""
        record = self._lease.record()
        assert record.status in ENDED
        self._parts.delete()
        self._commit(over=True)
        return record.status


def _told(mistakes: list[FileMistake]) -> str:
    return json.dumps([mistake.model_dump() for mistake in mistakes])
