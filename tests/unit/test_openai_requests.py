"""What OpenAI's requests mean: each parameter is supported, refused or ignored, as one table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access.api_key import ANYBODY, ApiKey
from gateway.batches.lines.line_translation import Terms
from gateway.batches.lines.lines import parse
from gateway.openai.api_error import Problem, problem_of
from gateway.openai.chunks import Chunks
from gateway.openai.endpoints import ENDPOINTS
from gateway.openai.model_list import model_list
from gateway.openai.neutral import NEUTRAL
from gateway.openai.parameters import TABLE, Parameter
from producer import BrokerUnavailable, InvalidJob, Job, Settings
from producer.contract.errors import ContextLengthExceeded, ServerBusy, ServerRefused, StokerError, UnsupportedByEngine
from producer.contract.message import celery_message
from producer.contract.message.job import Result
from producer.stream import Piece
from producer.submission import build
from scheduler.results import failed

SETTINGS = Settings(
    models={
        "talk": {"engine": "echo", "options": {"task": "generate"}},
        "vectors": {"engine": "echo", "options": {"task": "embeddings"}},
        "real": {"engine": "generate", "source": "x"},
        "behind": {"engine": "openai", "options": {"url": "http://localhost:1", "contents": ["image_url"]}},
        "behind-any": {"engine": "openai", "options": {"url": "http://localhost:1", "passes": "all"}},
        "embedder": {"engine": "embed", "source": "x"},
    }
)
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "talk", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "talk", "prompt": "hi"},
    "/v1/embeddings": {"model": "vectors", "input": "hi"},
}
EVERY = [(path, parameter) for path, parameters in TABLE.items() for parameter in parameters]


def of(*treatments: str) -> list[Any]:
    return [pytest.param(p, each, id=f"{p}:{each.name}") for p, each in EVERY if each.treatment in treatments]


@pytest.mark.parametrize("path", TABLE)
def test_the_fields_of_a_request_are_what_the_table_supports(path: str) -> None:
    taken = ("supported", "by engine")
    supported = {parameter.name for parameter in TABLE[path] if parameter.treatment in taken}
    assert ENDPOINTS[path].request.model_fields.keys() == supported
    assert len({parameter.name for parameter in TABLE[path]}) == len(TABLE[path])


@pytest.mark.parametrize(("path", "parameter"), of("refused"))
def test_what_is_refused_is_an_error_that_names_it(path: str, parameter: Parameter) -> None:
    with pytest.raises(Problem) as error:
        ENDPOINTS[path].read({**ASKED[path], parameter.name: ["something"]}, SETTINGS, ANYBODY)
    assert (error.value.status, error.value.param, error.value.code) == (400, parameter.name, "unsupported_parameter")
    for neutral in (None, *parameter.neutral):
        assert ENDPOINTS[path].read({**ASKED[path], parameter.name: neutral}, SETTINGS, ANYBODY).ignored == ()


@pytest.mark.parametrize(("path", "parameter"), of("ignored"))
def test_what_is_ignored_is_named_and_changes_nothing(path: str, parameter: Parameter) -> None:
    seed = {} if path == "/v1/embeddings" else {"seed": 1}
    plain = ENDPOINTS[path].read({**ASKED[path], **seed}, SETTINGS, ANYBODY)
    order = ENDPOINTS[path].read({**ASKED[path], **seed, parameter.name: "something"}, SETTINGS, ANYBODY)
    assert order.ignored == (parameter.name,)
    assert order.job == plain.job


@pytest.mark.parametrize("path", TABLE)
def test_what_is_unknown_is_an_error(path: str) -> None:
    with pytest.raises(Problem, match="'tmperature' is no parameter of this endpoint") as error:
        ENDPOINTS[path].read({**ASKED[path], "tmperature": 1}, SETTINGS, ANYBODY)
    assert error.value.code == "unknown_parameter"


@pytest.mark.parametrize("path", TABLE)
def test_a_parameter_of_another_server_is_accepted_where_it_asks_for_nothing(path: str) -> None:
    endpoint = ENDPOINTS[path]
    plain = endpoint.read(ASKED[path], SETTINGS, ANYBODY).job
    for name, values in NEUTRAL.items():
        if name in endpoint.request.model_fields or name in {each.name for each in TABLE[path]}:
            continue
        for value in (None, *values):
            order = endpoint.read({**ASKED[path], name: value}, SETTINGS, ANYBODY)
            assert (order.ignored, order.job.input) == ((), plain.input)
        with pytest.raises(Problem) as error:
            endpoint.read({**ASKED[path], name: ["something"]}, SETTINGS, ANYBODY)
        assert (error.value.status, error.value.param, error.value.code) == (400, name, "unsupported_parameter")


def test_what_load_generators_send_is_accepted() -> None:
    sent = {
        "repetition_penalty": 1.0, "min_p": 0.0, "ignore_eos": False, "chat_template_kwargs": {}, "logprobs": False,
        "n": 1, "tools": [], "best_of": 1, "use_beam_search": False, "guided_json": None, "never_heard_of": None,
        "top_k": -1, "top_p": 1.0, "stop": [], "stream": False, "min_tokens": 0, "skip_special_tokens": True,
    }  # fmt: skip
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert ENDPOINTS[path].read({**ASKED[path], **sent}, SETTINGS, ANYBODY).ignored == ()
    with pytest.raises(UnsupportedByEngine, match=r"takes no parameter 'repetition_penalty' \(the engines generate, "):
        ENDPOINTS[path].read({**ASKED[path], "repetition_penalty": 1.1}, SETTINGS, ANYBODY)


def test_zero_is_neutral_as_a_float_and_false_is_not_zero() -> None:
    chat = ENDPOINTS["/v1/chat/completions"]
    assert chat.read({**ASKED[chat.path], "presence_penalty": 0.0}, SETTINGS, ANYBODY)
    with pytest.raises(Problem):
        chat.read({**ASKED[chat.path], "presence_penalty": False}, SETTINGS, ANYBODY)


BY_ENGINE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"frequency_penalty": 0.5, "presence_penalty": 0, "logit_bias": {"5": 1}},) * 2,
    ({"min_p": 0.1, "repetition_penalty": 1, "stop_token_ids": [5], "min_tokens": 2, "ignore_eos": True},) * 2,
    ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
    ({"logprobs": True}, {"logprobs": 0}),
    ({"tools": [{"type": "function"}], "tool_choice": "none", "parallel_tool_calls": False},) * 2,
    ({"tools": [], "tool_choice": "auto", "logprobs": False, "response_format": {"type": "text"}}, {}),
    ({"chat_template_kwargs": {"a": 1}, "continue_final_message": True, "add_generation_prompt": False},) * 2,
    ({"response_format": {"type": "json_object"}},) * 2,
    ({"guided_regex": "a+"}, {"response_format": {"type": "regex", "regex": "a+"}}),
    ({"structured_outputs": {"choice": ["a", "b"], "json": None}},
     {"response_format": {"type": "choice", "choices": ["a", "b"]}}),
    ({"guided_json": '{"type": "object"}'},
     {"response_format": {"type": "json_schema", "json_schema": {"name": "guided", "schema": {"type": "object"}}}}),
]  # fmt: skip


@pytest.mark.parametrize("model", ["real", "behind"])
@pytest.mark.parametrize(("asked", "passed"), BY_ENGINE)
def test_what_the_models_engine_takes_is_passed_on(model: str, asked: dict[str, Any], passed: dict[str, Any]) -> None:
    body = {**ASKED["/v1/chat/completions"], **asked, "model": model}
    order = ENDPOINTS["/v1/chat/completions"].read(body, SETTINGS, ANYBODY)
    own = {"max_new_tokens", "fit", "temperature", "seed"}
    assert {name: value for name, value in order.job.parameters.items() if name not in own} == passed
    celery_message.check(order.job, SETTINGS)


def by_engine() -> list[Any]:
    return [
        each for each in of("by engine") if each.values[1].name not in ("top_logprobs", "dimensions", "prompt_name")
    ]


@pytest.mark.parametrize(("path", "parameter"), by_engine())
def test_what_the_models_engine_does_not_take_is_refused_by_name_unless_it_asks_for_nothing(
    path: str, parameter: Parameter
) -> None:
    values: dict[str, Any] = {
        "logit_bias": {"1": 1}, "stop_token_ids": [1], "ignore_eos": True, "tools": [{}], "tool_choice": "required",
        "response_format": {"type": "json_object"}, "chat_template_kwargs": {"a": 1}, "continue_final_message": True,
        "add_generation_prompt": False, "echo": True, "repetition_penalty": 1.5, "min_tokens": 2,
    }  # fmt: skip
    asks = (
        {"logprobs": "chat" in path or 1}
        if parameter.name == "logprobs"
        else {parameter.name: values.get(parameter.name, 1)}
    )
    for neutral in (None, *parameter.neutral):
        assert ENDPOINTS[path].read({**ASKED[path], parameter.name: neutral}, SETTINGS, ANYBODY).ignored == ()
    if parameter.name == "parallel_tool_calls":
        return  # says nothing without tools
    with pytest.raises(UnsupportedByEngine) as error:
        ENDPOINTS[path].read({**ASKED[path], **asks}, SETTINGS, ANYBODY)
    problem = problem_of(error.value)
    assert (problem.status, problem.param, problem.code) == (400, parameter.name, "unsupported_parameter")


def test_a_server_is_passed_any_parameter_if_the_fleet_file_says_so() -> None:
    body = {**ASKED["/v1/completions"], "model": "behind-any", "never_heard_of": [1], "user": "me"}
    order = ENDPOINTS["/v1/completions"].read(body, SETTINGS, ANYBODY)
    assert order.job.parameters["never_heard_of"] == [1]
    assert (order.job.parameters["user"], order.ignored) == ("me", ())
    with pytest.raises(Problem, match="no parameter of this endpoint"):
        ENDPOINTS["/v1/completions"].read({**body, "model": "behind"}, SETTINGS, ANYBODY)
    for reserved in ("suffix", "messages"):
        with pytest.raises(Problem, match=reserved):
            ENDPOINTS["/v1/completions"].read({**body, reserved: ["x"]}, SETTINGS, ANYBODY)


def test_token_ids_are_inputs_where_the_engine_takes_them() -> None:
    completion, embedding = ENDPOINTS["/v1/completions"], ENDPOINTS["/v1/embeddings"]
    assert completion.read({"model": "real", "prompt": [1, 2]}, SETTINGS, ANYBODY).job.items == [[1, 2]]
    assert embedding.read({"model": "embedder", "input": [[1], [2, 3]]}, SETTINGS, ANYBODY).job.items == [[1], [2, 3]]
    with pytest.raises(Problem, match=r"input.1 is empty"):
        embedding.read({"model": "embedder", "input": [[1], []]}, SETTINGS, ANYBODY)


def test_a_loop_of_tools_and_a_picture_reach_the_engines_that_take_them() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "5"}]},
    ]
    chat = ENDPOINTS["/v1/chat/completions"]
    for model in ("real", "behind"):
        job = chat.read({"model": model, "messages": messages}, SETTINGS, ANYBODY).job
        assert job.items == [{"messages": [messages[0], {**messages[1], "content": "5"}]}]
    picture = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}]
    job = chat.read({"model": "behind", "messages": [{**USER, "content": picture}]}, SETTINGS, ANYBODY).job
    assert job.items == [{"messages": [{**USER, "content": picture}]}]
    with pytest.raises(Problem, match="allowed with this model: text"):
        chat.read({"model": "real", "messages": [{**USER, "content": picture}]}, SETTINGS, ANYBODY)


def test_details_of_usage_and_a_refusal_are_told() -> None:
    order = ENDPOINTS["/v1/chat/completions"].read(ASKED["/v1/chat/completions"], SETTINGS, ANYBODY)
    usage = {"input_tokens": 9, "output_tokens": 4, "cached_tokens": 8, "reasoning_tokens": 3}
    told = order.response("j", Result(id="j", output=[{"text": "", "refusal": "no"}], usage=usage), 0)
    assert told["choices"][0]["message"]["refusal"] == "no"
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 8}
    assert told["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


def parameters_of(**asked: Any) -> dict[str, Any]:
    job = ENDPOINTS["/v1/chat/completions"].read({**ASKED["/v1/chat/completions"], **asked}, SETTINGS, ANYBODY).job
    return {name: value for name, value in job.parameters.items() if name != "seed" or "seed" in asked}


@pytest.mark.parametrize(
    ("asked", "parameters"),
    [
        ({}, {"max_new_tokens": 512, "fit": True, "temperature": 1.0}),
        ({"max_tokens": 7}, {"max_new_tokens": 7, "temperature": 1.0}),
        ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_new_tokens": 9, "temperature": 1.0}),
        ({"temperature": 0}, {"max_new_tokens": 512, "fit": True, "temperature": 0}),
        (
            {"top_p": 0.5, "top_k": 5},
            {"max_new_tokens": 512, "fit": True, "temperature": 1.0, "top_p": 0.5, "top_k": 5},
        ),
        ({"top_p": 0, "top_k": -1}, {"max_new_tokens": 512, "fit": True, "temperature": 0.0}),
        ({"stop": "\n"}, {"max_new_tokens": 512, "fit": True, "temperature": 1.0, "stop": "\n"}),
        ({"seed": -1}, {"max_new_tokens": 512, "fit": True, "temperature": 1.0, "seed": 2**63 - 1}),
    ],
)
def test_sampling_is_asked_for_in_the_engines_terms(asked: dict[str, Any], parameters: dict[str, Any]) -> None:
    from workers.engines.parameters import GenerationParameters

    assert parameters_of(**asked) == parameters
    assert GenerationParameters.parse(parameters)


def test_what_is_too_long_for_the_context_is_told_in_openais_words() -> None:
    """LiteLLM and LangChain recognise it by them."""
    wire = json.loads(failed("id", ContextLengthExceeded("This model's maximum context length is 8 tokens.")))
    assert wire["result"]["exc_module"] == "producer.errors"
    with pytest.raises(ContextLengthExceeded) as error:
        celery_message.decode(json.dumps(wire))
    problem = problem_of(error.value)
    assert (problem.status, problem.type, problem.code) == (400, "invalid_request_error", "context_length_exceeded")
    assert "maximum context length" in str(problem)


def test_every_generation_has_a_seed_so_that_a_second_run_says_the_same() -> None:
    chat = ENDPOINTS["/v1/chat/completions"]
    seeds = [chat.read(ASKED[chat.path], SETTINGS, ANYBODY).job.parameters["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_a_server_of_the_openai_engine_is_told_only_what_the_request_sets() -> None:
    settings = Settings(models={"talk": {"engine": "openai", "options": {"url": "http://localhost:1"}}})
    chat, completion = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/completions"]
    assert chat.read(ASKED[chat.path], settings, ANYBODY).job.parameters == {"max_new_tokens": 512, "fit": True}
    job = completion.read(ASKED[completion.path], settings, ANYBODY).job
    assert job.parameters == {"max_new_tokens": 16, "fit": True}
    asked = {**ASKED[chat.path], "temperature": 0.2, "seed": 3, "top_p": 0.9}
    job = chat.read(asked, settings, ANYBODY).job
    assert job.parameters == {"max_new_tokens": 512, "fit": True, "temperature": 0.2, "seed": 3, "top_p": 0.9}


def test_messages_become_what_chat_templates_take() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts, "name": "me"}]
    path = "/v1/chat/completions"
    job = ENDPOINTS[path].read({"model": "talk", "messages": messages, "n": 2}, SETTINGS, ANYBODY).job
    taken = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "one\ntwo"}]
    assert job.items == [{"messages": taken}, {"messages": taken}]


@pytest.mark.parametrize(
    ("path", "asked", "param", "code"),
    [
        ("/v1/completions", {"prompt": [1, 2]}, "prompt", "tokens_not_supported"),
        ("/v1/completions", {"prompt": [[1], [2]]}, "prompt", "tokens_not_supported"),
        ("/v1/embeddings", {"input": [1]}, "input", "tokens_not_supported"),
        ("/v1/completions", {"best_of": 2, "n": 3}, "best_of", "invalid_value"),
        ("/v1/completions", {"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ("/v1/chat/completions", {"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ("/v1/embeddings", {"input": []}, "input", "invalid_value"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input", "invalid_value"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role",
            "unsupported_parameter",
        ),
        (
            "/v1/chat/completions",
            {"stream_options": {"include_usage": True}},
            "stream_options",
            "invalid_stream_options",
        ),
        ("/v1/chat/completions", {"model": 5}, "model", "invalid_value"),
        ("/v1/chat/completions", {"temperature": "hot"}, "temperature", "invalid_value"),
    ],
)
def test_a_mistake_is_named(path: str, asked: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(Problem) as error:
        ENDPOINTS[path].read({**ASKED[path], **asked}, SETTINGS, ANYBODY)
    assert (error.value.status, error.value.param, error.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("path", "asked", "param", "says"),
    [
        ("/v1/completions", {"stop": 5}, "stop", "stop = 5: Input should be a valid string, or a valid list"),
        ("/v1/completions", {"stop": ["a", 5]}, "stop.1", "stop.1 = 5: Input should be a valid string"),
        ("/v1/completions", {"stop": [""]}, "stop.0", "stop.0 = '': String should have at least 1 character"),
        (
            "/v1/completions",
            {"prompt": None},
            "prompt",
            "prompt = None: Input should be a valid string, or a valid list",
        ),
        ("/v1/chat/completions", {"messages": "x"}, "messages", "messages = 'x': Input should be a valid list"),
        ("/v1/chat/completions", {"messages": [{"content": "x"}]}, "messages.0.role", "messages.0.role is missing"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text"}, 7]}]},
            "messages.0.content.1",
            "messages.0.content.1 = 7: Input should be a valid dictionary",
        ),
    ],
)
def test_a_mistake_is_named_by_its_place_and_not_by_alternatives_of_types(
    path: str, asked: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(Problem) as error:
        ENDPOINTS[path].read({**ASKED[path], **asked}, SETTINGS, ANYBODY)
    assert error.value.param == param
    assert str(error.value).startswith(says)


def test_a_mistake_in_a_job_is_named_by_its_place() -> None:
    with pytest.raises(InvalidJob, match=r"^input\.1\.a\.0 = \(1, 2\): "):
        Job.parse({"model": "m", "tier": "batch", "input": ["x", {"a": [(1, 2)]}]})
    with pytest.raises(
        InvalidJob, match=r"^input = 7: Input should be a valid string, or a list of token ids, or a valid"
    ):
        Job.parse({"model": "m", "tier": "batch", "input": 7})


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("message", "heeded"),
    [
        ({**USER, "name": "me"}, ("messages.name",)),
        ({**USER, "name": None, "tool_calls": [], "refusal": None}, ()),
        ({"role": "assistant", "content": "hi", "reasoning_content": "hm"}, ("messages.reasoning_content",)),
        (
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {}}]},
            ("messages.content.cache_control",),
        ),
    ],
)
def test_a_field_of_a_message_that_has_no_effect_is_named(message: dict[str, Any], heeded: tuple[str, ...]) -> None:
    order = ENDPOINTS["/v1/chat/completions"].read({"model": "talk", "messages": [message]}, SETTINGS, ANYBODY)
    assert order.ignored == heeded
    assert order.job.items == [{"messages": [{"role": message["role"], "content": "hi"}]}]


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"messages": [{**USER, "contnet": "x"}]}, "messages.0.contnet", "unknown_parameter"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "messages.0.tool_calls", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "lang": "de"}]}]},
            "messages.0.content.0.lang",
            "unknown_parameter",
        ),
        (
            {"stream": True, "stream_options": {"include_usge": True}},
            "stream_options.include_usge",
            "unknown_parameter",
        ),
    ],
)
def test_no_field_within_a_request_vanishes(asked: dict[str, Any], param: str, code: str) -> None:
    path = "/v1/chat/completions"
    with pytest.raises(Problem) as error:
        ENDPOINTS[path].read({**ASKED[path], **asked}, SETTINGS, ANYBODY)
    assert (error.value.status, error.value.param, error.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("asked", "may", "tier"),
    [
        (None, None, "interactive"),
        ("auto", None, "interactive"),
        ("default", ("batch", "standard"), "standard"),
        ("flex", None, "batch"),
        ("flex", ("standard",), "standard"),
        ("standard", None, "standard"),
    ],
)
def test_the_service_tier_is_one_that_the_caller_may_use(
    asked: str | None, may: tuple[str, ...] | None, tier: str
) -> None:
    caller = ApiKey(id="k", tiers=may)
    body = {**ASKED["/v1/embeddings"], "service_tier": asked}
    assert ENDPOINTS["/v1/embeddings"].read(body, SETTINGS, caller).job.tier == tier


HUB = "meta-llama/Llama-3.1-8B-Instruct"


def test_a_model_may_be_named_by_its_hub_id() -> None:
    talk = {"engine": "echo", "options": {"task": "generate"}, "aliases": [HUB]}
    settings = Settings.model_validate({"models": {"llama": talk, "other": {"engine": "echo"}}})
    order = ENDPOINTS["/v1/completions"].read({"model": HUB, "prompt": "x"}, settings, ANYBODY)
    assert order.job.model == "llama"
    assert build(settings, HUB, "x", None, None, {}).model == "llama"
    assert Terms(settings, "run", model=HUB).read(parse(1, b'{"input": "x"}', 99)).job.model == "llama"
    assert [each["id"] for each in model_list(settings, ANYBODY)["data"]] == ["llama", HUB, "other"]
    with pytest.raises(Problem, match="may not use it; allowed: other"):
        ENDPOINTS["/v1/completions"].read({"model": HUB, "prompt": "x"}, settings, ApiKey(id="k", models=("other",)))


@pytest.mark.parametrize("aliases", [["other"], ["a", "a"], ["/a"], ["a b"], ["a\n"], [""]])
def test_an_alias_is_the_name_of_one_model(aliases: list[str]) -> None:
    models = {"llama": {"engine": "echo", "aliases": aliases}, "other": {"engine": "echo"}}
    with pytest.raises(ValueError, match="aliases"):
        Settings.model_validate({"models": models})


def test_a_stream_does_not_take_back_what_it_told() -> None:
    order = ENDPOINTS["/v1/completions"].read({**ASKED["/v1/completions"], "stream": True}, SETTINGS, ANYBODY)
    chunks = Chunks(order, "id", 0)
    told = json.loads(chunks.piece(Piece("1-0", 0, 0, "ab")).removeprefix(b"data: "))
    assert told["choices"][0]["text"] == "ab"
    assert chunks.piece(Piece("2-0", 0, 2, "c"))
    with pytest.raises(Problem, match="became another"):
        chunks.piece(Piece("3-0", 0, 1, "x"))


def test_reasoning_is_told_beside_the_answer_and_streamed_as_it_is_made() -> None:
    order = ENDPOINTS["/v1/chat/completions"].read({**ASKED["/v1/chat/completions"], "n": 2}, SETTINGS, ANYBODY)
    thought, plain = {"text": "4", "finish_reason": "stop", "reasoning_content": "2 + 2"}, {"text": "5"}
    result = Result(id="j", output=[thought, plain])
    messages = [choice["message"] for choice in order.response("j", result, 0)["choices"]]
    assert [message.get("reasoning_content") for message in messages] == ["2 + 2", None]
    chunks = Chunks(order, "id", 0)
    pieces = [
        Piece("1-0", 0, 0, "2 +", reasoning=True),
        Piece("2-0", 0, 3, " 2", reasoning=True),
        Piece("3-0", 0, 0, "4"),
    ]
    events = b"".join([*map(chunks.piece, pieces), chunks.end(result)]).decode().split("\n\n")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:5]]
    assert deltas == [{"reasoning_content": "2 +"}, {"reasoning_content": " 2"}, {"content": "4"}, {}, {}]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServerRefused("too long", "context_length_exceeded", "messages", "t"),
         (400, "context_length_exceeded", "messages", "t", None)),
        (ServerRefused("no"), (400, "invalid_job", None, "invalid_request_error", None)),
        (ServerBusy("slow down", "429", "30", "rate_limit_exceeded", "tokens"),
         (429, "rate_limit_exceeded", None, "tokens", 30.0)),
        (ServerBusy("loading"), (503, "server_busy", None, "server_error", None)),
    ],
)  # fmt: skip
def test_the_error_of_a_server_behind_an_engine_is_passed_on(
    error: StokerError, expected: tuple[int, str, str | None, str, float | None]
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.param, problem.type, problem.retry_after_s) == expected


def test_the_page_lists_every_parameter() -> None:
    page = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
    for path, parameters in TABLE.items():
        rows = [f"| `{each.name}` | {each.told} | {each.note} |" for each in parameters]
        assert "\n".join(rows) in page, f"docs/openai.md is to hold, under {path}:\n" + "\n".join(rows)


def test_clients_are_not_told_of_redis() -> None:
    """Its address, its state and its settings are for the log."""
    error = BrokerUnavailable("the memory of Redis at redis://***@10.0.0.7:6379/0, as REDIS_URL says, is full")
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.retry_after_s) == (503, "broker_unavailable", 1.0)
    assert not {"redis", "10.0.0.7", "REDIS_URL", "memory"} & set(str(problem).replace(":", " ").split())
    assert "Redis" not in str(problem)


def test_the_likeliest_of_several_answers_are_given() -> None:
    asked = {"model": "real", "prompt": ["a", "b"], "best_of": 3, "n": 2}
    order = ENDPOINTS["/v1/completions"].read(asked, SETTINGS, ANYBODY)
    assert len(order.job.items) == 6
    assert order.job.parameters["logprobs"] == 0
    output = [
        {"text": str(number), "finish_reason": "stop", "logprobs": [{"token": "x", "logprob": -float(number % 4)}]}
        for number in range(6)
    ]
    answer = order.response("j", Result(output=output, usage={"input_tokens": 6, "output_tokens": 9}), 0)
    assert [choice["text"] for choice in answer["choices"]] == ["0", "1", "4", "5"]
    assert all(choice["logprobs"] is None for choice in answer["choices"])
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11}
    with pytest.raises(UnsupportedByEngine, match="'logprobs'"):
        ENDPOINTS["/v1/completions"].read({**asked, "model": "talk"}, SETTINGS, ANYBODY)


@pytest.mark.parametrize(
    ("path", "asked", "parameters"),
    [
        ("/v1/completions", {"logprobs": 0, "echo": True, "max_tokens": 0}, {"logprobs": 0, "echo": True}),
        ("/v1/completions", {"min_p": 0.1, "logit_bias": {"5": -2}}, {"min_p": 0.1, "logit_bias": {"5": -2.0}}),
        ("/v1/embeddings", {"dimensions": 8, "prompt_name": "query"}, {"dimensions": 8, "prompt_name": "query"}),
    ],
)
def test_completions_and_embeddings_pass_on_what_engines_take(
    path: str, asked: dict[str, Any], parameters: dict[str, Any]
) -> None:
    body = {**ASKED[path], **asked, "model": "embedder" if path == "/v1/embeddings" else "real"}
    job = ENDPOINTS[path].read(body, SETTINGS, ANYBODY).job
    always = {"max_new_tokens", "fit", "temperature", "seed"}
    assert {name: value for name, value in job.parameters.items() if name not in always} == parameters
