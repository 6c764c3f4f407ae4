"""Messages of every way in, drawn from a seed: hostile text in each of their places, and frames that are damaged."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.chaos import fuzz
from producer.contract.message.celery_message import encode
from producer.contract.message.job import Job

from .texts import READABLE, hostile, text

WRONG = (
    b"null", b"true", b"7", b"-1", b"0.5", b'""', b"[]", b"{}", b"[[]]", b'[""]', b"[null]", b'{"a": null}',
    b'{"": ""}', b'"x"', b'" "', b'"auto"', b'["x", 7]',
)  # fmt: skip
"""Literals of types and values that most places do not take."""
LONG = (b"a", b" ", b"\\u0000", "\N{GRINNING FACE}".encode(), "\u202e".encode())


def literal(rng: random.Random) -> bytes:
    """A hostile text or value as JSON, one of a wrong type, or a very long one; texts in three of ten."""
    chance = rng.random()
    if chance > 0.8:
        return READABLE["text in UTF-8"](rng)
    if chance < 0.1:
        return rng.choice(WRONG)
    if chance < 0.102:
        return b'"' + rng.choice(LONG) * rng.randint(10_000, 100_000) + b'"'
    (drawn,) = hostile(rng, 1)
    return drawn.literal


def readable(rng: random.Random) -> bytes:
    """A literal that has to be accepted as an input."""
    return rng.choice(list(READABLE.values()))(rng)


def value(rng: random.Random) -> Any:
    """What a caller of Python may hand over: of JSON as Python reads it, or of no JSON at all."""
    if rng.random() < 0.02:
        return rng.choice(OBJECTS)()
    try:
        return json.loads(literal(rng).decode())
    except (ValueError, RecursionError):
        return text(rng) + rng.choice(("\ud800", "", "\udfff"))


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(2000):
        value = [value]
    return value


OBJECTS: tuple[Callable[[], Any], ...] = (
    object, set, _endless, _deep, lambda: b"\xff\x00", lambda: {1: 2}, lambda: {None: "x"},
    lambda: datetime(2030, 1, 1),
    lambda: float("nan"), lambda: 10**5000, lambda: Path("x"), lambda: ("a", "b"), lambda: iter("ab"),
    lambda: 1j,
)  # fmt: skip
"""Values that JSON has no form for, or another than theirs."""


def damaged(rng: random.Random, frame: bytes) -> bytes:
    """One in ten frames cut short, with bytes changed, added or repeated, or in another encoding."""
    if rng.random() >= 0.1 or not frame:
        return frame
    at = rng.randrange(len(frame))
    junk = rng.choice(
        (rng.randbytes(rng.randint(1, 8)), b"\x00", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80")
    )
    return rng.choice(
        (
            frame[:at],
            frame[:at] + junk + frame[at + 1 :],
            frame[:at] + junk + frame[at:],
            frame + frame,
            b"\xef\xbb\xbf" + frame,
            frame[at:],
            frame.decode(errors="replace").encode("utf-16"),
            rng.randbytes(rng.randint(0, 40)),
        )
    )


def _object(fields: dict[str, bytes]) -> bytes:
    return b"{" + b", ".join(json.dumps(name).encode() + b": " + value for name, value in fields.items()) + b"}"


def _sometimes(rng: random.Random, fields: dict[str, bytes], names: tuple[str, ...]) -> dict[str, bytes]:
    """A hostile value in a further field, in three of ten, and a field of a hostile name in one of a hundred."""
    if rng.random() < 0.3:
        fields = {**fields, rng.choice(names): literal(rng)}
    return {**fields, text(rng): b"1"} if rng.random() < 0.01 else fields


JOB_FIELDS = (
    "model", "tier", "parameters", "metadata", "stream", "deadline_s", "admission", "webhook", "input", "tenant",
)  # fmt: skip
OPENAI_FIELDS = (
    "model", "temperature", "top_p", "n", "stop", "seed", "max_tokens", "stream_options", "tools", "tool_choice",
    "user", "response_format", "logit_bias", "presence_penalty", "messages", "prompt", "input", "metadata",
    "service_tier", "dimensions", "encoding_format", "stream", "logprobs", "best_of",
)  # fmt: skip


def job(rng: random.Random) -> tuple[str, bytes]:
    """A request to ``/v1/jobs``: path and body."""
    wrapped = rng.choice((b"%s", b"[%s]", b'["x", %s]', b'{"a": %s}')) % literal(rng)
    fields = _sometimes(rng, {"model": b'"echo"', "input": wrapped}, JOB_FIELDS)
    return "/v1/jobs", damaged(rng, _object(fields))


def openai(rng: random.Random) -> tuple[str, bytes]:
    """A request to an endpoint of OpenAI's: path and body; half of those that can be are streamed."""
    path, fields = rng.choice(
        (
            ("/v1/chat/completions", {"model": b'"talk"', "messages": _messages(rng, literal(rng))}),
            ("/v1/completions", {"model": b'"talk"', "prompt": literal(rng)}),
            ("/v1/embeddings", {"model": b'"vectors"', "input": literal(rng)}),
        )
    )
    if path != "/v1/embeddings":
        fields |= {"max_tokens": b"3", "stream": rng.choice((b"true", b"false"))}
    return path, damaged(rng, _object(_sometimes(rng, fields, OPENAI_FIELDS)))


def _messages(rng: random.Random, content: bytes) -> bytes:
    role = literal(rng) if rng.random() < 0.05 else rng.choice((b'"user"', b'"system"', b'"assistant"', b'"tool"'))
    last = b'{"role": "user", "content": ' + content + b"}"
    return b"[" + rng.choice((b"", b'{"role": ' + role + b', "content": "x"}, ')) + last + b"]"


def line(rng: random.Random, number: int, *, fair: bool) -> bytes:
    """A line of a Batch, of any of the forms.

    Args:
        fair: whether it has to be accepted.
    """
    given = readable(rng) if fair else literal(rng)
    fields = {"custom_id": json.dumps(f"{number} {text(rng)[:40]}").encode(), "input": given}
    if not fair:
        fields = _sometimes(rng, fields, ("custom_id", "parameters", "model", "method", "url", "body", "input"))
    made = _object(fields) if fair else damaged(rng, _object(fields))
    return made.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def message(rng: random.Random, queue: str) -> tuple[str, bytes]:
    """A job's id, and a message whose body holds hostile text."""
    model, _, tier = queue.rpartition(".")
    job_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    envelope = json.loads(encode(Job(model=model, tier=tier, input="x"), job_id))
    fields = _sometimes(rng, {"input": literal(rng)}, (*fuzz.FIELDS, *JOB_FIELDS))
    body = b"[[], " + damaged(rng, _object(fields)) + b", {}]"
    envelope["body"] = base64.b64encode(body).decode()
    return job_id, damaged(rng, json.dumps(envelope).encode())


METHODS = (
    "ping", "revoke", "terminate", "query_task", "stats", "active", "reserved", "revoked", "conf", "clock", "report",
    "enable_events", "heartbeat", "active_queues", "registered", "scheduled", "shutdown", "pool_grow", "add_consumer",
)  # fmt: skip
ARGUMENTS = ("task_id", "signal", "terminate", "ids", "with_defaults", "x")


def control(rng: random.Random) -> bytes:
    """What is published to the mailbox of remote control."""
    if rng.random() < 0.1:
        return damaged(rng, literal(rng))
    said = {"method": json.dumps(rng.choice(METHODS)).encode(), "arguments": _arguments(rng)}
    said = _sometimes(rng, said, ("method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket"))
    if rng.random() < 0.1:
        said["reply_to"] = _object({"exchange": literal(rng), "routing_key": literal(rng)})
    body = base64.b64encode(damaged(rng, _object(said)))
    properties = {"body_encoding": b'"base64"', "delivery_tag": b'"1"', "delivery_info": b"{}"}
    envelope = {
        "body": b'"' + body + b'"',
        "content-type": b'"application/json"',
        "content-encoding": b'"utf-8"',
        "headers": b"{}",
        "properties": _object(
            _sometimes(rng, properties, ("body_encoding", "delivery_info", "priority", "delivery_tag"))
        ),
    }
    return damaged(rng, _object(_sometimes(rng, envelope, tuple(envelope))))


def _arguments(rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return literal(rng)
    return _object({name: literal(rng) for name in rng.sample(ARGUMENTS, rng.randint(0, 2))})
