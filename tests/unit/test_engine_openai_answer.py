"""What the openai engine makes of whatever a server answers: an answer, or an error of the one request."""

import asyncio
import base64
import contextlib
import copy
import functools
import itertools
import json
import math
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.contract.errors import EngineError, InvalidJob, ServerBusy, ServerRefused, StokerError
from producer.contract.fleet.fleet_schema import Model
from producer.contract.message.celery_message import decode
from scheduler import results
from workers.engines.openai import answer, client, health, server_error
from workers.engines.openai.dialect import Dialect, refused_parameter
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.openai.server_error import read_error
from workers.engines.openai.text_assembly import TextAssembly
from workers.engines.protocol import Outcome, OutputPiece, Report, Request

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, **choice}]}).encode()


# -- events -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (chunk(text=" Paris", finish_reason=None), answer.Event(" Paris")),
        (chunk(delta={"content": None}, finish_reason="stop"), answer.Event(finish_reason="stop")),
        (chunk(delta={"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}), answer.Event("ab")),
        (chunk(delta={"reasoning_content": "hmm"}), answer.Event(reasoning="hmm")),
        (chunk(delta={"reasoning": "hmm"}), answer.Event(reasoning="hmm")),
        (chunk(message={"content": "whole"}, finish_reason="stop"), answer.Event("whole", finish_reason="stop")),
        (chunk(content_filter_results={}, finish_reason=None), answer.Event()),
        (chunk(delta=None), answer.Event()),
        (chunk(delta={"refusal": "no"}), answer.Event(refusal="no")),
        (
            chunk(text="a", logprobs={"tokens": ["a"], "token_logprobs": [-1.0]}),
            answer.Event("a", logprobs=({"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []},)),
        ),
        (
            b'{"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}',
            answer.Event(usage={"cached_tokens": 2}),
        ),
        (b'{"choices": [], "prompt_filter_results": []}', answer.Event()),
        (b'{"choices": null, "usage": null}', answer.Event()),
        (
            b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "other": null}}',
            answer.Event(usage={"input_tokens": 5, "output_tokens": 3}),
        ),
    ],
)
def test_what_an_event_says(data: bytes, event: answer.Event) -> None:
    assert answer.read_event(data) == event


@pytest.mark.parametrize(
    "data",
    [
        b"{no JSON",
        b"[]",
        b"5",
        b'{"choices": 3}',
        b"\xff",
        b"[" * 100_000,
        chunk(delta={"content": 5}),
        chunk(delta={"content": {"text": "a"}}),
        chunk(delta="text"),
        chunk(text=["a", 5], finish_reason=7),
        chunk(index=1, text="a"),
        b'{"choices": [], "usage": {"prompt_tokens": "many"}}',
        b'{"choices": [], "usage": {"prompt_tokens": -1}}',
        b'{"choices": [], "usage": {"prompt_tokens": NaN}}',
        b'{"choices": [], "usage": {"prompt_tokens": 1e30}}',
        b'{"choices": [], "usage": [1]}',
    ],
)
def test_what_is_no_event_is_the_servers_fault(data: bytes) -> None:
    with pytest.raises(EngineError, match="no event of the OpenAI API"):
        answer.read_event(data)


def test_an_error_within_a_stream_blames_whom_its_code_blames() -> None:
    def error(data: bytes) -> StokerError:
        found = answer.read_event(data).error
        assert found is not None
        return found.within_stream()

    assert isinstance(error(b'{"error": {"message": "too long", "code": 400}}'), InvalidJob)
    assert isinstance(error(b'{"error": {"message": "too long", "code": "422"}}'), InvalidJob)
    assert type(error(b'{"error": {"message": "wait", "code": 429}}')) is EngineError  # the job is tried again
    assert type(error(b'{"error": {"message": "no memory", "code": 500}}')) is EngineError
    assert "no memory" in str(error(b'{"error": "no memory"}'))
    assert "no memory" in str(error(b'{"object": "error", "message": "no memory"}'))
    assert type(error(b"{}")) is EngineError


def called(*pieces: dict[str, Any]) -> answer.Answer:
    said = answer.Answer()
    for piece in pieces:
        said.add(answer.read_event(chunk(delta={"tool_calls": [piece]})))
    said.end()
    return said


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    said = called(
        {"index": 1, "id": "a", "function": {"name": "f", "arguments": '{"x'}},
        {"index": 2, "function": {"name": "g", "arguments": {"y": 1}}},
        {"index": 1, "function": {"arguments": '": 1}'}},
    )
    first, second = said.output["tool_calls"]
    assert first == {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    assert second["function"] == {"name": "g", "arguments": '{"y": 1}'}
    assert second["id"].startswith("call_")  # some servers name none


@pytest.mark.parametrize("function", [{"arguments": "{}"}, {"name": "two words"}, {"name": ""}])
def test_a_tool_call_without_a_name_is_the_servers_fault(function: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="allowed: a word"):
        called({"index": 0, "function": function})


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LONGEST_ANSWER", 5)
    endless = answer.Answer()
    assert endless.add(answer.Event("abc", "de")) == answer.News("abc", "de")
    with pytest.raises(EngineError, match="an answer of more than 5 characters"):
        endless.add(answer.Event("f"))


# -- texts in pieces --------------------------------------------------------------------------------


@given(st.text(), st.data())
def test_text_is_the_same_however_its_characters_are_split(text: str, data: st.DataObject) -> None:
    in_bytes = data.draw(st.booleans())
    units = (
        [byte.to_bytes().decode("utf-8", "surrogateescape") for byte in text.encode()]
        if in_bytes
        else [half.decode("utf-16-le", "surrogatepass") for half in halves(text)]
    )
    cuts = sorted({0, len(units), *data.draw(st.lists(st.integers(0, len(units))))})
    assembly = TextAssembly()
    pieces = [assembly.add("".join(units[start:end])) for start, end in itertools.pairwise(cuts)]
    assert "".join(pieces) + assembly.add("", last=True) == text


def halves(text: str) -> list[bytes]:
    packed = text.encode("utf-16-le")
    return [packed[at : at + 2] for at in range(0, len(packed), 2)]


@given(st.lists(st.text(st.characters() | st.characters(categories=["Cs"]))))
def test_what_is_no_character_is_replaced(pieces: list[str]) -> None:
    assembly = TextAssembly()
    made = [*(assembly.add(piece) for piece in pieces), assembly.add("", last=True)]
    for piece in made:
        piece.encode()  # each can be sent by itself


def test_a_half_is_kept_until_its_other_half_comes() -> None:
    assembly = TextAssembly()
    assert assembly.add("a\ud83d") == "a"
    assert assembly.add("") == ""
    assert assembly.add("\ude00b") == "\U0001f600b"
    assert assembly.add("\ud83d") == ""
    assert assembly.add("c") == "\ufffdc"
    assert assembly.add("\ud83d") + assembly.add("", last=True) == "\ufffd"


# -- embeddings -------------------------------------------------------------------------------------


def embeddings(*rows: Any, **fields: Any) -> bytes:
    return json.dumps({"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)], **fields}).encode()


def test_embeddings_are_put_in_order_and_counted() -> None:
    data = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 7}}
    assert answer.read_embeddings(json.dumps(data).encode(), 2) == ([[1.0], [2.0]], {"input_tokens": 7})
    without = {"data": [{"embedding": [1.0]}, {"embedding": [2]}]}
    assert answer.read_embeddings(json.dumps(without).encode(), 2) == ([[1.0], [2.0]], {})


def test_embeddings_in_base64_are_read_although_numbers_were_asked_for() -> None:
    packed = base64.b64encode(struct.pack("<3f", 1.0, -0.5, 0.25)).decode()
    assert answer.read_embeddings(embeddings(packed), 1) == ([[1.0, -0.5, 0.25]], {})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"data": [{}]}', "no embeddings of the OpenAI API"),
        (b'{"data": null}', "no embeddings"),
        (b"[" * 100_000, "no embeddings"),
        (embeddings([]), "no embeddings"),
        (embeddings(["1.0"]), "no embeddings"),
        (embeddings([True]), "no embeddings"),
        (embeddings([None]), "no embeddings"),
        (embeddings([[1.0]]), "no embeddings"),
        (embeddings([1.0], usage={"prompt_tokens": "x"}), "no embeddings"),
        (embeddings([1.0], [2.0]), "2 embeddings for 1 inputs"),
        (embeddings([math.nan]), "nan in the embedding of input 0"),
        (embeddings([math.inf]), "inf in the embedding of input 0"),
        (embeddings([1e39]), r"1e\+39 in the embedding of input 0, which is no 32-bit float"),
        (embeddings("AAA"), "no base64 of 32-bit floats: 'AAA'"),
        (embeddings("AAAAAAA="), "no base64 of 32-bit floats"),
        (embeddings("é"), "no base64 of 32-bit floats"),
        (b'{"data": [{"index": 1, "embedding": [1.0]}]}', r"indices \[1\] for 1 inputs"),
    ],
)
def test_what_is_no_embedding_is_the_servers_fault(data: bytes, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        answer.read_embeddings(data, 1)


def test_embeddings_of_different_lengths_are_the_servers_fault() -> None:
    with pytest.raises(EngineError, match=r"different lengths: \[1, 2\]"):
        answer.read_embeddings(embeddings([1.0], [1.0, 2.0]), 2)


# -- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"message": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "plain"}', "plain"),
        (b'{"error": {"message": {"deep": 1}}}', '{"error": {"message": {"deep": 1}}}'),
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b"[1]", "[1]"),
        (b"[" * 100_000, "[" * 497 + "..."),
        (rb'{"error": "half \ud800"}', "half \ufffd"),
        (b"\xff", "\ufffd"),
    ],
)
def test_the_message_is_found_wherever_a_server_puts_it(content: bytes, words: str) -> None:
    assert read_error(500, content).message == words


@pytest.mark.parametrize(("status", "blamed"), [(400, True), (413, True), (422, True), (401, False), (404, False)])
def test_a_server_that_is_set_up_wrong_is_not_the_jobs_fault(status: int, blamed: bool) -> None:
    assert read_error(status, b"").blames_request is blamed


def test_a_busy_server_and_a_broken_one_do_not_blame_the_job() -> None:
    assert not any(read_error(status, b"").blames_request for status in (408, 425, 429, 500, 502, 503))


def test_the_servers_own_words_for_an_error_reach_the_client() -> None:
    body = b'{"error": {"message": "too long", "type": "t", "param": "prompt", "code": "context_length_exceeded"}}'
    with pytest.raises(ServerRefused, match=r"^the server refused it: too long$") as refused:
        decode(results.failed("j", read_error(400, body).refusal()))
    assert (refused.value.code, refused.value.param, refused.value.type) == ("context_length_exceeded", "prompt", "t")
    with pytest.raises(ServerBusy, match="the server is busy: it answered 429: too long") as busy:
        decode(results.failed("j", read_error(429, body).busy(30.0)))
    assert (busy.value.status, busy.value.retry_after_s, busy.value.code) == (429, 30.0, "context_length_exceeded")
    with pytest.raises(ServerBusy) as busy:
        decode(results.failed("j", read_error(408, b"").busy()))
    assert (busy.value.status, busy.value.retry_after_s) == (503, None)


def test_an_error_that_quotes_no_unicode_has_a_result() -> None:
    with pytest.raises(InvalidJob, match=r"half \?"):
        decode(results.failed("j", InvalidJob("half \ud800")))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2025 00:01:00 GMT", None),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("²", None),
    ],
)
def test_when_a_server_wants_to_be_asked_again(header: str, seconds: float | None) -> None:
    assert server_error.retry_after(header, NOW) == seconds


@given(st.text())
def test_any_header_is_a_time_or_none(header: str) -> None:
    assert (server_error.retry_after(header, NOW) or 0.0) >= 0


def test_a_context_that_is_exceeded_has_openais_code_whatever_the_server_calls_it() -> None:
    said = b'{"message": "This model\'s maximum context length is 2048 tokens", "type": "BadRequestError", "code": 400}'
    assert read_error(400, said).refusal().code == "context_length_exceeded"
    assert read_error(400, b'{"message": "no such role"}').refusal().code == ""


# -- parameters that a server does not take ---------------------------------------------------------

SENT = {"model", "prompt", "max_tokens", "stream", "stream_options", "temperature"}


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}}, "max_tokens"),
        ({"error": {"message": "Unrecognized request argument supplied: stream_options"}}, "stream_options"),
        (
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra"}]},
            "stream_options",
        ),
        ("Failed to deserialize: unknown field `stream_options`", "stream_options"),
        ({"error": {"message": "max_tokens is too large: 9000", "param": "max_tokens"}}, None),
        ({"error": {"message": "'temperature' is not supported", "param": "temperature"}}, None),
        ({"error": {"message": "this role is not supported, says max_tokens", "param": "messages"}}, None),
        ({"error": {"message": "'encoding_format' is not supported"}}, None),  # it was not sent
    ],
)
def test_a_parameter_that_a_server_refuses_is_found_if_it_need_not_be_sent(body: Any, refused: str | None) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert refused_parameter(read_error(400, content), SENT) == refused
    assert refused_parameter(read_error(500, content), SENT) is None


def test_what_was_refused_is_not_sent_again_once_the_request_was_served_without() -> None:
    content = json.dumps(dict.fromkeys(sorted(SENT), 1)).encode()
    dialect = Dialect()
    assert dialect.adapt(content) == content
    adapted = json.loads(dialect.adapt(content, ["max_tokens", "stream_options"]))
    assert adapted.keys() == SENT - {"max_tokens", "stream_options"} | {"max_completion_tokens"}
    assert dialect.adapt(content) == content
    dialect.learn(["max_tokens", "stream_options"])
    assert json.loads(dialect.adapt(content)) == adapted


def test_what_is_to_be_omitted_is_never_sent() -> None:
    content = json.dumps(dict.fromkeys(sorted(SENT), 1)).encode()
    kept = json.loads(Dialect(("temperature", "stream", "max_tokens")).adapt(content)).keys()
    assert kept == {"model", "prompt"}


# -- health -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "well", "path"),
    [
        ({"/health": 200}, True, "/health"),
        ({"/health": 503, "/v1/models": 200}, False, None),  # it loads
        ({"/health": 404, "/v1/models": 200}, True, "/v1/models"),
        ({"/health": 403, "/v1/models": 429}, True, "/v1/models"),
        ({"/health": 404, "/v1/models": 401, "/": 302}, True, "/"),
        ({"/health": 404, "/v1/models": 404, "/": 404}, False, None),
        ({"/health": 302, "/v1/models": 200}, False, None),
    ],
)
def test_the_health_of_a_server_is_asked_where_it_has_it(
    statuses: dict[str, int], well: bool, path: str | None
) -> None:
    check = health.HealthCheck(None)

    async def status_of(asked: str) -> int:
        return statuses[asked]

    assert asyncio.run(check.well(status_of)) is well
    assert str(check) == (path or "/health or /v1/models or /")


def test_a_path_that_was_given_is_the_only_one_that_is_asked() -> None:
    check = health.HealthCheck("/ready")

    async def status_of(asked: str) -> int:
        assert asked == "/ready"
        return 404

    assert not asyncio.run(check.well(status_of))


# -- whatever a server answers ----------------------------------------------------------------------

WORDS = st.text(max_size=3) | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
Document = dict[str, object]
CHUNKS: list[Document] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a", "reasoning_content": "r"}}]},
    {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "b"}]}, "finish_reason": None}]},
    {"choices": [{"index": 0, "text": "c", "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
WHOLE: Document = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
EMBEDDED: Document = {"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 1}}
PACKED: Document = {"data": [{"embedding": "AACAPwAAAEA="}]}
ERROR: Document = {
    "error": {"message": "m", "code": 400, "type": "t", "param": "p"},
    "detail": [{"loc": ["body", "p"]}],
}
RIGHT: dict[str, list[list[Document]]] = {
    "generate": [CHUNKS, [WHOLE], [ERROR]],
    "embeddings": [[EMBEDDED], [PACKED], [ERROR]],
}


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every container and key in a document."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else []
    return [(document, key) for key in keys] + [place for key in keys for place in places(document[key])]


@st.composite
def bodies(draw: st.DrawFn, task: str) -> list[bytes]:
    """The documents of an answer, up to two places of which are arbitrary JSON or missing; or arbitrary documents."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.lists(JSON.map(lambda found: json.dumps(found).encode()) | st.binary(max_size=9), max_size=3))
    documents = copy.deepcopy(draw(st.sampled_from(RIGHT[task])))
    for _ in range(draw(st.integers(0, 2))):
        container, key = draw(st.sampled_from(places(documents)))
        if draw(st.booleans()) or not isinstance(container, dict):
            container[key] = draw(JSON)
        else:
            del container[key]
    return [json.dumps(document).encode() for document in documents]


def responses(task: str) -> st.SearchStrategy[tuple[int, str, list[bytes]]]:
    """A status, a content type, and documents."""
    statuses = st.just(200) | st.sampled_from([200, 400, 422, 429, 503, 404, 500])
    return st.tuples(statuses, st.sampled_from(["text/event-stream", "application/json", ""]), bodies(task))


@given(JSON)
def test_whatever_a_server_lists_is_a_model_or_an_error(listed: Any) -> None:
    for document in (listed, {"data": listed}, {"data": [{"id": listed}]}):
        with contextlib.suppress(ValueError):
            assert answer.first_model(json.dumps(document).encode())


class Answering:
    """An engine with a server that answers as it is told; requests to it are awaited."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.response: tuple[int, str, list[bytes]] = (200, "", [])
        options = {"url": "http://server", "model": "m", "task": task}
        self.engine = OpenAIEngine(Model.model_validate({"engine": "openai", "options": options}), "cpu:0")

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200)
        status, kind, bodies = self.response
        content = b"".join(bodies) if kind == "application/json" else b"".join(b"data: %b\n\n" % b for b in bodies)
        return httpx2.Response(status, headers={"Content-Type": kind}, content=content)

    def run(self, request: Request) -> list[Report]:
        self.engine.submit(request)
        reports: list[Report] = []
        deadline = time.monotonic() + 30
        while not any(isinstance(report, Outcome) for report in reports):
            assert time.monotonic() < deadline
            reports += self.engine.step(1.0)  # raises when the engine is lost
        return reports


@pytest.fixture(params=["generate", "embeddings"])
def answering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    answering = Answering(request.param)
    transport = httpx2.MockTransport(answering.answer)
    monkeypatch.setattr(httpx2, "AsyncClient", functools.partial(httpx2.AsyncClient, transport=transport))
    monkeypatch.setattr(client, "BUSY_RETRIES", 0)
    answering.engine.load()
    yield answering
    answering.engine.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["text", "chat"]))
def test_whatever_a_server_answers_is_a_result_or_an_error_of_the_request(
    answering: Answering, data: st.DataObject, kind: str
) -> None:
    answering.response = data.draw(responses(answering.task))
    embeds = answering.task == "embeddings"
    item: Any = "x" if kind == "text" or embeds else {"messages": [{"role": "user", "content": "x"}]}
    reports = answering.run(Request("r", [item], stream=True))
    [outcome] = [report for report in reports if isinstance(report, Outcome)]
    said = [report for report in reports if isinstance(report, OutputPiece)]
    pieces = [piece.text for piece in said if not piece.reasoning]
    thoughts = [piece.text for piece in said if piece.reasoning]
    for piece in pieces + thoughts:
        piece.encode()
    if outcome.error is not None:
        assert isinstance(outcome.error, InvalidJob | EngineError | ServerBusy)
        assert "could not be sent" not in str(outcome.error)  # an exception that is no finding about the answer
        with pytest.raises(StokerError):
            decode(results.failed("j", outcome.error))
        return
    assert outcome.outputs is not None
    [output] = outcome.outputs
    if embeds:
        assert all(map(math.isfinite, struct.unpack(f"<{len(output)}f", struct.pack(f"<{len(output)}f", *output))))
    else:
        assert output["text"] == "".join(pieces)
        assert output.get("reasoning_content", "") == "".join(thoughts)
        assert output["finish_reason"]
    decode(results.succeeded("j", {"output": output, "usage": outcome.usage}))
