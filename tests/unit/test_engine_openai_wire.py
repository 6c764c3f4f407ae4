"""What the openai engine says to a server, and what it understands of the answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from producer.contract.errors import ConfigError, EngineError, InvalidJob
from producer.contract.fleet.engine_options import OpenAIOptions
from producer.contract.fleet.settings import Settings
from workers.engines.openai import command, wire
from workers.engines.parameters import GenerationParameters


def body(call: wire.Call) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(call.content)
    return fields


def asked(**parameters: Any) -> dict[str, Any]:
    return body(wire.generation("m", "Once", 1, GenerationParameters.parse(parameters)))


ALWAYS = {"model": "m", "prompt": "Once", "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ({}, {}),
        ({"max_new_tokens": 64}, {"max_tokens": 64}),
        ({"temperature": 1.0}, {"temperature": 1.0}),
        ({"temperature": 1e-6}, {"temperature": 0}),
        ({"top_p": 1.0}, {"top_p": 1.0}),
        ({"do_sample": False}, {"temperature": 0}),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.5, "top_k": 3}, {"temperature": 0}),
        ({"do_sample": True}, {}),
        ({"seed": 6}, {"seed": 7}),  # of input 1
    ],
)
def test_only_what_a_request_sets_is_sent(parameters: dict[str, Any], sent: dict[str, Any]) -> None:
    assert asked(**parameters) == {**ALWAYS, **sent}


def test_sampling_and_the_rest_under_the_names_of_the_api() -> None:
    fields = asked(max_new_tokens=5, temperature=0.7, top_p=0.9, top_k=3, seed=4, stop="END")
    assert fields["max_tokens"] == 5
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0.7, 0.9, 3)
    assert fields["seed"] == 5  # of input 1
    assert fields["stop"] == ["END"]


def test_no_top_k_is_not_sent_for_servers_do_not_agree_on_its_number() -> None:
    assert "top_k" not in asked(temperature=1.0)


def test_a_chat_goes_where_chats_go() -> None:
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "é"}]}]
    call = wire.generation("m", {"messages": messages}, 0, GenerationParameters())
    assert call.path == "/v1/chat/completions"
    assert body(call)["messages"] == messages


@pytest.mark.parametrize(
    "item",
    ["", {}, {"messages": []}, {"messages": None}, {"prompt": "x"}, 5, "half \ud800", {"messages": ["half \ud800"]}],
)
def test_what_is_no_input_is_refused_before_it_is_sent(item: Any) -> None:
    with pytest.raises(InvalidJob, match="input 3"):
        wire.generation("m", item, 3, GenerationParameters())


def test_embeddings_name_the_input_that_is_no_text() -> None:
    with pytest.raises(InvalidJob, match="input 65"):
        wire.embedding("m", ["fine", {"no": "text"}], 64)


def test_events_arrive_whole_however_they_are_cut() -> None:
    stream = 'data: {"a": "\u2028é"}\r\n\r\n: a comment\n\nevent: x\ndata:{"b": 1}\n\ndata: [DONE]\n\n'.encode()
    expected = ['{"a": "\u2028é"}'.encode(), b'{"b": 1}', b"[DONE]"]
    assert wire.EventDecoder().feed(stream) == expected
    events = wire.EventDecoder()
    assert [event for at in range(len(stream)) for event in events.feed(stream[at : at + 1])] == expected


def test_an_endless_event_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_EVENT_BYTES", 10)
    events = wire.EventDecoder()
    assert events.feed(b"data: 1234") == []
    with pytest.raises(EngineError, match="an event of more than 10 bytes"):
        events.feed(b"5")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_refused_before_it_is_sent(value: float) -> None:
    with pytest.raises(InvalidJob, match="input 0 cannot be written as JSON"):
        wire.generation("m", {"messages": [{"role": "user", "content": value}]}, 0, GenerationParameters())


def test_the_command_is_filled_in_and_other_braces_stay() -> None:
    given = ["serve", "{source}", "--port={port}", "--on", "{device}", '{"json": {}}']
    filled = command.arguments(given, source="/m", port="81", device="cuda")
    assert filled == ["serve", "/m", "--port=81", "--on", "cuda", '{"json": {}}']


@pytest.mark.parametrize(
    ("device", "seen", "expected"),
    [
        ("cpu:0", None, {}),
        ("cuda:3", None, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "3"}),
        ("cuda:3", "3", {}),  # the launcher has seen to it
        ("cuda:0", "MIG-1234", {}),
        ("cuda:1", "4, 6", {"CUDA_VISIBLE_DEVICES": "6"}),
    ],
)
def test_a_server_sees_the_workers_device_alone(device: str, seen: str | None, expected: dict[str, str]) -> None:
    assert command.device_env(device, {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}) == expected


@pytest.mark.parametrize(("device", "seen"), [("cuda:2", "4,6"), ("cuda:0", ""), ("tpu:0", "0"), ("cuda", "0")])
def test_a_device_that_the_worker_does_not_see_is_named(device: str, seen: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}'"):
        command.device_env(device, {"CUDA_VISIBLE_DEVICES": seen})


@pytest.mark.parametrize("program", ["docker", "/usr/bin/docker", "nerdctl"])
def test_a_command_whose_server_a_daemon_starts_is_refused_with_the_cure(program: str) -> None:
    with pytest.raises(ValidationError, match=r"give options\.url, such as 'http://127\.0\.0\.1:8000'"):
        OpenAIOptions(command=(program, "run", "-p", "{port}:8000", "vllm/vllm-openai"))


def test_the_request_itself_cannot_be_omitted() -> None:
    assert OpenAIOptions(url="http://x", omit=("top_k", "stream")).omit == ("top_k", "stream")
    with pytest.raises(ValidationError, match="messages is the request itself"):
        OpenAIOptions(url="http://x", omit=("top_k", "messages"))


def test_the_url_may_end_in_v1_or_not() -> None:
    assert OpenAIOptions.model_validate({"url": "http://host:8000/v1/"}).url == "http://host:8000"
    assert OpenAIOptions.model_validate({"url": "https://host"}).url == "https://host"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{}", "give either command, to start a server, or url"),
        ('{ command = ["x", "{port}"], url = "http://x" }', "give either command"),
        ('{ url = "host:8000" }', "models.m.options.url = 'host:8000': .*allowed: http://HOST:PORT"),
        ('{ url = "http://host:port" }', "models.m.options.url = 'http://host:port': .*allowed: http://HOST:PORT"),
        ('{ url = "http://" }', "models.m.options.url = 'http://': .*allowed: http://HOST:PORT"),
        ('{ command = ["x", "{port}"], health = "health" }', "models.m.options.health = 'health'"),
        ('{ command = ["x", "{port}"], task = "embed" }', "models.m.options.task = 'embed'"),
        ('{ command = ["x", "--port", "8000"] }', r"models.m.options.command = .*it does not say \{port\}"),
        ('{ command = ["x", "{port}", "{source}"] }', r"source is missing, and options.command names \{source\}"),
        (
            '{ url = "http://x", helth = "/" }',
            "models.m.options.helth = '/': no such key; did you mean health",
        ),
    ],
)
def test_wrong_options_are_named_when_the_fleet_file_is_read(tmp_path: Path, options: str, said: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[models.m]\nengine = "openai"\noptions = {options}\n')
    with pytest.raises(ConfigError, match=said):
        Settings.load(file)
