"""Metrics for Prometheus: requests of this gateway, and the queues of the fleet."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.async_client import AsyncClient
from producer.contract import heartbeat, keys
from producer.contract.queue.lanes import instant, jobs_in_lanes
from producer.contract.server.dialogue import run_async

from .access.hang_ups import KEY_NAME, HangUps
from .http.disconnect import CLOSED

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        of = ("method", "path")
        self.requests = Counter(
            "stoker_gateway_requests",
            "Requests; 499: the client went away",
            (*of, "status"),
            registry=registry,
        )
        self.running = Gauge("stoker_gateway_requests_running", "Requests being served", registry=registry)
        self.first_byte = Histogram(
            "stoker_gateway_first_byte_seconds", "Until an answer begins", of, registry=registry, buckets=_SECONDS
        )
        self.duration = Histogram(
            "stoker_gateway_request_seconds", "Until an answer ends", of, registry=registry, buckets=_SECONDS
        )
        queue = ("model", "tier")
        self._length = Gauge("stoker_queue_length", "Jobs waiting", queue, registry=registry)
        self._breakers = Gauge(
            "stoker_breakers_open",
            "Workers that get one job at a time: their engines fail",
            ("model",),
            registry=registry,
        )
        self._oldest = Gauge("stoker_queue_oldest_age_seconds", "How long its head waits", queue, registry=registry)

    async def told(self, client: AsyncClient) -> bytes:
        """All metrics in Prometheus's text format; the queues are read in one round trip."""
        queues = [(name, tier) for name, model in client.settings.models.items() for tier in model.tiers]
        async with client.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for name, tier in queues:
                queue = keys.queue(name, tier)
                pipe.llen(queue)
                # Since when its head was passed over; before any worker looked, since when it is not empty.
                pipe.hget(keys.served(name), queue)
                pipe.hget(keys.waiting(name), queue)
                pipe.hget(keys.lanes(name), f"jobs:{queue}")
            (seconds, microseconds), *answers = await pipe.execute()
        beats = await run_async(client.redis, heartbeat.reading())
        for model in client.settings.models:
            failing = sum(beat.model == model and beat.breaker != "closed" for beat in beats)
            self._breakers.labels(model).set(failing)
        now = seconds + microseconds / 1e6
        for number, (name, tier) in enumerate(queues):
            listed, served, waiting, laned = answers[4 * number : 4 * number + 4]
            length = listed + jobs_in_lanes(laned)
            since = instant(served or waiting, now)
            self._length.labels(name, tier).set(length)
            self._oldest.labels(name, tier).set(max(0.0, now - since) if length else 0.0)
        return generate_latest(self._registry)


class Measured:
    """Middleware that counts and times every request, and counts by key those whose client left before the end."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hang_ups: HangUps) -> None:
        self._app = app
        self._metrics = metrics
        self._hang_ups = hang_ups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, first, whole = time.perf_counter(), CLOSED, 0.0, False

        async def noted(message: Message) -> None:
            nonlocal status, first, whole
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter() - began
            else:
                whole = not message.get("more_body", False)
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.running.dec()
            key = scope.get("state", {}).get(KEY_NAME)
            if key is not None and (status == CLOSED or not whole):
                self._hang_ups.count(key, time.monotonic())
            # Unknown paths share one series, or clients could create series at will.
            of = (scope["method"], getattr(scope.get("route"), "path", "none"))
            self._metrics.requests.labels(*of, status).inc()
            if first:
                self._metrics.first_byte.labels(*of).observe(first)
                self._metrics.duration.labels(*of).observe(time.perf_counter() - began)
