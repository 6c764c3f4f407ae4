"""Log probabilities in OpenAI's two forms, whole and streamed; and on their way through a stream."""

import json
from typing import Any

import pytest

from gateway.access.api_key import ANYBODY
from gateway.openai.chunks import Chunks
from gateway.openai.endpoints import ENDPOINTS
from gateway.openai.logprobs import of_completion
from producer import Settings
from producer.contract.message.job import Result
from producer.stream import Piece, Reading

SETTINGS = Settings(models={"talk": {"engine": "echo", "options": {"task": "generate"}}})
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "talk", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "talk", "prompt": "hi"},
}


def entry(token: str, logprob: float | None, **others: float) -> dict[str, Any]:
    top = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in others.items()]
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": top}


ENTRIES = [entry("ab", -0.5, ab=-0.5, x=-1.5), entry("c", -3.0, y=-0.1), entry("", -0.2)]
OUTPUT = {"text": "abc", "finish_reason": "stop", "logprobs": ENTRIES}
RESULT = Result(id="j", output=[OUTPUT])


def test_a_chat_has_them_as_they_are() -> None:
    order = ENDPOINTS["/v1/chat/completions"].read(ASKED["/v1/chat/completions"], SETTINGS, ANYBODY)
    [choice] = order.response("j", RESULT, 0)["choices"]
    assert choice["logprobs"] == {"content": ENTRIES, "refusal": None}
    [plain] = order.response("j", Result(output=[{"text": "abc"}]), 0)["choices"]
    assert plain["logprobs"] is None


def test_a_completion_has_them_in_columns() -> None:
    order = ENDPOINTS["/v1/completions"].read(ASKED["/v1/completions"], SETTINGS, ANYBODY)
    [choice] = order.response("j", RESULT, 0)["choices"]
    assert choice["logprobs"] == {
        "tokens": ["ab", "c", ""],
        "token_logprobs": [-0.5, -3.0, -0.2],
        "top_logprobs": [{"ab": -0.5, "x": -1.5}, {"y": -0.1, "c": -3.0}, {"": -0.2}],
        "text_offset": [0, 2, 3],
    }


def test_the_first_token_of_a_prompt_has_none() -> None:
    found = of_completion([entry("a", None)])
    assert found is not None
    assert (found["token_logprobs"], found["top_logprobs"]) == ([None], [None])


@pytest.mark.parametrize("path", ASKED)
def test_a_stream_tells_each_once_and_the_rest_at_the_end(path: str) -> None:
    """The last token has no text, so no piece of text tells it."""
    order = ENDPOINTS[path].read({**ASKED[path], "stream": True}, SETTINGS, ANYBODY)
    chunks = Chunks(order, "id", 0)
    pieces = [Piece("1-0", 0, 0, "ab", 1, logprobs=(ENTRIES[0],)), Piece("2-0", 0, 2, "c", 1, logprobs=(ENTRIES[1],))]
    events = b"".join([*map(chunks.piece, pieces), chunks.end(RESULT)]).decode().split("\n\n")
    told = [json.loads(event.removeprefix("data: "))["choices"][0]["logprobs"] for event in events[:3]]
    if order.chat:
        assert [each["content"] for each in told] == [[each] for each in ENTRIES]
    else:
        assert [each["tokens"] for each in told] == [["ab"], ["c"], [""]]
        assert [each["text_offset"] for each in told] == [[0], [2], [3]]


def test_a_reader_is_told_each_once_though_the_job_runs_again() -> None:
    def written(number: int, at: int, text: str, tokens: int, begin: int, *entries: Any) -> Any:
        fields = {b"index": b"0", b"at": b"%d" % at, b"text": text.encode(), b"tokens": b"%d" % tokens}
        return b"%d-0" % number, {**fields, b"logprobs": json.dumps([begin, entries]).encode()}

    entries = [
        written(1, 0, "ab", 1, 0, "A"),
        written(2, 2, "c", 2, 1, "C"),
        written(3, 0, "ab", 1, 0, "A"),
        written(4, 2, "cde", 4, 1, "C", "D", "E"),
    ]
    pieces = list(Reading().read(entries))
    assert [(piece.text, piece.logprobs) for piece in pieces] == [("ab", ("A",)), ("c", ("C",)), ("de", ("D", "E"))]
