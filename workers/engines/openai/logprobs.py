"""Log probabilities as servers tell them, in chats and in completions, in the one form that outputs have: a list of
``{"token", "logprob", "bytes", "top_logprobs"}``, one for each token.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .text_assembly import whole_characters

Number = Annotated[float, Field(allow_inf_nan=False)]
Bytes = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(max_length=4096)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Alternative(_Told):
    """A token that might have been, with its log probability."""

    token: str
    logprob: Number | None = None
    bytes: Bytes | None = None

    @property
    def entry(self) -> dict[str, Any]:
        """Its form in outputs."""
        return _entry(self.token, self.logprob, self.bytes)


class Token(Alternative):
    """A token of a chat's answer."""

    top_logprobs: list[Alternative] | None = None


class Logprobs(_Told):
    """Those of a choice: ``content`` in a chat, lists side by side in a completion."""

    content: list[Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[Number | None] | None = None
    top_logprobs: list[dict[str, Number | None] | None] | None = None

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """Each token's, in the form of outputs."""
        if self.content is not None:
            return tuple(
                {**token.entry, "top_logprobs": [each.entry for each in token.top_logprobs or ()]}
                for token in self.content
            )
        return tuple(self._of_completion(number, token) for number, token in enumerate(self.tokens or ()))

    def _of_completion(self, number: int, token: str) -> dict[str, Any]:
        logprobs, tops = self.token_logprobs or [], self.top_logprobs or []
        logprob = logprobs[number] if number < len(logprobs) else None
        top = (tops[number] if number < len(tops) else None) or {}
        likeliest = sorted(top.items(), key=lambda each: -(each[1] if each[1] is not None else 0.0))
        return {
            **_entry(token, logprob, None),
            "top_logprobs": [_entry(other, value, None) for other, value in likeliest],
        }


def _entry(token: str, logprob: float | None, of_bytes: list[int] | None) -> dict[str, Any]:
    token = whole_characters(token)
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if of_bytes is None else of_bytes}
