"""The channel: claims jobs for the worker while it has room, and waits for jobs by blocking peeks.

One Lua script takes jobs and leases them (``claim.lua``), and no message is acknowledged singly: ends are committed
together (``ledger``). A claim goes whole to its taker (``taker.Taker``), past Kombu's and Celery's handling of single
messages, which took three quarters of a worker's time.

Private parts of Kombu 5.7 in use: ``Channel.handlers``, ``Channel.pool``, ``Channel._queue_bind``,
``Channel._handle_message``, ``Channel._receive_one``. ``tests/integration/test_celery_contract.py`` covers them.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from functools import partial
from typing import Any, Protocol

import redis
from kombu.transport import redis as stock
from kombu.transport import virtual

from producer.contract import keys
from producer.contract.server.redis_errors import refusal

from .lease.ledger import REFUSED_S, Ledger
from .poller import Poller

logger = logging.getLogger(__name__)

PEEK_S = 5
"""Timeout of a blocking peek, in seconds. No answer after twice this time means a dead connection."""

EMPTYING_S = 1.0
"""Interval in seconds at which a worker that empties itself for a suspect claims again: another worker may have taken
it."""

REPLICA = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Refusals of a server that is no longer the master: a new connection may lead to the new master."""


class Commands(Protocol):
    """Decides which messages of fan-outs, which are those of remote control, are passed on to Celery."""

    def admits(self, document: bytes) -> bool:
        """Whether a message is passed on."""


class QoS(virtual.QoS):
    """Kombu's record of unacknowledged messages, which stays empty: the leases record what is in flight."""

    # A broken connection must not give back the jobs that the engine is running.
    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Whether the worker has room; the prefetch count does not matter."""
        ledger: Ledger = self.channel.ledger
        return bool(ledger.open_queues)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``reap.lua`` returns the jobs of expired leases."""


class _Peek:
    """A blocking peek at a list: ``BLMOVE k k RIGHT RIGHT`` answers once the list has an element, unchanged.

    Args:
        name: the key of the list.
        queue: the queue whose jobs the list announces; empty if those of any queue.
    """

    def __init__(self, name: str, queue: str) -> None:
        self.name = name
        self.queue = queue
        self.connection: Any = None  # Kombu's poller requires this name
        self.sent_at: float | None = None
        self.refused_until = 0.0

    def send(self) -> None:
        self.connection.send_command("BLMOVE", self.name, self.name, "RIGHT", "RIGHT", PEEK_S)
        self.sent_at = time.monotonic()

    @property
    def overdue(self) -> bool:
        return self.sent_at is not None and time.monotonic() - self.sent_at > 2 * PEEK_S


class _State(enum.Enum):
    """The state of a channel."""

    IDLE = enum.auto()
    """The next step is a claim."""
    CLAIMING = enum.auto()
    """A claim has been sent and not been answered."""
    PEEKING = enum.auto()
    """The last claim emptied the queues that there is room for, or found the rest blocked by quotas. A blocking peek
    waits for jobs on each queue, on the list that announces jobs in its lanes, and on the list of suspects, if it would
    take one."""
    WAITING = enum.auto()
    """No claim until a set time or until the number of held jobs changes: jobs are held for a fuller batch or left to
    workers with a free slot, the worker empties itself for a suspect, or Redis refused to serve."""


class Channel(stock.Channel):
    """Claims jobs while the worker has room, and waits for jobs by blocking peeks while the queues are empty."""

    QoS = QoS  # type: ignore[assignment]  # the stock one is the sweep that leases replace
    from_transport_options = (*stock.Channel.from_transport_options, "ledger", "commands")  # type: ignore[assignment]  # longer
    ledger: Ledger
    commands: Commands

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = _State.IDLE
        self._refused = ""  # the error code with which Redis refused the last claim
        self._look_again_at = math.inf
        self._held_then = 0
        self._open_then: frozenset[str] = frozenset()
        self._peeks: dict[str, _Peek] = {}
        self.handlers["CLAIM"] = self._on_claimed

    def poll_start(self, poller: Poller) -> None:
        """Take the next step. The poller calls this before every sleep of the event loop."""
        for peek in self._peeks.values():
            if peek.overdue:
                raise redis.ConnectionError("a blocking peek got no answer: the connection is dead")
        if self._state is _State.CLAIMING or not (open_queues := self.ledger.open_queues):
            return
        if self._state is _State.WAITING and (
            self.ledger.count != self._held_then or time.monotonic() >= self._look_again_at
        ):
            self._state = _State.IDLE
        if self._state is _State.PEEKING and (
            time.monotonic() >= self._look_again_at or not self._open_then.issuperset(open_queues)
        ):
            self._state = _State.IDLE
        if self._state is _State.IDLE:
            self._open_then = frozenset(open_queues)
            self._claim(poller)
        elif self._state is _State.PEEKING:
            self._peek(poller, open_queues)

    def _claim(self, poller: Poller) -> None:
        self._look_again_at = math.inf
        poller.ensure_registered(self, self.client, "CLAIM")
        self.client.connection.send_command(*self.ledger.claim_command())
        self._state = _State.CLAIMING

    def _on_claimed(self) -> None:
        self._state = _State.IDLE
        try:
            answer = self.client.parse_response(self.client.connection, "EVALSHA")
        except redis.exceptions.NoScriptError:  # a new or restarted server
            self.ledger.queue.load()
            return
        except redis.ResponseError as error:
            self._wait_out(error)
            return
        self._refused = ""
        claim = self.ledger.queue.read_claim(answer)
        empties = self.ledger.empties(claim)
        self.ledger.take(claim.jobs, claim.overdue, claim.patience)
        self.ledger.taker.take(claim)
        if claim.look_again_s is not None:
            self._wait(claim.look_again_s)
        elif empties:
            self._wait(EMPTYING_S)
        else:
            self._state = _State.PEEKING  # a peek answers at once if the claim left jobs
            if claim.blocked_s is not None:  # no peek answers when a quota allows jobs again
                self._look_again(claim.blocked_s)

    def _wait_out(self, error: redis.ResponseError) -> None:
        """Pause claims if Redis refused to serve; raise any other error."""
        code = refusal(error)
        if code in REPLICA:
            time.sleep(REFUSED_S)  # otherwise it would reconnect to the same server many times a second
        if not code or code in REPLICA:
            raise error
        if code != self._refused:
            logger.warning("no jobs can be taken now: %s", error)
        self._refused = code
        self._wait(REFUSED_S)

    def _wait(self, seconds: float) -> None:
        self._state = _State.WAITING
        self._held_then = self.ledger.count
        self._look_again(seconds)

    def _look_again(self, seconds: float) -> None:
        self._look_again_at = time.monotonic() + seconds
        self.connection.cycle.wake_in(seconds)

    def _peek(self, poller: Poller, open_queues: list[str]) -> None:
        suspects = [(keys.suspects(self.ledger.queue.model), "")] if self.ledger.wants_suspect else []
        bells = [(self.ledger.queue.wakes[queue], queue) for queue in open_queues]
        for name, queue in (*suspects, *zip(open_queues, open_queues, strict=True), *bells):
            peek = self._peeks.setdefault(name, _Peek(name, queue))
            if peek.connection is None:
                peek.connection = self.pool.get_connection()
                self.handlers[f"PEEK {name}"] = partial(self._on_peeked, peek)
            if peek.sent_at is None and time.monotonic() >= peek.refused_until:
                poller.ensure_registered(self, peek, f"PEEK {name}")
                peek.send()

    def _on_peeked(self, peek: _Peek) -> None:
        peek.sent_at = None
        try:
            found = peek.connection.read_response()
        except redis.ResponseError as error:  # BLMOVE is refused as a write; claims then replace the peek
            if not refusal(error):
                raise
            found, peek.refused_until = True, time.monotonic() + REFUSED_S
        if found is not None and self._state is _State.PEEKING and peek.queue in ("", *self.ledger.open_queues):
            self._state = _State.IDLE

    def _basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming. The jobs of a claim that is still unanswered are given back once it is answered."""
        super()._basic_cancel(consumer_tag)
        if self._state is _State.CLAIMING and not self.active_queues:
            self._state = _State.IDLE
            try:
                answer = self.client.parse_response(self.client.connection, "EVALSHA")
            except redis.ResponseError as error:
                if not refusal(error):
                    raise
                return  # the claim took no jobs
            jobs = self.ledger.queue.read_claim(answer).jobs
            self.ledger.take(jobs)
            self.ledger.release([job.lease for job in jobs])

    def _queue_bind(self, *args: Any) -> None:
        """Register a queue for publishers, the first command of Celery on every connection.

        Consuming does not need it: a server that refuses writes for now is no reason to connect anew.
        """
        try:
            super()._queue_bind(*args)
        except redis.ResponseError as error:
            code = refusal(error)
            if not code or code in REPLICA:
                if code:
                    time.sleep(REFUSED_S)  # Celery reconnects at once
                raise

    def _receive_one(self, client: Any) -> Any:
        """Read a message of a fan-out. Whatever Kombu makes of one that was admitted, the worker goes on."""
        try:
            return super()._receive_one(client)
        except self.connection_errors:
            raise
        except Exception as error:
            logger.warning("a message of remote control was dropped, which cannot be read: %r", error)
            return True

    def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
        """Read what a subscription tells. Any client of Redis that may publish can send a message: one that is not
        admitted is emptied, and Kombu goes on."""
        message: dict[str, Any] = super()._handle_message(client, response)
        if isinstance(message["data"], bytes) and message["type"] in (b"message", b"pmessage"):
            message["data"] = message["data"] if self.commands.admits(message["data"]) else b""
        return message

    def close(self) -> None:
        """Close the channel and the connections of its peeks."""
        for peek in self._peeks.values():
            if peek.connection is not None:
                peek.connection.disconnect()
        self._peeks.clear()
        super().close()


class SentinelChannel(Channel, stock.SentinelChannel):
    """A channel to the master that Redis Sentinel names."""

    from_transport_options = (*stock.SentinelChannel.from_transport_options, "ledger", "commands")  # type: ignore[assignment]  # longer
