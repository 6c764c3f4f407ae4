"""The stream of a job's output: what its worker has written so far, as pieces of text to put together.

An entry of the stream says that from character ``at`` on the text of output ``index`` is ``text``. It is so whatever
was said before: an entry that was written twice changes nothing, and a job that ran again, because its worker died,
writes its text again from the start. The reader compares: it never returns the same text twice, so that a
greedy or seeded answer continues where it broke off; where the text differs, it says from which character.

Nothing here waits or asks: ``Client.stream`` and ``AsyncClient.stream`` do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .contract.errors import StokerError
from .contract.message.tool_call import call_text

AT_ONCE = 100
"""Most entries read in one step: what a slow reader holds of a fast writer."""

LOOK_S = 1.0
"""How long one wait for new pieces lasts before one looks whether the job has ended without a word, in seconds."""

SOON_S = 0.01
"""The same when a run has ended, doubled each time: its result comes at once, unless the job is to run again."""

INDEX, AT, TEXT, TOKENS, REASONING, END = b"index", b"at", b"text", b"tokens", b"reasoning", b"end"
CALL, LOGPROBS = b"call", b"logprobs"
"""Fields of an entry. ``TOKENS`` counts from the start of the output; ``REASONING`` marks what is no part of the text,
``CALL`` what is of the tool call of that number. ``LOGPROBS`` is JSON: the number of tokens before, and a list of one
entry for each token, as in OpenAI's API. ``END`` stands alone, when a run has ended."""

Entry = tuple[bytes, Mapping[bytes, bytes]]
_Which = tuple[int, bool, int | None]
"""One text of a job: the output's index, whether it is its reasoning, and the number of its tool call."""


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of a job's output ``index``: from character ``at`` on, the text is ``text``.

    ``at`` is the length of the text so far, unless the job had to run again and says something else now: then it is
    less, and what stood from there on is void. ``text_so_far[:at] + text`` is right in either case. ``tokens`` is how
    many tokens it took, as far as is known. Give ``id`` to ``stream(after=...)`` to go on behind this piece. With
    ``reasoning`` it is of the output's reasoning, which is a text of its own; so is each tool call, numbered ``call``:
    its id, a space, its name, a line feed and its arguments. ``logprobs`` are those of its tokens, if asked for.
    """

    id: str
    index: int
    at: int
    text: str
    tokens: int = 0
    reasoning: bool = False
    call: int | None = None
    logprobs: tuple[Any, ...] = ()


@dataclass(slots=True)
class _OutputState:
    """One output: what the stream says, and what the reader was told, each with its tokens."""

    made: str = ""
    tokens: int = 0
    told: str = ""
    told_tokens: int = 0
    logprobs: list[Any] = field(default_factory=list)
    told_logprobs: int = 0


class Reading:
    """One reader's place in a stream: entries in, pieces out.

    It starts from the first entry wherever the reader wants to go on, for only so is it known what he was told.
    Reasoning is left out unless ``reasoning`` is True, and tool calls unless ``calls`` is.
    """

    def __init__(
        self,
        after: str | None = None,
        timeout: float | None = None,
        *,
        reasoning: bool = False,
        calls: bool = False,
    ) -> None:
        self._after = _place(after) if after is not None else (0.0, 0)
        self._timeout = float("inf") if timeout is None else timeout
        self._reasoning, self._calls = reasoning, calls
        self._outputs: dict[_Which, _OutputState] = {}
        self._wait_s = LOOK_S
        self._waits_since = time.monotonic()
        self.last = "0-0"
        """Id of the last entry read."""

    @property
    def wait_s(self) -> float:
        """How long to wait for the next entry, in seconds."""
        left = self._timeout - (time.monotonic() - self._waits_since)
        return max(0.001, min(self._wait_s, left))

    @property
    def overdue(self) -> bool:
        """Whether the reader has waited for a piece for longer than he would."""
        return time.monotonic() - self._waits_since >= self._timeout

    def read(self, entries: Iterable[Entry]) -> Iterator[Piece]:
        """What new entries tell; call it also when there are none."""
        self._wait_s = min(LOOK_S, 2 * self._wait_s)
        for entry_id, fields in entries:
            self.last = entry_id.decode()
            self._wait_s = SOON_S if END in fields else LOOK_S
            if END in fields:
                continue
            if (REASONING in fields and not self._reasoning) or (CALL in fields and not self._calls):
                self._waits_since = time.monotonic()
                continue
            call = int(fields[CALL]) if CALL in fields else None
            at, which = int(fields[AT]), (int(fields[INDEX]), REASONING in fields, call)
            output = self._outputs.setdefault(which, _OutputState())
            if at > len(output.made):
                continue  # the cap took what stood between: the result will tell it
            output.made = output.made[:at] + fields[TEXT].decode()
            output.tokens = int(fields[TOKENS])
            if LOGPROBS in fields:
                begin, logprobs = json.loads(fields[LOGPROBS])
                output.logprobs[begin:] = logprobs
            # A text that runs again is no news before it passes, or leaves, what was told.
            if not output.told.startswith(output.made):
                yield from self._tell(self.last, which, output)

    def finish(self, result: Any) -> Iterator[Piece]:
        """What the stream did not tell of a result's output, or list of them: all of it, if the job did not stream."""
        for index, final in enumerate(result if isinstance(result, list) else [result]):
            if not isinstance(final, dict):
                continue  # no text, no pieces
            for which, text in self._texts(index, final):
                output = self._outputs.setdefault(which, _OutputState())
                if output.told != text:
                    output.made = text
                    yield from self._tell(f"end-{index}", which, output)

    def _texts(self, index: int, final: dict[str, Any]) -> Iterator[tuple[_Which, str]]:
        """The texts of a final output that this reader wants."""
        if self._reasoning and isinstance(final.get("reasoning_content"), str):
            yield (index, True, None), final["reasoning_content"]
        if isinstance(final.get("text"), str):
            yield (index, False, None), final["text"]
        for number, call in enumerate(final.get("tool_calls") or () if self._calls else ()):
            yield (index, False, number), call_text(call)

    def _tell(self, piece_id: str, which: _Which, output: _OutputState) -> Iterator[Piece]:
        goes_on = output.made.startswith(output.told)
        at = len(output.told) if goes_on else _agree(output.told, output.made)
        tokens = max(0, output.tokens - output.told_tokens)
        output.told, output.told_tokens = output.made, output.tokens
        logprobs = tuple(output.logprobs[output.told_logprobs :])
        output.told_logprobs += len(logprobs)
        if _place(piece_id) > self._after:
            yield Piece(piece_id, which[0], at, output.made[at:], tokens, which[1], which[2], logprobs)
            self._waits_since = time.monotonic()


def entries(found: Any) -> list[Entry]:
    """The entries in an answer to XREAD for one stream."""
    return [entry for _, came in by_stream(found) for entry in came]


def by_stream(found: Any) -> list[tuple[str, list[Entry]]]:
    """The entries of each stream in an answer to XREAD, as either version of the protocol gives it."""
    if isinstance(found, dict):
        return [(name.decode(), [entry for part in parts for entry in part]) for name, parts in found.items()]
    return [(name.decode(), came) for name, came in found or ()]


def _agree(one: str, other: str) -> int:
    """Up to which character two texts are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _place(piece_id: str) -> tuple[float, int]:
    """Where a piece stands among all. Those that the result told come behind those of the stream."""
    time_ms, _, number = piece_id.partition("-")
    try:
        return (float("inf") if time_ms == "end" else int(time_ms), int(number))
    except ValueError:
        raise StokerError(f"after = {piece_id!r} is not the id of a piece; give the id of one, or nothing") from None
