"""What applications ask of a language model, by the official client, through a gateway to the engine ``generate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

import tiny_models
from deploy.machine.server import Server
from gatewayed import Gatewayed
from processes import wait_for
from producer.contract.heartbeat import WorkerState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEMPLATE = (
    "{% if tools %}<tool_call>{{ tools[0].function.name }}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"
)
HELLO: list[Any] = [{"role": "user", "content": "How is it in Rome?"}]
CITY = {"type": "string", "maxLength": 8}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": CITY},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Mood(BaseModel):
    """What is asked for by its schema."""

    colour: Literal["red", "green"]
    certain: bool


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder: Path = tmp_path_factory.mktemp("language")
    server = Server(folder / "server")
    server.start()
    source = tiny_models.byte_level_llama(chat_template=TEMPLATE)
    table = f'[models.talk]\nengine = "generate"\nsource = "{source}"\nmemory_gb = 1.0\nmax_concurrency = 8\n'
    fleet = Gatewayed(folder, server.url, table)
    fleet.start("talk", "w")
    wait_for(partial(fleet.beat, "w", WorkerState.READY), "the worker")
    with openai.OpenAI(base_url=f"{fleet.gateway()}/v1", api_key="any", max_retries=0, timeout=120) as client:
        yield client
    fleet.close()
    server.stop()


def test_an_answer_is_parsed_by_its_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="talk", messages=HELLO, response_format=Mood, temperature=1)
    assert isinstance(answer.choices[0].message.parsed, Mood)


def test_a_tool_is_called_and_its_answer_read(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "talk", "tools": [WEATHER], "max_completion_tokens": 60}
    asked |= {"tool_choice": "required", "parallel_tool_calls": False}
    answer = client.chat.completions.create(messages=HELLO, **asked)
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments).keys() == {"city"}
    said: list[Any] = [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    again = client.chat.completions.create(messages=[*HELLO, *said], model="talk", max_completion_tokens=4)
    assert again.choices[0].finish_reason in ("length", "stop")
    with client.chat.completions.stream(messages=HELLO, **asked) as stream:
        for _ in stream:
            pass
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls or []
    assert streamed.function.name == "weather"
    assert json.loads(streamed.function.arguments).keys() == {"city"}


def test_log_probabilities_are_told_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "talk", "messages": HELLO, "logprobs": True, "top_logprobs": 2, "seed": 1}
    asked |= {"max_completion_tokens": 6, "temperature": 0}
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.logprobs is not None
    whole = answer.logprobs.content or []
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in whole), "greedy"
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    streamed = [entry for chunk in chunks if chunk.logprobs for entry in chunk.logprobs.content or []]
    assert [entry.token for entry in streamed] == [entry.token for entry in whole]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == answer.message.content


def test_an_evaluation_asks_for_the_probabilities_of_tokens(client: openai.OpenAI) -> None:
    """As lm-evaluation-harness does: arrays of tokens, echoed, with one more."""
    prompts = [[5, 600, 700], [5, 600, 800, 900]]
    answer = client.completions.create(model="talk", prompt=prompts, max_tokens=1, logprobs=1, echo=True, temperature=0)
    for choice, prompt in zip(answer.choices, prompts, strict=True):
        assert choice.logprobs is not None
        told = choice.logprobs.token_logprobs or []
        assert len(told) == len(prompt) + 1
        assert told[0] is None
        best = choice.logprobs.top_logprobs or []
        assert all(max(each.values()) >= one for each, one in zip(best[1:], told[1:], strict=True))


def test_the_best_of_several(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="talk", prompt="x", max_tokens=4, n=2, best_of=4, temperature=1)
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 8


def test_what_cannot_be_followed_is_refused_with_the_reason(client: openai.OpenAI) -> None:
    for schema, said in (({"not": {}}, "Unimplemented keys"), ({"enum": ["x" * 70_000]}, "allowed: up to 65536")):
        form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(model="talk", messages=HELLO, response_format=form)
