"""The engine protocol: the only thing a model has to implement to be served.

The pool calls ``submit``, ``cancel`` and ``withdraw`` from its own thread and everything else from the one thread
that owns the device. A request that was submitted has exactly one :class:`Outcome`, whatever happens
to it or to its neighbours; ``tests/acceptance/test_engine_contract.py`` holds every engine to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from producer.contract.errors import StokerError
from producer.contract.job import Item


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is asked for: the inputs of one job, answered as one.

    ``id`` is unique among the requests the engine holds. ``parameters`` are the producer's, unchecked.
    ``deadline`` is the instant, on the monotonic clock in seconds, from which on the answer is worth nothing: an
    engine that is still at it then ends the request with ``JobExpired``. With ``stream`` it tells a
    :class:`OutputPiece` of what it makes as it makes it, if it makes its outputs bit by bit.
    """

    id: str
    inputs: list[Item]
    parameters: dict[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one terminal answer to a request: ``outputs`` (one per input, in order) or ``error``.

    An ``InvalidJob`` error is the request's own fault and final; an ``EngineError`` is not, and the
    request is tried again; ``JobCancelled`` and ``Preempted`` answer ``cancel`` and ``withdraw``.
    ``batch_size`` is how many inputs shared the device with this request when it ran, ``ran_s`` how long
    it was on the device, in seconds.
    """

    id: str
    outputs: list[Any] | None = None
    error: StokerError | None = None
    usage: dict[str, int] = field(default_factory=dict)
    ran_s: float = 0.0
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """What a streaming request has made of its output ``index`` since the piece before: the pieces of an output,
    put together, are its text. Comes before its request's :class:`Outcome`, never after."""

    id: str
    index: int
    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that the device ran, for who learns what a batch costs: its requests, its rows, its tokens with
    padding, and how long it took in seconds. Engines whose requests join a running batch tell none."""

    requests: int
    rows: int
    tokens: int
    ran_s: float


@dataclass(frozen=True, slots=True)
class Prefilled:
    """No prompt of a request is being read any more, which has kept others that run waiting for their tokens for
    ``stall_s`` seconds in all; 0 where a server sees to it that prompts do not.

    An engine with ``slots`` tells it of every request that begins, unless that ends before, and never after its
    :class:`Outcome`; of one with more inputs than places perhaps several times.
    """

    id: str
    stall_s: float


Report = Outcome | OutputPiece | Batch | Prefilled
"""What ``step`` tells."""


class Engine(Protocol):
    """A model on a device."""

    @property
    def capacity(self) -> int:
        """How many requests it can make use of now: those on the device and at most one batch ahead."""

    @property
    def slots(self) -> int:
        """Inputs that run at once, each of which begins and ends by itself; 0 if they do in whole batches."""

    @property
    def progress(self) -> int:
        """Grows whenever the device got something done. One that holds requests and stands still is hung."""

    def load(self) -> None:
        """Bring the model onto the device and warm it up. May take minutes.

        Raises:
            ModelNotFound: when the source does not lead to a model.
        """

    def submit(self, request: Request) -> None:
        """Take a request. Thread-safe, never blocks and never raises: a bad request is an outcome."""

    def cancel(self, request_id: str) -> None:
        """Give up a request, wherever it is. Thread-safe; its outcome is a ``JobCancelled`` error."""

    def withdraw(self) -> None:
        """Let go of every request that has not begun. Thread-safe; the outcome of each is ``Preempted``."""

    def step(self, timeout: float) -> Sequence[Report]:
        """Run one batch, or one decode step, and return what became final, and what there is to tell besides.

        Waits up to ``timeout`` seconds for something to do. Never raises for a request's sake; an
        exception means that the engine is lost, and the worker with it.
        """

    def close(self) -> None:
        """Free the device. Requests still held get no outcome: their leases run out elsewhere."""
