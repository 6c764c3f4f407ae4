import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import Job
from producer.envelope import encode
from scheduler.message import NotAJob, read

GOOD = json.loads(encode(Job(model="m", tier="batch", input="x"), "id"))


def changed(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def body(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_our_own_envelope_is_accepted() -> None:
    assert read(json.dumps(GOOD).encode())["headers"]["id"] == "id"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "not JSON"),
        (b"\x80\x05K\x01.", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "the message is not an object"),
        (b"{}", "headers is not an object"),
        (changed(properties=None), "properties is not an object"),
        (changed(headers={**GOOD["headers"], "task": "os.system"}), "headers.task is 'os.system'"),
        (changed(headers={**GOOD["headers"], "id": 7}), "headers.id is not a text"),
        (changed(headers={**GOOD["headers"], "expires": {}}), "headers.expires is not a text"),
        (changed(**{"content-type": "application/x-python-serialize"}), "only application/json is accepted"),
        (changed(**{"content-encoding": "binary"}), "content-encoding is 'binary'"),
        (changed(body="%%%"), "body is not base64"),
        (changed(body=body({"args": []})), "only task protocol 2"),
        (changed(body=body([["x"], {}, {}])), "not given by name"),
        (changed(body=body([[], ["x"], {}])), "the job is not an object"),
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
