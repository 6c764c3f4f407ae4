"""Batch storage for the routes: records in Redis, file contents in the store."""

from __future__ import annotations

from types import TracebackType
from typing import Annotated, Self

from fastapi import Depends, Request

from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import close, connect

from .registry import Registry
from .store import store_of


class BatchStorage:
    """The registry and the store, for the routes of files and batches, which run on threads because they read files."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings)
        self.registry = Registry(self._redis)
        self.store = store_of(settings)
        self.limits = settings.gateway

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._redis)


def _storage(request: Request) -> BatchStorage:
    storage: BatchStorage = request.app.state.storage
    return storage


Storage = Annotated[BatchStorage, Depends(_storage)]
"""The process's batch storage."""
