"""The loop of a run: keep its flight filled, and collect, through outages and full queues."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice

from redis.exceptions import RedisError

from producer.contract.errors import BrokerUnavailable
from producer.contract.redis_errors import cannot_serve

from .in_flight import Flight
from .lines import Line

POLL_S = 0.25
"""Longest wait for results before progress is told, in seconds; also how soon a stop is noticed."""

OUTAGE_PAUSE_S = 0.5
"""How long to leave a Redis alone that is away or out of memory."""

HINT_S = 10.0
"""How long nothing may be answered before somebody is told what is missing, and how often that is looked at."""


def fly(
    lines: Iterator[Line],
    flight: Flight,
    most: Callable[[], int],
    stopping: Callable[[], bool],
    hint: Callable[[], str] = str,
) -> Iterator[str]:
    """Submit lines and collect their answers until all are answered, or it is to stop.

    Yields what holds it up, such as a Redis that is away, at least every ``POLL_S`` seconds; empty while it goes on.

    Args:
        most: how many lines may be in flight now.
        hint: asked when nothing comes: what may be missing.
    """
    resumed, more = len(flight.finished), True
    missing, look_at = "", time.monotonic() + HINT_S
    while not stopping() and (more or len(flight)):
        waiting = ""
        try:
            room = most() - len(flight)
            if more and room >= flight.chunk and flight.has_room:  # not for each job that ends, a write of its own
                more = flight.take(_bounded(islice(lines, room), flight))
            waiting = flight.send()
            flight.collect(POLL_S)
            if len(flight.finished) > resumed:
                missing, look_at = "", math.inf
            elif time.monotonic() >= look_at:
                missing, look_at = hint(), time.monotonic() + HINT_S
        except (BrokerUnavailable, RedisError) as error:
            if not cannot_serve(error):
                raise
            flight.resend()
            waiting = str(error)
            time.sleep(OUTAGE_PAUSE_S)
        yield "; ".join(filter(None, (waiting, missing)))


def _bounded(lines: Iterator[Line], flight: Flight) -> Iterator[Line]:
    """Lines while there is room for their bytes."""
    while flight.has_room and (line := next(lines, None)) is not None:
        yield line
