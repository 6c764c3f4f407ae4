"""The official openai client against a gateway, unchanged: what it asks for, gets, and raises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from deploy.machine.server import Server
from gatewayed import Gatewayed
from processes import wait_for

HELLO: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello there, you"}]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("openai")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url)
    for model in ("talk", "vectors"):
        fleet.start(model, model)
    yield fleet.gateway()
    fleet.close()
    server.stop()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="talk", messages=HELLO)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "hello there, you")
    assert (choice.finish_reason, answer.model, answer.object) == ("stop", "talk", "chat.completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)


def test_a_chat_ends_at_its_length_and_has_several_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="talk", messages=HELLO, max_completion_tokens=2, n=3)
    assert [(c.index, c.message.content, c.finish_reason) for c in answer.choices] == [
        (index, "hello there,", "length") for index in range(3)
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)


def test_a_chat_is_streamed(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="talk", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert told[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in told) == "hello there, you"
    assert [choice.finish_reason for choice in told if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_streaming_helper_of_the_client_puts_an_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="talk", messages=HELLO) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == "hello there, you"


def test_texts_are_gone_on_from(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="talk", prompt=["one two three", "four"], max_tokens=2, n=2)
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [
        (0, "one two", "length"),
        (1, "one two", "length"),
        (2, "four", "stop"),
        (3, "four", "stop"),
    ]
    streamed = client.completions.create(model="talk", prompt="one two three", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "one two three"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_texts_are_embedded(client: openai.OpenAI, encoding: Any) -> None:
    asked = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model="vectors", input=["one two", "three"], **asked)
    vectors: list[object] = [row.embedding for row in answer.data]
    if encoding == "base64":  # asked for by name, the client leaves it as it is
        assert vectors == ["AADgQAAAAEAAAIA/", "AACgQAAAgD8AAIA/"]
    else:
        assert vectors == [[7.0, 2.0, 1.0], [5.0, 1.0, 1.0]]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["talk", "vectors", "plain", "asleep"]
    assert client.models.retrieve("talk").owned_by == "stoker"


def test_a_model_tells_whether_it_is_ready(client: openai.OpenAI) -> None:
    def told(model: str) -> tuple[str, float | None]:
        extra = client.models.retrieve(model).model_extra or {}
        return extra["state"], extra["ready_in_s"]

    wait_for(lambda: told("talk") == ("ready", 0.0), "a worker")
    assert told("asleep") == ("unavailable", None)  # without an autoscaler


def test_a_model_tells_what_its_engine_takes(client: openai.OpenAI) -> None:
    told = client.models.retrieve("vectors").model_extra or {}
    assert told["engine"] == "echo"
    assert told["abilities"]["inputs"] == ["text"]
    assert "temperature" in (client.models.retrieve("talk").model_extra or {})["abilities"]["parameters"]


def test_a_job_is_refused_by_what_its_engine_takes(client: openai.OpenAI) -> None:
    asked = {"model": "vectors", "input": "x", "parameters": {"temperature": 1}}
    with pytest.raises(openai.BadRequestError, match="takes no parameter 'temperature'") as error:
        client.post("/jobs", cast_to=object, body=asked)
    assert (error.value.param, error.value.code) == ("temperature", "unsupported_parameter")


@pytest.mark.parametrize(
    ("asked", "raised", "param", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model", "model_not_found"),
        ({"model": "vectors"}, openai.BadRequestError, "model", "model_does_not_serve_this"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"messages": []}, openai.BadRequestError, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, "messages.0.content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            openai.BadRequestError,
            "messages.0.content.0",
            "unsupported_content",
        ),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools", "unsupported_parameter"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature", "unknown_parameter"),
        ({"service_tier": "overnight"}, openai.BadRequestError, "service_tier", "invalid_service_tier"),
    ],
)
def test_errors_are_raised_as_their_own_types(
    client: openai.OpenAI, asked: dict[str, Any], raised: type[openai.APIStatusError], param: str, code: str
) -> None:
    with pytest.raises(raised) as error:
        client.chat.completions.create(**{"model": "talk", "messages": HELLO, **asked})
    assert (error.value.param, error.value.code) == (param, code)
    assert error.value.type


def test_a_full_queue_says_when_to_come_back(url: str, client: openai.OpenAI) -> None:
    jobs = [client.post("/jobs", cast_to=object, body={"model": "asleep", "input": "x"}) for _ in range(2)]
    assert len(jobs) == 2
    with pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(model="asleep", messages=HELLO)
    assert error.value.code == "queue_full"
    assert int(error.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("asked", "tier"), [(None, "interactive"), ("priority", "interactive"), ("flex", "batch"), ("standard", "standard")]
)
def test_the_service_tier_chooses_the_queue(client: openai.OpenAI, asked: Any, tier: str) -> None:
    more = {} if asked is None else {"service_tier": asked}
    assert client.chat.completions.create(model="talk", messages=HELLO, **more).service_tier == tier


def test_what_is_ignored_is_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model="talk", messages=HELLO, user="me", store=True)
    assert answer.headers["x-stoker-ignored"] == "store, user" or answer.headers["x-stoker-ignored"] == "user, store"


def test_many_streams_go_on_side_by_side(url: str) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.completions.create(model="talk", prompt=f"{number} " * 20, max_tokens=20, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(one(client, number) for number in range(100)))

    assert asyncio.run(all_of_them()) == [(f"{number} " * 20).rstrip() for number in range(100)]
