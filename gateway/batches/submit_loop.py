"""The submit loop of a run: keeps lines in flight and collects their answers, through outages and full queues."""

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
"""Longest wait for results before progress is reported and a stop is noticed, in seconds."""

OUTAGE_PAUSE_S = 0.5
"""Pause while Redis is away or out of memory, in seconds."""

HINT_S = 10.0
"""Seconds without an answer after which the cause is looked for and reported."""


def fly(
    lines: Iterator[Line],
    flight: Flight,
    most: Callable[[], int],
    stopping: Callable[[], bool],
    hint: Callable[[], str] = str,
) -> Iterator[str]:
    """Submit lines and collect their answers until all are answered, or the run is to stop.

    Yields at least every ``POLL_S`` seconds: what blocks it, such as a Redis that is away, or an empty text.

    Args:
        most: how many lines may be in flight now.
        hint: asked for what is missing when no answers come.
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
    """The next lines, while there is room for their bytes."""
    while flight.has_room and (line := next(lines, None)) is not None:
        yield line
