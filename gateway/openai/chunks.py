"""Chunks: the events of a streamed answer."""

from __future__ import annotations

import json
from typing import Any

from producer.contract.errors import StokerError
from producer.contract.message.job import Result
from producer.stream import Piece

from .api_error import Problem, problem_of
from .generation import texts_of, usage_of
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
        self._told: dict[tuple[int, bool], int] = {}
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
        """More of an answer, or of the reasoning in a chat.

        Raises:
            Problem: it takes back what was told, which the API has no word for.
        """
        which = piece.index, piece.reasoning
        if piece.at < self._told.get(which, 0):
            raise Problem(500, "the answer had to be made again, and became another", code="answer_changed")
        self._told[which] = piece.at + len(piece.text)
        field = "reasoning_content" if piece.reasoning else "content"
        return self._event(piece.index, {field: piece.text} if self._chat else piece.text, None)

    def end(self, result: Result) -> bytes:
        """The last events: finish reasons and usage."""
        ends = [
            self._event(index, {} if self._chat else "", reason) for index, (_, reason) in enumerate(texts_of(result))
        ]
        if self._order.include_usage:
            ends.append(_data({**self._head, "choices": [], "usage": usage_of(result, self._order.choices)}))
        return b"".join([*ends, DONE])

    def _event(self, index: int, news: Any, reason: str | None) -> bytes:
        choice = {"index": index, "delta" if self._chat else "text": news, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._order.include_usage else {}
        return _data({**self._head, "choices": [choice], **usage})


def broken_off(error: StokerError) -> bytes:
    """The last event of a stream that cannot go on. The official clients raise it as an ``APIError``."""
    return _data(problem_of(error).body) + DONE


def _data(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"
