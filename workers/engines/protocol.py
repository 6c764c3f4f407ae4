"""The engine protocol, which every implementation of a model fulfils.

The pool calls ``submit``, ``cancel`` and ``withdraw`` from its own thread, and all other methods from the thread that
owns the device. Every submitted request gets exactly one :class:`Outcome`, even if it or another request of its batch
fails; ``tests/acceptance/test_engine_contract.py`` tests this for every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from producer.contract.errors import StokerError
from producer.contract.message.job import Item


@dataclass(frozen=True, slots=True)
class Request:
    """The inputs of one job, which get one outcome.

    ``id`` is unique among the requests that the engine holds. ``parameters`` are the producer's, not validated.
    ``deadline`` is a time of the monotonic clock, in seconds: a request that is not complete by then ends with
    ``JobExpired``. With ``stream``, engines that generate incrementally report each :class:`OutputPiece`.
    """

    id: str
    inputs: list[Item]
    parameters: dict[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The terminal result of a request: ``outputs`` (one per input, in order) or ``error``.

    ``InvalidJob`` is final; after an ``EngineError`` the job is tried again; ``JobCancelled`` and ``Preempted`` are the
    outcomes of ``cancel`` and ``withdraw``. With an error, ``usage`` is what the request had used until then, if it
    began. ``batch_size`` is the size of the largest batch with inputs of this request; ``ran_s`` is its time on the
    device, in seconds.
    """

    id: str
    outputs: list[Any] | None = None
    error: StokerError | None = None
    usage: dict[str, int] = field(default_factory=dict)
    ran_s: float = 0.0
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """The next piece of output ``index`` of a streaming request, of ``tokens`` tokens: the pieces of an output,
    concatenated, are its text, those with ``reasoning`` its reasoning, and those of one ``call`` its tool call of that
    number (``producer.contract.message.tool_call``). ``logprobs`` are those of its tokens, as in OpenAI's API, if asked
    for. All are reported before the request's :class:`Outcome`."""

    id: str
    index: int
    text: str
    tokens: int = 0
    reasoning: bool = False
    call: int | None = None
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """The cost of one batch: its numbers of requests, rows and tokens (padding included), and its duration in seconds.

    Continuous engines (``slots`` above 0) report none.
    """

    requests: int
    rows: int
    tokens: int
    ran_s: float


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prefill of a request's admitted prompts has ended, having stalled the running sequences for ``stall_s``
    seconds in all; 0 if prefill and decoding run side by side, as in servers.

    A continuous engine reports it of every request that begins, before its :class:`Outcome` and unless that comes
    first; of a request with more inputs than slots, it may be reported several times.
    """

    id: str
    stall_s: float


Report = Outcome | OutputPiece | Batch | Prefilled
"""Everything that ``step`` may report."""


class Engine(Protocol):
    """A model on a device."""

    @property
    def capacity(self) -> int:
        """The number of requests that it can use now: those on the device and at most one batch ahead."""

    @property
    def slots(self) -> int:
        """Places in the running batch of a continuous engine; 0 if inputs begin and end as whole batches."""

    @property
    def progress(self) -> int:
        """A counter of the device's completed work. An engine that holds requests while it stands still is hung."""

    def load(self) -> None:
        """Load the model onto the device and warm it up. May take minutes.

        Raises:
            ModelNotFound: when the source holds no model that the engine can load.
        """

    def submit(self, request: Request) -> None:
        """Enqueue a request. Thread-safe; never blocks or raises: an invalid request gets an outcome."""

    def cancel(self, request_id: str) -> None:
        """Cancel a request, waiting or running. Thread-safe; its outcome is a ``JobCancelled`` error."""

    def withdraw(self) -> None:
        """Withdraw every request that has not begun. Thread-safe; the outcome of each is ``Preempted``."""

    def step(self, timeout: float) -> Sequence[Report]:
        """Run one batch or decode step, and return its reports.

        Waits up to ``timeout`` seconds for work. The failure of a request is its outcome; an exception means that the
        engine is lost, and the worker ends.
        """

    def close(self) -> None:
        """Free the device. Requests still held get no outcome: their leases expire in Redis."""
