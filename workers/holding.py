"""How long jobs may wait for a fuller batch, from what this worker sees: the inputs of
``scheduler.window.learned_window``."""

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

    from producer.contract.settings import Settings
    from scheduler.lease.queue import Claim

logger = logging.getLogger(__name__)


class Holding:
    """Learns what a batch costs and how fast jobs come. The event loop's, but for ``load`` and ``save``.

    An engine that tells of no batches, as its requests join a running one, is never known to save anything by
    waiting: nothing is held for it.
    """

    def __init__(self, settings: Settings, model: str, kind: str) -> None:
        self._model = model
        self._kind = kind  # of device: others of it learn the same costs
        targets_s = [settings.tiers[tier].target_wait_s for tier in settings.model(model).tiers]
        self._window = LearnedWindow(targets_s, settings.model(model).max_concurrency)
        self._lock = threading.Lock()  # around what is known of the cost
        self._occupied = self._waiting = False
        self._ran_at = 0.0  # when the device last had nothing, or ended a batch; on the monotonic clock

    def see(self, claim: Claim, held: int) -> None:
        """A claim was answered; ``held`` jobs are in the worker's hands by then."""
        if held == len(claim.jobs):  # there were none before
            self._ran_at = time.monotonic()
        self._window.see(claim.now, claim.arrived, occupied=self._occupied, waiting=self._waiting)
        self._waiting = claim.look_again_s is not None
        self._occupied = held > 0 or self._waiting

    def learn(self, batch: Batch) -> None:
        """The device ran a batch."""
        self._ran_at = time.monotonic()
        with self._lock:
            self._window.cost.learn(batch.requests, batch.rows, batch.ran_s)

    def hold(self, held: int) -> HoldLimits:
        """What may be held now that the worker holds so many jobs."""
        if not held:
            return self._window.hold()
        ends_at = self._ran_at + self._window.cost.cost.expected(held)
        return self._window.hold(max(0.0, ends_at - time.monotonic()))

    def load(self, redis: Redis) -> None:
        """Start with what others have learned of the model on this kind of device."""
        told = redis.hget(keys.costs(self._model), self._kind)
        try:
            known = LearnedCost(json.loads(told) if told else None)
            with self._lock:
                self._window.cost = known
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("what is kept in %s cannot be read, and is learned anew: %s", keys.costs(self._model), error)

    def save(self, redis: Redis) -> None:
        """Leave what was learned to others."""
        with self._lock:
            fields = self._window.cost.fields
        redis.hset(keys.costs(self._model), self._kind, json.dumps(fields))
