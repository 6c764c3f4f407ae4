"""Text is text: what is accepted comes out of the queue as it was given, whatever way it came in; all else is refused
before it is queued."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.hostile_text.texts import READABLE, UNREADABLE, HostileText, hostile
from gateway.batches.lines import lines
from gateway.batches.lines.line_translation import Terms
from producer import InvalidJob, Settings, StokerError
from producer.contract.message import celery_message, json_text
from producer.contract.message.message_body import NotAJob
from producer.estimates.admission import concerns
from producer.submission import build
from scheduler import message

SETTINGS = Settings.model_validate({"models": {"m": {"engine": "echo"}}})
DRAWN = [each for seed in (1, 2) for each in hostile(random.Random(seed), 400)]


def test_every_kind_is_drawn() -> None:
    assert {each.kind for each in DRAWN} == READABLE.keys() | UNREADABLE.keys()


def submitted(value: Any, **fields: Any) -> dict[str, Any]:
    """The fields that a worker reads of a job that a client submits."""
    job = build(SETTINGS, "m", value, None, None, fields)
    return message.read(celery_message.write(job, SETTINGS)[1]).fields


@pytest.mark.parametrize("seed", [1, 2])
def test_a_client_submits_what_a_worker_reads(seed: int) -> None:
    for each in hostile(random.Random(seed), 400):
        try:
            value = each.value
        except (ValueError, RecursionError):
            continue
        if each.readable:
            told = submitted([value, "x"], parameters={"p": value}, metadata={"m": str(value)})
            assert (told["input"][0], told["parameters"]["p"]) == (value, value), each.kind
            continue
        for fields in ({"input": value}, {"input": "x", "parameters": {"p": value}}):
            with pytest.raises(InvalidJob):
                submitted(fields.pop("input"), **fields)


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb", "\ude00\ud83d"])
@pytest.mark.parametrize("field", ["input", "parameters", "metadata", "tenant", "idempotency_key", "keys"])
def test_half_a_character_is_refused_wherever_it_is(half: str, field: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "parameters": {"parameters": {"p": [half]}},
        "metadata": {"metadata": {"m": half}},
        "tenant": {"tenant": half},
        "idempotency_key": {"idempotency_key": half},
        "keys": {"metadata": {half: "m"}},
    }
    fields = cases.get(field, {})
    with pytest.raises(InvalidJob, match="metadata" if field == "keys" else field):
        submitted(half if field == "input" else "x", **fields)


@pytest.mark.parametrize("field", ["model", "tier", "tenant", "idempotency_key", "deadline", "parameters", "stream"])
def test_a_value_of_any_type_is_refused_as_an_invalid_job(field: str) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (10**5000, [10**5000], {10**5000: 1}, object(), endless, b"\xff", {"a": {1}}, 1j, float("nan")):
        given: dict[str, Any] = {"model": "m", "tier": None, "deadline": None}
        fields = {} if field in given else {field: value}
        given = {name: value if name == field else usual for name, usual in given.items()}
        with pytest.raises(StokerError):
            celery_message.write(build(SETTINGS, input="x", fields=fields, **given), SETTINGS)


def test_an_admission_of_any_type_is_refused() -> None:
    values: list[Any] = [10**5000, json.loads("[" * 900 + "]" * 900), {1}, "\ud800"]
    for value in values:
        with pytest.raises(InvalidJob, match=r"^admission = "):
            concerns(build(SETTINGS, "m", "x", None, None, {}), value)


def test_a_deadline_is_refused_with_what_is_allowed() -> None:
    wrong: list[Any] = ["soon", {}, float("nan"), 1e300, timedelta.max]
    for deadline in wrong:
        with pytest.raises(InvalidJob, match=r"deadline = .*allowed: an instant with a time zone"):
            build(SETTINGS, "m", "x", None, deadline, {})


def test_the_place_is_named() -> None:
    with pytest.raises(InvalidJob, match=r"^input\.1\.messages\.0\.content holds U\+D800 alone at position 1"):
        submitted(["x", {"messages": [{"role": "user", "content": "a\ud800"}]}])
    with pytest.raises(InvalidJob, match=r"^parameters\.a\.1 is NaN"):
        submitted("x", parameters={"a": [1, float("nan")]})
    with pytest.raises(InvalidJob, match=r"^input\.a is an object of just __type__ and __value__"):
        submitted({"a": {"__type__": "decimal", "__value__": "1"}})
    with pytest.raises(InvalidJob, match=r"^parameters\.a is an integer of more than 4300 digits"):
        submitted("x", parameters={"a": 10**5000})


@pytest.mark.parametrize("levels", [150, 197, 198, 250, 300, 5000])
def test_a_job_is_nested_as_deep_as_a_worker_reads(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    if levels <= 197:
        assert submitted({"a": value})["input"] == {"a": value}
        return
    with pytest.raises(InvalidJob):
        submitted({"a": value})


def line(each: HostileText, form: str) -> bytes:
    if form == "ours":
        return b'{"custom_id": "c", "input": ' + each.literal + b"}\n"
    body = b'{"model": "talk", "messages": [{"role": "user", "content": ' + each.literal + b"}]}"
    return b'{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": ' + body + b"}\n"


@pytest.mark.parametrize("form", ["ours", "openai"])
def test_a_line_of_a_batch_becomes_a_job_that_a_worker_reads(form: str) -> None:
    talk = {"engine": "echo", "options": {"task": "generate"}}
    settings = Settings.model_validate({"models": {"m": {"engine": "echo"}, "talk": talk}})
    terms = Terms(settings, "run", model="m" if form == "ours" else None)
    for each in DRAWN:
        if b"\n" in each.literal or (form == "openai" and not each.is_text):
            continue
        found = lines.parse(1, line(each, form), 10**7)
        try:
            job = terms.read(found).job
            told = message.read(celery_message.write(job, settings)[1]).fields["input"]
        except InvalidJob:
            assert not each.readable, each
            continue
        assert each.readable, each
        assert told == (each.value if form == "ours" else [{"messages": [{"role": "user", "content": each.value}]}])


def test_a_line_that_is_refused_keeps_its_custom_id() -> None:
    found = lines.parse(7, b'{"custom_id": "mine", "input": "a\\ud800"}\n', 1000)
    assert (found.custom_id, found.given) == ("mine", True)
    assert isinstance(found.error, lines.LineError)
    assert found.error.param == "input"


def test_a_reader_of_json_takes_no_more_than_json() -> None:
    for each in DRAWN:
        if each.readable:
            assert json_text.read(each.literal) == each.value
        elif each.kind != "of another type":
            with pytest.raises(json_text.NotJson):
                json_text.read(each.literal)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400 + ".5"])
def test_a_worker_takes_no_number_for_infinite(number: str) -> None:
    """The parser of JSON does, silently; its results could then not be written."""
    written = celery_message.encode(build(SETTINGS, "m", "x", None, None, {}), "id")
    envelope = json.loads(written)
    envelope["properties"]["body_encoding"] = "utf-8"
    envelope["body"] = f'[[], {{"input": "x", "parameters": {{"p": {number}}}}}, {{}}]'
    with pytest.raises(NotAJob, match=r"the body is not JSON: 1\.parameters\.p is too (large|small)"):
        message.read(json.dumps(envelope).encode())
