"""Chunks: the events of a streamed answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from producer.contract.errors import StokerError
from producer.contract.message.job import Result
from producer.contract.message.tool_call import call_head, call_of
from producer.stream import Piece

from .api_error import Problem, problem_of
from .generation import texts_of, usage_of
from .logprobs import logprobs_of, of_chat, of_completion
from .translation import TranslatedRequest

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Makes the events of one streamed order, each as the bytes to send.

    Args:
        created: when it was asked, in Unix time.
    """

    def __init__(self, order: TranslatedRequest, job_id: str, created: int) -> None:
        self._order = order
        self._chat = chat = order.chat
        self._told: dict[tuple[int, bool, int | None], int] = {}
        self._logprobs: Counter[int] = Counter()
        """Tokens whose log probabilities were told, by the index of the answer; and their characters:"""
        self._characters: Counter[int] = Counter()
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{job_id}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created,
            "model": order.job.model,
            "service_tier": order.job.tier,
            "system_fingerprint": None,
        }

    def begin(self) -> bytes:
        """The first event, with the role."""
        if not self._chat:
            return b""
        return b"".join(
            self._event(index, {"role": "assistant", "content": "", "refusal": None}, None)
            for index in range(len(self._order.job.items))
        )

    def piece(self, piece: Piece) -> bytes:
        """More of an answer, or of the reasoning or a tool call in a chat.

        Raises:
            Problem: it takes back what was told, which the API has no word for.
        """
        which = piece.index, piece.reasoning, piece.call
        if piece.at < self._told.get(which, 0):
            raise Problem(500, "the answer had to be made again, and became another", code="answer_changed")
        self._told[which] = piece.at + len(piece.text)
        if piece.call is not None:
            return self._event(piece.index, {"tool_calls": [_call_delta(piece.call, piece.at, piece.text)]}, None)
        field = "reasoning_content" if piece.reasoning else "content"
        logprobs = self._more_logprobs(piece.index, piece.logprobs or None)
        return self._event(piece.index, {field: piece.text} if self._chat else piece.text, None, logprobs)

    def end(self, result: Result) -> bytes:
        """The last events: finish reasons and usage."""
        ends = []
        for index, ((_, reason), logprobs) in enumerate(zip(texts_of(result), logprobs_of(result), strict=True)):
            rest = (logprobs or [])[self._logprobs[index] :]
            ends.append(self._event(index, {} if self._chat else "", reason, self._more_logprobs(index, rest or None)))
        if self._order.include_usage:
            ends.append(_data({**self._head, "choices": [], "usage": usage_of(result, self._order.choices)}))
        return b"".join([*ends, DONE])

    def _more_logprobs(self, index: int, entries: Sequence[Any] | None) -> dict[str, Any] | None:
        if entries is None:
            return None
        offset = self._characters[index]
        self._logprobs[index] += len(entries)
        self._characters[index] += sum(len(entry["token"]) for entry in entries)
        return of_chat(entries) if self._chat else of_completion(entries, offset)

    def _event(self, index: int, news: Any, reason: str | None, logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {
            "index": index,
            "delta" if self._chat else "text": news,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        usage = {"usage": None} if self._order.include_usage else {}
        return _data({**self._head, "choices": [choice], **usage})


def _call_delta(number: int, at: int, text: str) -> dict[str, Any]:
    """What is new of a tool call, whose first piece has its id and name."""
    if at:
        return {"index": number, "function": {"arguments": text}}
    return {"index": number, **call_of(*call_head(text))}


def broken_off(error: StokerError) -> bytes:
    """The last event of a stream that cannot go on. The official clients raise it as an ``APIError``."""
    return _data(problem_of(error).body) + DONE


def _data(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"
