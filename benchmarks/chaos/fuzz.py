"""Hostile and malformed messages, drawn from a seed: what any client of Redis may push onto a queue."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from producer.contract.message.celery_message import encode
from producer.contract.message.job import Job


class Fate(StrEnum):
    """What has to become of a message."""

    DEAD = "dead letter"
    REFUSED = "dead letter or FAILURE result"
    """Whether it is well-formed but has wrong fields, so that a failed result under its id is allowed as well."""
    ANY = "one outcome of whatever kind"
    """The wrong value stands in a field that nothing here reads, or happens to be a right one."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message. ``kind`` says what is wrong with it; ``job_id`` is its id where it has one."""

    message: bytes
    kind: str
    fate: Fate
    job_id: str


class Trap:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


JUNK: list[Any] = [
    None, 7, -1, 1e308, float("nan"), float("inf"), "x", "", [], {}, [None], {"a": {"b": []}}, True,
    10**400, "\x00", "A" * 10_000, [[[[[]]]]], "9999-99-99", "os.system('id')",
]  # fmt: skip


def _never(_: Any) -> bool:
    return False


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flat_object(value: Any) -> bool:
    return isinstance(value, dict)


def _none(value: Any) -> bool:
    return value is None


HEADERS: dict[str, tuple[Fate, Callable[[Any], bool]]] = {
    "task": (Fate.DEAD, _never),
    "id": (Fate.DEAD, lambda value: _text(value) and 0 < len(value) <= 256),
    "eta": (Fate.DEAD, _none),
    "compression": (Fate.DEAD, _none),
    "ignore_result": (Fate.DEAD, lambda value: value is None or value is True),
    "expires": (Fate.REFUSED, _none),
    "timelimit": (Fate.DEAD, _none),
    **dict.fromkeys(
        (
            "lang", "shadow", "group", "group_index", "retries", "root_id", "parent_id", "argsrepr", "kwargsrepr",
            "origin", "replaced_task_nesting", "stamped_headers", "stamps", "submitted_at",
            "losses", "claimed_at", "delivery_info", "chord", "callbacks",
        ),
        (Fate.ANY, _never),
    ),
}  # fmt: skip
"""What has to become of a wrong value in each header, and which values are not wrong."""

FIELDS: dict[str, Callable[[Any], bool]] = {
    "model": _never,
    "tier": _never,
    "input": lambda value: isinstance(value, str | dict) or value == [],
    "parameters": _flat_object,
    "tenant": lambda value: _text(value) and 0 < len(value) <= 128,
    "deadline": lambda value: value is None or isinstance(value, int | float),  # a time in Unix seconds
    "idempotency_key": lambda value: value is None or (_text(value) and 0 < len(value) <= 256),
    "metadata": lambda value: value == {},
    "schema_version": lambda value: value is True,  # which is 1 in Python
    "surprise": _never,
}
"""The fields of a job, and which values are right."""

EMBED = ("callbacks", "errbacks", "chain", "chord")
SIGNATURES: list[Any] = [
    7, "x", [7], [{}], {"task": "x"}, [{"task": "os.system", "args": ["id"], "kwargs": {}, "options": {}}],
    [{"task": "stoker.infer", "options": {"queue": "celery"}}], {"a": 1}, [None], [[[]]], True,
]  # fmt: skip


def hostile(rng: random.Random, count: int, queue: str, canary: Path) -> list[Hostile]:
    """Draw ``count`` messages for a queue; every kind occurs before any occurs twice."""
    drawn: list[Hostile] = []
    while len(drawn) < count:
        fresh = list(_all(rng, queue, canary))
        rng.shuffle(fresh)
        drawn += fresh
    return drawn[:count]


def _all(rng: random.Random, queue: str, canary: Path) -> Iterator[Hostile]:
    yield from _not_an_envelope(rng, queue, canary)
    yield from _wrong_parts(queue)
    yield from _wrong_bodies(queue, canary)
    yield from _wrong_headers(queue)
    yield from _wrong_fields(queue)
    yield from _wrong_embeds(queue)


def _good(queue: str) -> tuple[dict[str, Any], str]:
    model, _, tier = queue.rpartition(".")
    job_id = str(uuid.uuid4())
    return json.loads(encode(Job(model=model, tier=tier, input=f"hostile {job_id}"), job_id)), job_id


def _dump(envelope: Any) -> bytes:
    return json.dumps(envelope).encode()


def _not_an_envelope(rng: random.Random, queue: str, canary: Path) -> Iterator[Hostile]:
    good = _dump(_good(queue)[0])
    whole = {
        "empty": b"",
        "blank": b" ",
        "null": b"null",
        "number": b"7",
        "list": b"[]",
        "text": b'"x"',
        "empty object": b"{}",
        "not UTF-8": b"\xff\xfe" + rng.randbytes(50),
        "UTF-16": good.decode().encode("utf-16"),
        "cut short": good[: rng.randrange(1, len(good) - 1)],
        "twice": good + good,
        "NaN": b"NaN",
        "random bytes": rng.randbytes(rng.randrange(1, 500)),
        "1 MB of random bytes": rng.randbytes(1_000_000),
        "1 MB of text": b'"' + b"a" * 1_000_000 + b'"',
        "1 MB of objects": b'{"headers":' * 100_000,
        "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "a number of 100,000 digits": b"1" * 100_000,
        "pickle": pickle.dumps(Trap(canary)),
        "pickle protocol 0": pickle.dumps(Trap(canary), protocol=0),
        "yaml": b"!!python/object/apply:os.system ['id']",
        "lua": b"'); redis.call('FLUSHALL'); --",
    }
    for kind, message in whole.items():
        # Unique, or the queue could not tell two of them apart; a blank changes nothing for JSON.
        yield Hostile(message, f"message: {kind}", Fate.DEAD, "")


def _wrong_parts(queue: str) -> Iterator[Hostile]:
    for part in ("body", "content-encoding", "content-type", "headers", "properties"):
        for junk in JUNK:
            envelope, _ = _good(queue)
            envelope[part] = junk
            # An empty text body is no JSON, and so on: no junk is a right part, but for properties, which may be {}.
            fate = Fate.ANY if part == "properties" and isinstance(junk, dict) else Fate.DEAD
            yield Hostile(_dump(envelope), f"{part}: {junk!r:.40}", fate, envelope_id(envelope))
        envelope, job_id = _good(queue)
        del envelope[part]
        yield Hostile(_dump(envelope), f"{part}: missing", Fate.DEAD, job_id)
    for kind in ("application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "application/data"):
        envelope, job_id = _good(queue)
        envelope["content-type"] = kind
        yield Hostile(_dump(envelope), f"content-type: {kind}", Fate.DEAD, job_id)
    for encoding in ("binary", "utf-16", "gzip", "latin-1"):
        envelope, job_id = _good(queue)
        envelope["content-encoding"] = encoding
        yield Hostile(_dump(envelope), f"content-encoding: {encoding}", Fate.DEAD, job_id)
    strange: list[Any] = ["gzip", "hex", 7, [], {}, True]
    for body_encoding in strange:
        envelope, job_id = _good(queue)
        envelope["properties"]["body_encoding"] = body_encoding
        yield Hostile(_dump(envelope), f"body_encoding: {body_encoding!r}", Fate.DEAD, job_id)
    for name in ("delivery_info", "delivery_tag", "correlation_id", "reply_to", "priority", "delivery_mode"):
        for junk in JUNK:
            envelope, job_id = _good(queue)
            envelope["properties"][name] = junk
            yield Hostile(_dump(envelope), f"properties.{name}: {junk!r:.40}", Fate.ANY, job_id)


def envelope_id(envelope: dict[str, Any]) -> str:
    """The id in an envelope that may be broken."""
    headers = envelope.get("headers")
    found = headers.get("id") if isinstance(headers, dict) else None
    return found if isinstance(found, str) else ""


def _wrong_bodies(queue: str, canary: Path) -> Iterator[Hostile]:
    fields = {"input": "x"}
    embed = dict.fromkeys(EMBED)
    bodies: dict[str, Any] = {
        "protocol 1": {"task": "stoker.infer", "id": "1", "args": [], "kwargs": fields},
        "two parts": [[], fields],
        "four parts": [[], fields, embed, {}],
        "positional": [["x"], fields, embed],
        "args an object": [{}, fields, embed],
        "kwargs a list": [[], [fields], embed],
        "kwargs null": [[], None, embed],
        "embed a list": [[], fields, [1]],
        "null": None,
        "a text": "x",
    }
    for kind, body in bodies.items():
        yield _with_body(queue, json.dumps(body).encode(), f"body: {kind}", Fate.DEAD)
    raw = {
        "pickle": pickle.dumps(Trap(canary)),
        "rubbish": b"\x00\xff\x00",
        "nested 50,000 deep": b'[[], {"input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}, {}]",
        "NaN": b'[[], {"input": "x", "parameters": {"p": NaN}}, {}]',
        "Infinity": b'[[], {"input": "x", "parameters": {"p": -Infinity}}, {}]',
    }
    for kind, body in raw.items():
        yield _with_body(queue, body, f"body: {kind}", Fate.DEAD)
    refused = {
        "nested 300 deep": b'[[], {"input": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}, {}]",
        "a number beyond every float": b'[[], {"input": "x", "parameters": {"p": 1e999}}, {}]',
        "5,000 digits": b'[[], {"input": "x", "parameters": {"p": ' + b"9" * 5000 + b"}}, {}]",
        "a lone surrogate": b'[[], {"input": "\\ud800"}, {}]',
    }
    for kind, body in refused.items():
        yield _with_body(queue, body, f"body: {kind}", Fate.ANY)
    envelope, job_id = _good(queue)
    envelope["body"], envelope["content-type"] = (
        base64.b64encode(pickle.dumps(Trap(canary))).decode(),
        "application/x-python-serialize",
    )
    yield Hostile(_dump(envelope), "body: a pickle that says so", Fate.DEAD, job_id)
    envelope, job_id = _good(queue)
    envelope["headers"] = {}
    envelope["body"] = base64.b64encode(json.dumps(bodies["protocol 1"]).encode()).decode()
    yield Hostile(_dump(envelope), "task protocol 1", Fate.DEAD, "")


def _with_body(queue: str, body: bytes, kind: str, fate: Fate) -> Hostile:
    envelope, job_id = _good(queue)
    envelope["body"] = base64.b64encode(body).decode()
    return Hostile(_dump(envelope), kind, fate, job_id)


def _wrong_headers(queue: str) -> Iterator[Hostile]:
    for name, (fate, fine) in HEADERS.items():
        for junk in JUNK:
            envelope, job_id = _good(queue)
            if name == "id" and fine(junk):
                continue
            envelope["headers"][name] = junk
            harmless = fine(junk) and name != "id"
            yield Hostile(
                _dump(envelope), f"headers.{name}: {junk!r:.40}", Fate.ANY if harmless else fate, envelope_id(envelope)
            )
    for missing in ("task", "id"):
        envelope, job_id = _good(queue)
        del envelope["headers"][missing]
        yield Hostile(_dump(envelope), f"headers.{missing}: missing", Fate.DEAD, envelope_id(envelope))
    for task in ("celery.backend_cleanup", "celery.chord_unlock", "celery.map", "os.system", "stoker.infer "):
        envelope, job_id = _good(queue)
        envelope["headers"]["task"] = task
        yield Hostile(_dump(envelope), f"headers.task: {task}", Fate.DEAD, job_id)
    limits: list[list[Any]] = [
        [-1, -1],
        ["a", "b"],
        [0, 0],
        [float("inf"), None],
        [10**400, 10**400],
        [{}, []],
        [None, "9"],
    ]
    for limit in limits:
        envelope, job_id = _good(queue)
        envelope["headers"]["timelimit"] = limit
        fate = Fate.ANY if limit == [0, 0] else Fate.DEAD  # Celery takes 0 for no limit
        yield Hostile(_dump(envelope), f"headers.timelimit: {limit!r:.40}", fate, job_id)
    for when in ("tomorrow", "2026-13-45T00:00:00", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00+14:00"):
        for name in ("eta", "expires"):
            envelope, job_id = _good(queue)
            envelope["headers"][name] = when
            fate = Fate.DEAD if name == "eta" else Fate.REFUSED if when[:4] in ("tomo", "2026") else Fate.ANY
            yield Hostile(_dump(envelope), f"headers.{name}: {when}", fate, job_id)


def _wrong_fields(queue: str) -> Iterator[Hostile]:
    envelope, _ = _good(queue)
    args, fields, embed = json.loads(base64.b64decode(envelope["body"]))
    for name, fine in FIELDS.items():
        for junk in JUNK:
            wrong = {**copy.deepcopy(fields), name: junk}
            body = json.dumps([args, wrong, embed]).encode()
            yield _with_body(queue, body, f"job.{name}: {junk!r:.40}", Fate.ANY if fine(junk) else Fate.REFUSED)
    body = json.dumps([args, {}, embed]).encode()
    yield _with_body(queue, body, "job: no fields", Fate.REFUSED)


def _wrong_embeds(queue: str) -> Iterator[Hostile]:
    envelope, _ = _good(queue)
    args, fields, embed = json.loads(base64.b64decode(envelope["body"]))
    for name in EMBED:
        for junk in SIGNATURES:
            body = json.dumps([args, fields, {**embed, name: junk}]).encode()
            yield _with_body(queue, body, f"embed.{name}: {junk!r:.60}", Fate.REFUSED)
