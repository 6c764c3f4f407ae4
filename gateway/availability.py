"""Models that are not ready: what their clients are told.

Where workers fail to start, requests are answered at once with the reason, and not queued.
"""

from __future__ import annotations

import time

from producer import calls
from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.published import PublishedSizes
from producer.contract.server.dialogue import run_async
from producer.estimates.readiness import ModelOutlook, ModelState, unavailable

READ_S = 1.0
"""Interval at which what the autoscaler publishes is read, in seconds: not for every request."""


async def outlook(client: AsyncClient, model: str) -> ModelOutlook:
    """What a client can expect of a model now."""
    return await run_async(client.redis, calls.outlook(client.settings, model))


async def waits_for(client: AsyncClient, model: str) -> str:
    """What a request for a model waits for."""
    found = await outlook(client, model)
    return "waiting" if found.state is ModelState.READY else f"waiting: {found.text}"


class Availability:
    """Which models are unavailable, by what the autoscaler published at most ``READ_S`` ago."""

    def __init__(self) -> None:
        self._sizes: PublishedSizes | None = None
        self._read_at = -READ_S

    async def check(self, client: AsyncClient, model: str) -> None:
        """Return if jobs of the model may be queued.

        Raises:
            ModelUnavailable: the workers of the model fail to start; with the reason.
        """
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            self._sizes = PublishedSizes.parse(await client.redis.get(keys.sizes()))
        size = self._sizes.models.get(model) if self._sizes else None
        if (error := unavailable(model, size, time.time())) is not None:
            raise error
