import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as celery_json

from producer import Job
from producer.contract.message.celery_message import encode
from producer.contract.message.message_body import NotAJob
from scheduler.message import named, read

GOOD = json.loads(encode(Job(model="m", tier="batch", input="x"), "id"))


LINK = {"task": "os.system", "args": ["id"], "kwargs": {}, "options": {"queue": "celery"}}


WRONG_LIMITS: tuple[object, ...] = (7, "x", [], [1], [None, "9"], [-1, None], [10**400, None], [None, True], {})


def changed(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def body(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_our_own_envelope_is_read() -> None:
    message = read(encode(Job(model="m", tier="batch", input="x", parameters={"p": 1}), "id"))
    assert message.id == "id"
    assert message.fields == {"model": "m", "tier": "batch", "input": "x", "parameters": {"p": 1}}
    assert message.wants_result
    assert message.expires is None
    assert message.time_limit_s is None
    assert message.submitted_at is not None
    assert message.told["kwargsrepr"] == "{'model': 'm', 'tier': 'batch', 'inputs': 1}"


def test_what_a_stock_producer_may_say_is_read() -> None:
    headers = {**GOOD["headers"], "expires": "2030-01-01T00:00:00", "timelimit": [9, 5], "ignore_result": True}
    message = read(changed(headers=headers))
    assert message.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert message.time_limit_s == 9
    assert not message.wants_result


def test_a_date_among_the_fields_is_read_as_celery_writes_it() -> None:
    fields = {"input": "x", "deadline": datetime(2030, 1, 1, tzinfo=UTC)}
    message = read(changed(body=base64.b64encode(celery_json.dumps([[], fields, {}]).encode()).decode()))
    assert message.fields == fields


def test_no_header_but_those_that_are_known_steers_anything() -> None:
    steering = {"shadow": "os.system", "is_eager": True, "get": 1, "__class__": "x", "properties": {}}
    assert read(changed(headers={**GOOD["headers"], **steering})) == read(changed())


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "not JSON"),
        (b"\x80\x05K\x01.", "not JSON"),
        (b"[" * 100_000, "not JSON: recursion limit"),
        (b"[]", "the message is not an object"),
        (json.dumps(GOOD).encode("utf-16"), "the message is not JSON"),
        (b"{}", "headers is not an object"),
        (changed(properties=None), "properties is not an object"),
        (changed(headers={**GOOD["headers"], "task": "os.system"}), "headers.task is 'os.system'"),
        (changed(headers={**GOOD["headers"], "id": 7}), "headers.id is not a text"),
        (changed(headers={**GOOD["headers"], "expires": {}}), "headers.expires is not a text"),
        (changed(headers={**GOOD["headers"], "expires": "soon"}), "headers.expires is 'soon', not an instant"),
        (changed(headers={**GOOD["headers"], "eta": "9999-12-31T23:59:59+00:00"}), "does not wait for a job's time"),
        (changed(headers={**GOOD["headers"], "compression": "bzip2"}), "nothing compressed"),
        *(
            (changed(headers={**GOOD["headers"], "timelimit": limit}), "headers.timelimit is not")
            for limit in WRONG_LIMITS
        ),
        (changed(headers={**GOOD["headers"], "ignore_result": "x"}), "ignore_result is not true or false"),
        (changed(headers={**GOOD["headers"], "submitted_at": float("nan")}), "the message is not JSON"),
        (changed(body=body([[], {"input": "x", "parameters": {"p": float("inf")}}, {}])), "the body is not JSON"),
        (changed(**{"content-type": "application/x-python-serialize"}), "only application/json is accepted"),
        (changed(**{"content-encoding": "binary"}), "content-encoding is 'binary'"),
        (changed(body="%%%"), "body is not base64"),
        (changed(body=body({"args": []})), "only task protocol 2"),
        (changed(body=body([["x"], {}, {}])), "not given by name"),
        (changed(body=body([[], ["x"], {}])), "the job is not an object"),
        (changed(body=body([[], {"input": {"__type__": "datetime", "__value__": 7}}, {}])), "not what it says"),
        (changed(body=body([[], {}, {"callbacks": [LINK]}])), r"tasks to send when it has ended \(callbacks\)"),
        (changed(body=body([[], {}, {"errbacks": [LINK]}])), "errbacks"),
        (changed(body=body([[], {}, {"chain": [LINK]}])), "chain"),
        (changed(body=body([[], {}, {"chord": LINK}])), "chord"),
        (
            changed(body=body([[], {}, {"properties": {"delivery_tag": "q|another:1"}}])),
            r"embed holds \['properties'\]",
        ),
        (changed(headers={**GOOD["headers"], "chain": [LINK]}), "tasks to send"),
        (changed(headers={**GOOD["headers"], "chord": LINK}), "tasks to send"),
        (changed(headers={**GOOD["headers"], "id": "a\nCRITICAL b"}), "printable"),
    ],
)
def test_what_is_not_a_job_is_named(message: bytes, why: str) -> None:
    with pytest.raises(NotAJob, match=why):
        read(message)


@pytest.mark.parametrize("body", [base64.b64encode(b"\x78\x9c\xff").decode(), "not base64", 7, None])
def test_a_message_whose_body_cannot_be_read_still_names_its_task(body: object) -> None:
    headers = {**GOOD["headers"], "kwargsrepr": "half a character: \ud800"}
    assert named(changed(headers=headers, body=body)) == ["id"]


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_message_raises_anything_else(message: bytes) -> None:
    with pytest.raises(NotAJob):
        read(message)
