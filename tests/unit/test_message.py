import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import Job
from producer.envelope import encode
from scheduler.message import NotAJob, read

GOOD = json.loads(encode(Job(model="m", tier="batch", input="x"), "id"))


LINK = {"task": "os.system", "args": ["id"], "kwargs": {}, "options": {"queue": "celery"}}


def changed(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def body(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_our_own_envelope_is_accepted() -> None:
    assert read(json.dumps(GOOD).encode())["headers"]["id"] == "id"


def test_headers_that_celery_would_take_for_its_own_knowledge_are_dropped_and_others_kept() -> None:
    steering = {"shadow": "os.system", "is_eager": True, "get": 1, "__class__": "x", "properties": {}, "callbacks": []}
    headers = {**GOOD["headers"], **steering, "traceparent": "00-abc"}
    kept = read(changed(headers=headers))["headers"]
    assert not steering.keys() & kept.keys()
    assert {name: kept[name] for name in ("id", "task", "expires", "timelimit", "traceparent")} == {
        **{name: GOOD["headers"][name] for name in ("id", "task", "expires", "timelimit")},
        "traceparent": "00-abc",
    }


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "not JSON"),
        (b"\x80\x05K\x01.", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "the message is not an object"),
        (json.dumps(GOOD).encode("utf-16"), "the message is not JSON: 'utf-8' codec"),
        (b"{}", "headers is not an object"),
        (changed(properties=None), "properties is not an object"),
        (changed(headers={**GOOD["headers"], "task": "os.system"}), "headers.task is 'os.system'"),
        (changed(headers={**GOOD["headers"], "id": 7}), "headers.id is not a text"),
        (changed(headers={**GOOD["headers"], "expires": {}}), "headers.expires is not a text"),
        (changed(headers={**GOOD["headers"], "eta": "9999-12-31T23:59:59+00:00"}), "does not wait for a job's time"),
        (changed(headers={**GOOD["headers"], "compression": "bzip2"}), "nothing compressed"),
        *(
            (changed(headers={**GOOD["headers"], "timelimit": limit}), "headers.timelimit is not")
            for limit in (7, "x", [], [1], [None, "9"], [-1, None], [10**400, None], [None, True], {})
        ),
        (changed(headers={**GOOD["headers"], "ignore_result": "x"}), "ignore_result is not true or false"),
        (changed(headers={**GOOD["headers"], "submitted_at": float("nan")}), "NaN is no number"),
        (changed(body=body([[], {"input": "x", "parameters": {"p": float("inf")}}, {}])), "Infinity is no number"),
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


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_message_raises_anything_else(message: bytes) -> None:
    with pytest.raises(NotAJob):
        read(message)
