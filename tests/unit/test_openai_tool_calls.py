"""Tool calls in OpenAI's form, whole and streamed."""

import json
from typing import Any

from gateway.access.api_key import ANYBODY
from gateway.openai.chunks import Chunks
from gateway.openai.endpoints import ENDPOINTS
from producer import Settings
from producer.contract.message.job import Result
from producer.contract.message.tool_call import call_text
from producer.stream import Piece

SETTINGS = Settings(models={"talk": {"engine": "echo", "options": {"task": "generate"}}})
ASKED = {"model": "talk", "messages": [{"role": "user", "content": "hi"}], "stream": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
RESULT = Result(id="j", output=[{"text": "", "finish_reason": "tool_calls", "tool_calls": [CALL]}])


def test_a_message_has_them_in_place_of_content() -> None:
    order = ENDPOINTS["/v1/chat/completions"].read(ASKED, SETTINGS, ANYBODY)
    [choice] = order.response("j", RESULT, 0)["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]}
    assert choice["finish_reason"] == "tool_calls"
    beside = Result(id="j", output=[{"text": "I look.", "tool_calls": [CALL]}])
    assert order.response("j", beside, 0)["choices"][0]["message"]["content"] == "I look."


def test_a_stream_tells_id_and_name_once_and_then_the_arguments() -> None:
    chunks = Chunks(ENDPOINTS["/v1/chat/completions"].read(ASKED, SETTINGS, ANYBODY), "id", 0)
    whole = call_text(CALL)
    pieces = [Piece("1-0", 0, 0, whole[:11], call=0), Piece("2-0", 0, 11, whole[11:], call=0)]
    events = b"".join([*map(chunks.piece, pieces), chunks.end(RESULT)]).decode().split("\n\n")
    choices: list[Any] = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events[:3]]
    assert [choice["delta"] for choice in choices] == [
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a'}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": 't": 1}'}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "tool_calls"]
