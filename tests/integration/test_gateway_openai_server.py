"""What OpenAI's own client sees of a server behind the ``openai`` engine that does not behave."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import deploy.machine.server
from gatewayed import Gatewayed

STUB = Path(__file__).parents[1] / "openai_stub.py"
TABLES = f"""
[models.odd]
engine = "openai"
limits = {{ max_retries = 0 }}
options = {{ command = {json.dumps([sys.executable, str(STUB), "--port", "{port}", "--no-health"])} }}
"""


@pytest.fixture(scope="module")
def fleet(server: deploy.machine.server.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    fleet = Gatewayed(tmp_path_factory.mktemp("fleet"), server.url, TABLES)
    fleet.worker("odd", "worker")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def client(fleet: Gatewayed) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.gateway()}/v1", api_key="any", max_retries=0, timeout=30)


def test_a_refusal_has_the_servers_own_code_and_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as error:
        client.completions.create(model="odd", prompt="!code")
    assert (error.value.code, error.value.param, error.value.type) == ("context_length_exceeded", "prompt", "invalid")


def test_a_busy_server_is_told_with_its_reason_and_when_to_come_back(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="exceeded your quota") as spent:
        client.completions.create(model="odd", prompt="!quota")
    assert spent.value.code == "insufficient_quota"
    with pytest.raises(openai.InternalServerError, match="it answered 503: as asked") as busy:
        client.completions.create(model="odd", prompt="!status 503 999 120")
    assert (busy.value.status_code, busy.value.response.headers["Retry-After"]) == (503, "120")


@pytest.mark.parametrize(("misdeed", "text"), [("!parts", " w0 w1"), ("!halves", "😀😀"), ("!reasoning", " w0 w1")])
def test_a_stream_of_a_server_that_differs_is_read(client: openai.OpenAI, misdeed: str, text: str) -> None:
    messages = [openai.types.chat.ChatCompletionUserMessageParam(role="user", content=misdeed)]
    stream = client.chat.completions.create(model="odd", messages=messages, max_tokens=2, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(delta.content or "" for delta in deltas) == text
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == ("hmmhmm" if misdeed == "!reasoning" else "")
    if reasoning:  # as it is made: before the answer, not at its end
        kinds = [name for delta in deltas for name in ("reasoning_content", "content") if getattr(delta, name, None)]
        assert kinds[0] == "reasoning_content"
        assert kinds[-1] == "content"


@pytest.mark.parametrize("event", ['{"choices": [{"text": ["a", 5]}, 7]}', '{"choices": [{"delta": {"content": 5}}]}'])
def test_a_stream_that_is_nonsense_fails_alone(fleet: Gatewayed, client: openai.OpenAI, event: str) -> None:
    with pytest.raises(openai.APIError, match="no event of the OpenAI API"):
        list(client.completions.create(model="odd", prompt=f"!raw {event}", max_tokens=9, stream=True))
    assert client.completions.create(model="odd", prompt="x", max_tokens=1).choices[0].text == " w0"
    assert [process.poll() for process in fleet.processes] == [None, None]  # the worker, and the gateway
