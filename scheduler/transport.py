"""The Kombu transport of our workers: stock Redis, except for how messages are taken, kept and acknowledged.

Stock Kombu pops a message and records it afterwards; a worker killed in between loses it. Here one Lua script
takes a batch and leases it (``claim.lua``), and nothing is written again until the batch ends (``ledger``). What was
claimed goes whole to whoever runs it (``ledger.Taker``), past Kombu's and Celery's handling of single messages, which
took three quarters of a worker's time. Fan-out, and with it remote control, events and Flower, is Kombu's own.
Selected by ``broker_transport`` on workers only: producers and Flower stay on ``redis://``.

Private parts of Kombu 5.7 that this touches: ``MultiChannelPoller._register``, ``_fd_to_chan``, ``_chan_to_sock``,
``Channel.handlers``, ``Channel.pool``, ``Channel._queue_bind``. ``tests/integration/test_celery_contract.py`` covers
them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from kombu.transport import redis as stock
from kombu.transport import virtual

from producer.contract import keys
from producer.contract.redis_errors import refusal

from .lease.ledger import REFUSED_S, Ledger

logger = logging.getLogger(__name__)

PEEK_S = 5
"""How long one blocking peek lasts, in seconds. A peek that is overdue by as much again means a dead connection."""

EMPTYING_S = 1.0
"""How often a worker that holds jobs looks whether a suspect still waits, in seconds: another may have taken it."""

REPLICA = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Refusals of a server that is no master any more: to connect anew may lead to the new one."""


class QoS(virtual.QoS):
    """Kombu's bookkeeping of messages, of which there is none: the leases remember what is in flight."""

    # A connection that breaks must not give back what the engine is running.
    restore_at_shutdown = False

    def can_consume(self) -> bool:
        """Whether the engine has room, whatever the prefetch count says."""
        ledger: Ledger = self.channel.ledger
        return bool(ledger.open_queues)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Leave Kombu's own sweep out: ``reap.lua`` does it by the leases."""


class _Peek:
    """A blocking look at a list: ``BLMOVE k k RIGHT RIGHT`` leaves it as it is, and answers once it holds something.

    Args:
        name: of the list.
        queue: of whose jobs it tells; empty if of any.
    """

    def __init__(self, name: str, queue: str) -> None:
        self.name = name
        self.queue = queue
        self.connection: Any = None  # the name that Kombu's poller looks for
        self.sent_at: float | None = None
        self.refused_until = 0.0

    def send(self) -> None:
        self.connection.send_command("BLMOVE", self.name, self.name, "RIGHT", "RIGHT", PEEK_S)
        self.sent_at = time.monotonic()

    @property
    def overdue(self) -> bool:
        return self.sent_at is not None and time.monotonic() - self.sent_at > 2 * PEEK_S


class Channel(stock.Channel):
    """Takes jobs while the engine has room; peeks while there are none.

    It is in one of four states: *idle*, *claiming* (a claim is on its way), *peeking* (the queues that there is room
    for were empty, and a blocking peek is out on each, and on what says that there are jobs in its lanes), or
    *waiting* (there are jobs, but not for us now: a fuller batch is worth some time, another worker may have a slot for
    them, or a suspect goes first, to a worker that holds nothing).
    """

    QoS = QoS  # type: ignore[assignment]  # the stock one is the sweep that leases replace
    from_transport_options = (*stock.Channel.from_transport_options, "ledger")  # type: ignore[assignment]  # one more
    ledger: Ledger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = "idle"
        self._refused = ""  # with which code Redis refused the last claim
        self._look_again_at = math.inf
        self._held_then = 0
        self._open_then: frozenset[str] = frozenset()
        self._peeks: dict[str, _Peek] = {}
        self.handlers["CLAIM"] = self._on_claimed

    def poll_start(self, poller: Poller) -> None:
        """Take the next step: called before every sleep of the event loop."""
        for peek in self._peeks.values():
            if peek.overdue:
                raise redis.ConnectionError("a blocking peek got no answer: the connection is dead")
        if self._state == "claiming" or not (open_queues := self.ledger.open_queues):
            return
        if self._state == "waiting" and (
            self.ledger.count != self._held_then or time.monotonic() >= self._look_again_at
        ):
            self._state = "idle"
        if self._state == "peeking" and (
            time.monotonic() >= self._look_again_at or not self._open_then.issuperset(open_queues)
        ):
            self._state = "idle"
        if self._state == "idle":
            self._open_then = frozenset(open_queues)
            self._claim(poller)
        elif self._state == "peeking":
            self._peek(poller, open_queues)

    def _claim(self, poller: Poller) -> None:
        self._look_again_at = math.inf
        poller.ensure_registered(self, self.client, "CLAIM")
        self.client.connection.send_command(*self.ledger.claim_command())
        self._state = "claiming"

    def _on_claimed(self) -> None:
        self._state = "idle"
        try:
            answer = self.client.parse_response(self.client.connection, "EVALSHA")
        except redis.exceptions.NoScriptError:  # a new server, or one that restarted
            self.ledger.queue.load()
            return
        except redis.ResponseError as error:
            self._wait_out(error)
            return
        self._refused = ""
        claim = self.ledger.queue.read_claim(answer)
        self.ledger.take(claim.jobs, claim.overdue)
        self.ledger.taker.take(claim)
        if claim.look_again_s is not None:
            self._wait(claim.look_again_s)
        elif claim.suspects and not claim.jobs:
            self._wait(EMPTYING_S)
        else:
            self._state = "peeking"  # of what it left, a peek tells at once
            if claim.blocked_s is not None:  # but not when a tenant may go on again
                self._look_again(claim.blocked_s)

    def _wait_out(self, error: redis.ResponseError) -> None:
        """Leave a Redis that cannot serve now alone for a while, or raise any other error."""
        code = refusal(error)
        if code in REPLICA:
            time.sleep(REFUSED_S)  # or the same server would be connected to many times a second
        if not code or code in REPLICA:
            raise error
        if code != self._refused:
            logger.warning("no jobs can be taken now: %s", error)
        self._refused = code
        self._wait(REFUSED_S)

    def _wait(self, seconds: float) -> None:
        self._state = "waiting"
        self._held_then = self.ledger.count
        self._look_again(seconds)

    def _look_again(self, seconds: float) -> None:
        self._look_again_at = time.monotonic() + seconds
        self.connection.cycle.wake_in(seconds)

    def _peek(self, poller: Poller, open_queues: list[str]) -> None:
        suspects = keys.suspects(self.ledger.queue.model)
        bells = [(self.ledger.queue.wakes[queue], queue) for queue in open_queues]
        for name, queue in ((suspects, ""), *zip(open_queues, open_queues, strict=True), *bells):
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
        except redis.ResponseError as error:  # a peek counts as a write; then claim now and then
            if not refusal(error):
                raise
            found, peek.refused_until = True, time.monotonic() + REFUSED_S
        if found is not None and self._state == "peeking" and peek.queue in ("", *self.ledger.open_queues):
            self._state = "idle"

    def _basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming. A claim that is still on its way is awaited, and what it took is given back."""
        super()._basic_cancel(consumer_tag)
        if self._state == "claiming" and not self.active_queues:
            self._state = "idle"
            try:
                answer = self.client.parse_response(self.client.connection, "EVALSHA")
            except redis.ResponseError as error:
                if not refusal(error):
                    raise
                return  # it took nothing
            jobs = self.ledger.queue.read_claim(answer).jobs
            self.ledger.take(jobs)
            self.ledger.release([job.lease for job in jobs])

    def _queue_bind(self, *args: Any) -> None:
        """Write down that a queue is there, which Celery begins every connection with."""
        try:
            super()._queue_bind(*args)
        except redis.ResponseError as error:
            if refusal(error):
                time.sleep(REFUSED_S)  # Celery connects anew at once
            raise

    def close(self) -> None:
        """Close the peeks' connections with the channel."""
        for peek in self._peeks.values():
            if peek.connection is not None:
                peek.connection.disconnect()
        self._peeks.clear()
        super().close()


class SentinelChannel(Channel, stock.SentinelChannel):
    """The same on the master of a group that sentinels watch."""

    from_transport_options = (  # type: ignore[assignment]  # one more
        *stock.SentinelChannel.from_transport_options,
        "ledger",
    )


class Poller(stock.MultiChannelPoller):
    """Drives the channels, and commits what has ended before every sleep."""

    loop: Any = None
    """Celery's event loop."""

    def wake_in(self, seconds: float) -> None:
        """End the sleep of the event loop in time for the channels' next step."""
        if self.loop is not None:
            self.loop.call_later(seconds, _nothing)

    def on_poll_start(self) -> None:
        """Flush, then let every channel take its next step."""
        for channel in self._channels:
            channel.ledger.flush()  # also when nothing is consumed any more: a draining worker still ends jobs
            if channel.active_queues:
                channel.poll_start(self)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)

    def ensure_registered(self, channel: Channel, client: Any, kind: str) -> None:
        """Connect a client and watch its socket."""
        if not self._client_registered(channel, client, kind):
            self._register(channel, client, kind)

    def on_readable(self, fileno: int) -> None:
        """Hand an answer to the channel that waits for it."""
        if found := self._fd_to_chan.get(fileno):
            channel, kind = found
            handler: Callable[[], Any] = channel.handlers[kind]
            handler()


def _nothing() -> None:
    """That the loop has woken is all that was wanted."""


class Transport(stock.Transport):
    """Celery's ``broker_transport`` for workers; wants ``broker_transport_options={"ledger": Ledger(...)}``."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Poller = Poller()  # type: ignore[assignment]  # as in the stock transport

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Celery gives us its loop."""
        self.cycle.loop = loop
        super().register_with_event_loop(connection, loop)


class SentinelTransport(Transport):
    """The same by way of Sentinel; wants ``master_name`` as well."""

    default_port = stock.SentinelTransport.default_port  # type: ignore[assignment]  # as in the stock transport
    Channel = SentinelChannel
