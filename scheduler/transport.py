"""The Kombu transport of our workers: stock Redis, except for how messages are claimed, held and acknowledged.

Stock Kombu pops a message and records it afterwards; a worker killed in between loses it. Here a channel leases what it
takes (``channel``), and the poller commits the ends of jobs before the event loop sleeps (``poller``). Fan-out, and
with it remote control, events and Flower, is Kombu's own. Workers alone select this transport, by ``broker_transport``:
producers and Flower stay on ``redis://``.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as stock

from .channel import Channel, SentinelChannel
from .poller import Poller


class Transport(stock.Transport):
    """Celery's ``broker_transport`` for workers; it requires the options ``ledger`` (a :class:`Ledger`) and
    ``commands`` (:class:`~scheduler.channel.Commands`)."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Poller = Poller()  # type: ignore[assignment]  # as in the stock transport

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Keep the event loop that Celery passes."""
        self.cycle.loop = loop
        super().register_with_event_loop(connection, loop)


class SentinelTransport(Transport):
    """The transport by way of Redis Sentinel; requires the option ``master_name`` as well."""

    default_port = stock.SentinelTransport.default_port  # type: ignore[assignment]  # as in the stock transport
    Channel = SentinelChannel
