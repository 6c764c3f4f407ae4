"""The hold limits of this worker: feeds ``scheduler.window.learned_window`` with the claims and batches it sees."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from producer.contract import keys
from scheduler.window.batch_cost import LearnedCost
from scheduler.window.learned_window import LearnedWindow
from scheduler.window.window import HoldLimits

from .engines.protocol import Batch

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings
    from scheduler.lease.queue import Claim

logger = logging.getLogger(__name__)


class Holding:
    """Learns the cost of a batch and the arrival rates. Used on the event loop, except ``load`` and ``save``.

    An engine whose requests join a running batch reports no batches, so that holding is never known to save anything,
    and nothing is held.
    """

    def __init__(self, settings: Settings, model: str, kind: str) -> None:
        self._model = model
        self._kind = kind  # the device type: workers on the same type learn the same costs
        targets_s = [settings.tiers[tier].target_wait_s for tier in settings.model(model).tiers]
        self._window = LearnedWindow(targets_s, settings.model(model).max_concurrency)
        self._lock = threading.Lock()  # guards the learned cost
        self._occupied = self._waiting = False
        self._ran_at = 0.0  # when the device was last idle or ended a batch, on the monotonic clock

    def see(self, claim: Claim, held: int) -> None:
        """Learn from a claim; ``held`` is how many jobs the worker holds with it."""
        if held == len(claim.jobs):  # it held none before
            self._ran_at = time.monotonic()
        self._window.see(claim.now, claim.arrived, occupied=self._occupied, waiting=self._waiting)
        self._waiting = claim.look_again_s is not None
        self._occupied = held > 0 or self._waiting

    def learn(self, batch: Batch) -> None:
        """Learn from a batch that the device ran."""
        self._ran_at = time.monotonic()
        with self._lock:
            self._window.cost.learn(batch.requests, batch.rows, batch.ran_s)

    def hold(self, held: int) -> HoldLimits:
        """The hold limits while the worker holds ``held`` jobs."""
        if not held:
            return self._window.hold()
        ends_at = self._ran_at + self._window.cost.cost.expected(held)
        return self._window.hold(max(0.0, ends_at - time.monotonic()))

    def load(self, redis: Redis) -> None:
        """Start with the costs that other workers have learned for the model on this device type."""
        told = redis.hget(keys.costs(self._model), self._kind)
        try:
            known = LearnedCost(json.loads(told) if told else None)
            with self._lock:
                self._window.cost = known
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("the costs in %s cannot be read and are learned again: %s", keys.costs(self._model), error)

    def save(self, redis: Redis) -> None:
        """Store the learned costs for other workers."""
        with self._lock:
            fields = self._window.cost.fields
        redis.hset(keys.costs(self._model), self._kind, json.dumps(fields))
