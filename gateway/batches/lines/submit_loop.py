"""The submit loop of a run: keeps lines in flight and collects their answers, through outages and full queues."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from redis.exceptions import RedisError

from producer.contract.errors import BrokerUnavailable
from producer.contract.server.redis_errors import cannot_serve

from .in_flight import Flight
from .line_source import LineSource

POLL_S = 0.25
"""Longest wait for results before progress is reported and a stop is noticed, in seconds."""

OUTAGE_PAUSE_S = 0.5
"""Pause while Redis is away or out of memory, in seconds."""

HINT_S = 10.0
"""Seconds without an answer after which the cause is looked for and reported."""


def fly(
    source: LineSource,
    flight: Flight,
    width: Callable[[str], int],
    stopping: Callable[[], bool],
    hint: Callable[[], str] = str,
) -> Iterator[str]:
    """Submit lines and collect their answers until all are answered, or the run is to stop.

    Yields at least every ``POLL_S`` seconds: what blocks it, such as a Redis that is away, or an empty text.

    Args:
        width: how many lines of a model may be in flight now.
        hint: asked for what is missing when no answers come.
    """
    resumed = len(flight.finished)
    missing, look_at = "", time.monotonic() + HINT_S
    while not stopping() and (source.more or len(flight)):
        waiting = ""
        try:
            flight.take(source, width)
            waiting = flight.send()
            flight.collect(0.0 if source.looking else POLL_S)
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
