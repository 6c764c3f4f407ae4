"""Input lines read as requests, and ended jobs written as output lines."""

import io
import json

import pytest

from gateway.batches.lines.line_translation import tell_ours
from gateway.batches.lines.lines import Line, parse, read
from producer.contract.errors import InvalidJob, JobCancelled, JobFailed
from producer.contract.message.job import Result, Timing

LONGEST = 1000


def test_a_line_is_an_object_with_an_input() -> None:
    line = parse(7, b'{"custom_id": "a", "input": ["x", {"y": 1}], "parameters": {"seed": 1}}\n', LONGEST)
    assert (line.number, line.custom_id, line.error) == (7, "a", None)
    assert line.fields == {"input": ["x", {"y": 1}], "parameters": {"seed": 1}}


def test_without_a_custom_id_it_is_the_line_number() -> None:
    assert parse(7, b'{"input": "x"}', LONGEST).custom_id == "line-7"


@pytest.mark.parametrize(
    ("raw", "custom_id", "says"),
    [
        (b"nonsense\n", "line-3", "not JSON"),
        (b'{"input": "torn\n', "line-3", "not JSON"),
        (b"\xff\xfe\x00\n", "line-3", "not JSON"),
        (b'{"input": "x", "parameters": {"temperature": NaN}}\n', "line-3", "NaN"),
        (b"[" * 900 + b"\n", "line-3", "not JSON"),
        (b'["x"]\n', "line-3", "list, not an object"),
        (b"null\n", "line-3", "NoneType, not an object"),
        (b"{}\n", "line-3", "input is missing"),
        (b'{"custom_id": "a"}\n', "a", "input is missing"),
        (b'{"custom_id": 4, "input": "x"}\n', "line-3", "custom_id = 4"),
        (b'{"custom_id": "a", "prompt": "x"}\n', "a", "unknown field 'prompt'; allowed: custom_id, input, parameters"),
        (b'{"custom_id": "a", "input": "x", "tier": "m"}\n', "a", "unknown field 'tier'"),
        (b'{"custom_id": "a", "method": "GET", "url": "/v1/x", "body": {}}\n', "a", "allowed: 'POST'"),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/x"}\n', "a", "body is missing"),
        (b'{"input": "' + b"x" * LONGEST + b'"}\n', "line-3", "longer than 1000 bytes"),
    ],
)
def test_what_is_wrong_with_a_line_is_its_error(raw: bytes, custom_id: str, says: str) -> None:
    line = parse(3, raw, LONGEST)
    assert line.custom_id == custom_id
    assert isinstance(line.error, InvalidJob)
    assert says in str(line.error)


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert parse(1, b'\xef\xbb\xbf{"input": "x"}\n', LONGEST).error is None


def test_blank_lines_count_and_are_skipped() -> None:
    assert list(read(io.BytesIO(b"a\n\n  \r\nb"), LONGEST)) == [(1, b"a\n"), (4, b"b")]


def test_an_overlong_line_is_cut_and_the_next_one_is_whole() -> None:
    found = list(read(io.BytesIO(b"x" * 35 + b"\nshort\n" + b"y" * 11), 10))
    assert found == [(1, b"x" * 11), (2, b"short\n"), (3, b"y" * 11)]


def test_a_line_of_exactly_the_longest_is_whole() -> None:
    assert list(read(io.BytesIO(b"123456789\nz\n"), 10)) == [(1, b"123456789\n"), (2, b"z\n")]


def test_an_output_line_has_what_the_job_has() -> None:
    result = Result(
        id="j", output={"text": "hé\ud800"}, usage={"n": 2}, timing=Timing(ran_s=1.5, batch_size=3, worker="w")
    )
    raw = tell_ours(Line(4, "a"), None, result)[0]
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    assert json.loads(raw) == {
        "custom_id": "a",
        "line": 4,
        "output": {"text": "hé\ud800"},
        "usage": {"n": 2},
        "timing": {"waited_s": None, "ran_s": 1.5, "batch_size": 3, "worker": "w"},
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidJob("no"), "InvalidJob"),
        (JobFailed("no", "EngineError"), "EngineError"),
        (JobCancelled("no", "TaskRevokedError"), "JobCancelled"),
    ],
)
def test_an_error_is_a_line_of_its_own(error: JobFailed, kind: str) -> None:
    expected = {"custom_id": "a", "line": 4, "error": {"kind": kind, "message": "no"}}
    assert json.loads(tell_ours(Line(4, "a"), None, error)[0]) == expected
