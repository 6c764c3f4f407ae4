"""Log probabilities of tokens, in the forms of chats and of completions.

An output has them as chats do: a list of ``{"token", "logprob", "bytes", "top_logprobs"}``, where ``logprob`` is null
at the first token of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from producer.contract.message.job import Result


def logprobs_of(result: Result) -> list[list[dict[str, Any]] | None]:
    """Those of each answer; None for an answer without."""
    return [output.get("logprobs") if isinstance(output, dict) else None for output in result.output]


def likeliest(result: Result, made: int, kept: int, *, keep: bool) -> Result:
    """The ``kept`` likeliest of each ``made`` answers, by the mean log probability of their tokens.

    Args:
        keep: whether the answers keep their log probabilities.
    """

    def mean(output: dict[str, Any]) -> float:
        told = [entry["logprob"] for entry in output.get("logprobs") or () if entry["logprob"] is not None]
        return sum(told) / len(told) if told else 0.0

    groups = [result.output[begin : begin + made] for begin in range(0, len(result.output), made)]
    best = [output for group in groups for output in sorted(group, key=mean, reverse=True)[:kept]]
    plain = [{name: value for name, value in output.items() if name != "logprobs"} for output in best]
    return result.model_copy(update={"output": best if keep else plain})


def prompt_logprobs_of(result: Result) -> list[dict[str, Any]]:
    """The field ``prompt_logprobs`` of each answer; empty for an answer without. An extension."""
    found = [output.get("prompt_logprobs") if isinstance(output, dict) else None for output in result.output]
    return [{} if entries is None else {"prompt_logprobs": entries} for entries in found]


def of_chat(entries: Sequence[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The ``logprobs`` of a choice of a chat."""
    return None if entries is None else {"content": list(entries), "refusal": None}


def of_completion(entries: Sequence[dict[str, Any]] | None, offset: int = 0) -> dict[str, Any] | None:
    """The ``logprobs`` of a choice of a completion, whose first token begins at character ``offset`` of its text.

    ``top_logprobs`` hold the token itself beside the likeliest, as OpenAI's and vLLM's do.
    """
    if entries is None:
        return None
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [_likeliest(entry) for entry in entries],
        "text_offset": offsets,
    }


def _likeliest(entry: dict[str, Any]) -> dict[str, float] | None:
    if entry["logprob"] is None:
        return None
    best = {each["token"]: each["logprob"] for each in reversed(entry.get("top_logprobs") or ())}  # the likelier stays
    return {**best, entry["token"]: entry["logprob"]} if entry["token"] not in best else best
