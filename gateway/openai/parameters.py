"""Every parameter of every endpoint: supported, ignored or refused; the table that the code obeys and the docs print.

One that is supported by engine is passed on to models whose engine takes it (``engine_abilities``), and refused for
others, unless its value asks for nothing.

What a supported one becomes in a job is in ``generation.py`` beside this.

Supported ones are fields of the endpoint's request. One that is refused is an error, unless its value asks for nothing;
one that is ignored changes nothing in the answer, and is named in the response's header ``x-stoker-ignored``. One that
is not here is an error: a typing error must not go by unseen. Null asks for nothing, whatever the name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from producer.contract.fleet.engine_abilities import engines_with

from .api_error import Problem
from .neutral import NEUTRAL

Treatment = Literal["supported", "by engine", "refused", "ignored"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. ``neutral`` are its values that ask for nothing, besides null, if it is not always supported."""

    name: str
    treatment: Treatment
    note: str
    neutral: tuple[Any, ...] = ()

    @property
    def told(self) -> str:
        """Its treatment in words: the engines that take it, if it depends on them."""
        if self.treatment != "by engine":
            return self.treatment
        named = {"top_logprobs": "logprobs"}.get(self.name, self.name)
        return ", ".join(f"`{engine}`" for engine in engines_with(named))


def _supported(name: str, note: str) -> Parameter:
    return Parameter(name, "supported", note)


def _by_engine(name: str, note: str, *neutral: Any) -> Parameter:
    return Parameter(name, "by engine", note, neutral)


def _refused(name: str, note: str, *neutral: Any) -> Parameter:
    return Parameter(name, "refused", note, neutral)


def _ignored(name: str, note: str) -> Parameter:
    return Parameter(name, "ignored", note)


_ASKED = (
    _supported("model", "a model of the fleet file"),
    _supported("service_tier", "a tier of the model by name; `auto`, `default`, `priority`, `scale`: its fastest; "
               "`flex`: its slowest"),
)  # fmt: skip
_SAMPLED = (
    _supported("temperature", "0 to 2; 0 is greedy; 1 by default, or with the engine `openai` the server's default"),
    _supported("top_p", "0 to 1; 0 is greedy"),
    _supported("top_k", "an extension: samples only among this many likeliest tokens; 0 or -1 for no limit"),
    _supported("n", "1 to 16"),
    _supported("stop", "a text or up to 16; the answer ends before the first"),
    _supported("seed", "the same seed and request give the same answer"),
    _supported("stream", "server-sent events"),
    _supported("stream_options", "`include_usage`"),
    _by_engine("frequency_penalty", "-2 to 2", 0),
    _by_engine("presence_penalty", "-2 to 2", 0),
    _by_engine("logit_bias", "numbers from -100 to 100 by token id", {}),
    _by_engine("min_p", "an extension: leaves out tokens less likely than this share of the likeliest", 0),
    _by_engine("repetition_penalty", "an extension: above 1 makes tokens that were there less likely", 1),
    _by_engine("stop_token_ids", "an extension: the answer ends after any of them", []),
    _by_engine("min_tokens", "an extension: the least length of the answer", 0),
    _by_engine("ignore_eos", "an extension: the answer goes on after the model's own end", False),
    _by_engine(
        "response_format",
        "`text`, `json_object`, `json_schema`; as extensions `regex` with a `regex`, `choice` "
        "with `choices`; vLLM's `guided_json`, `guided_regex`, `guided_choice` and `structured_outputs` are "
        "the same",
        {"type": "text"},
    ),
    _by_engine("prompt_logprobs", "an extension: 0 to 20 alternatives at each token of the prompt", False),
    _ignored("user", "use one API key for each tenant"),
)
_KEPT = (_supported("metadata", "up to 16 texts, kept with the job"),)

CHAT = (
    *_ASKED,
    _supported(
        "messages", "texts, or lists of `text` parts; roles system, developer (as system), user, assistant, tool"
    ),
    _supported(
        "max_completion_tokens", "by default `gateway.max_tokens` of the fleet file, or what the context leaves"
    ),
    _supported("max_tokens", "the old name of `max_completion_tokens`"),
    *_SAMPLED,
    *_KEPT,
    _by_engine("tools", "functions that the model may call", []),
    _by_engine("tool_choice", "`none`, `auto`, `required`, or a function by name", "none", "auto"),
    _by_engine("parallel_tool_calls", "whether an answer may call several", True, False),
    _by_engine("chat_template_kwargs", "an extension: arguments of the model's chat template", {}),
    _by_engine("continue_final_message", "an extension: the answer goes on with the last message", False),
    _by_engine("add_generation_prompt", "an extension: whether an answer begins behind the last message", True),
    _refused("functions", "`tools` in their place", []),
    _refused("function_call", "`tool_choice` in its place", "none", "auto"),
    _by_engine("logprobs", "whether the answer has the log probability of each token", False),
    _by_engine("top_logprobs", "0 to 20 alternatives at each token; with `logprobs`", 0),
    _refused("modalities", "text only", ["text"]),
    _refused("audio", "text only"),
    _refused("prediction", "the engines take no predicted output"),
    _refused("web_search_options", "the fleet searches no web"),
    _refused("moderation", "the fleet moderates nothing"),
    _ignored("reasoning_effort", "the model reasons as it was trained to"),
    _ignored("verbosity", "the model is as verbose as it was trained to be"),
    _ignored("store", "results are kept for `redis.result_ttl_s` either way"),
    _ignored("prompt_cache_key", "an engine that caches prompts needs no key"),
    _ignored("prompt_cache_options", "an engine that caches prompts needs none"),
    _ignored("prompt_cache_retention", "an engine that caches prompts decides itself"),
    _ignored("safety_identifier", "use one API key for each tenant"),
)

COMPLETION = (
    *_ASKED,
    _supported("prompt", "a text, or a list of texts; with `generate` and `openai` also token ids, or lists of them"),
    _supported("max_tokens", "16 by default, or what the context leaves; with `echo` 0 is allowed"),
    *_SAMPLED,
    _supported(
        "best_of",
        "up to 16: makes so many answers, and gives the `n` likeliest by token; not streamed; needs an "
        "engine that takes `logprobs`",
    ),
    _by_engine("echo", "the answer begins with the prompt", False),
    _by_engine("logprobs", "the log probability of each token, and of 0 to 20 alternatives", 0, False),
    _refused("suffix", "the engines do not fill in the middle", ""),
)

EMBEDDING = (
    *_ASKED,
    _supported("input", "a text, or a list of texts; with `embed` and `openai` also token ids, or lists of them"),
    _supported("encoding_format", "`float` or `base64`"),
    _by_engine("dimensions", "the length of the vectors, of a model that was trained for it"),
    _by_engine("prompt_name", "an extension: the prompt of the model's files that is put before each text"),
    _ignored("user", "use one API key for each tenant"),
)

TABLE = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION, "/v1/embeddings": EMBEDDING}
"""By path."""


MESSAGE = (
    _supported("role", "system, developer (as system), user, assistant, tool"),
    _supported("content", "a text, or a list of parts"),
    _ignored("name", "templates of chats know roles only"),
    _ignored("annotations", "templates of chats know texts only"),
    _ignored("reasoning", "templates of chats leave it out"),
    _ignored("reasoning_content", "templates of chats leave it out"),
    _ignored("refusal", "templates of chats know texts only"),
    _refused("tool_calls", "the model's engine calls no tools", []),
    _refused("tool_call_id", "the model's engine calls no tools"),
    _refused("function_call", "`tool_calls` in its place"),
    _refused("audio", "text only"),
)
"""Fields of a message, which are judged as parameters are."""

PART = (
    _supported("type", "`text`"),
    _supported("text", "the text"),
    _ignored("annotations", "templates of chats know texts only"),
    _ignored("cache_control", "an engine that caches prompts decides itself"),
)
"""Fields of a part of a message."""

STREAM_OPTIONS = (
    _supported("include_usage", "whether the last event tells the usage"),
    _ignored("include_obfuscation", "events are not padded"),
    _refused("continuous_usage_stats", "the last event tells the usage", False),
)
"""Fields of ``stream_options``."""


def check_fields(fields: tuple[Parameter, ...], given: dict[str, Any], place: str) -> list[str]:
    """Judge what an object within a request holds besides its supported fields: the names of those that are ignored.

    Raises:
        Problem: for the first that is refused or unknown.
    """
    known = {field.name: field for field in fields}
    ignored = []
    for name, value in given.items():
        where, field = f"{place}.{name}", known.get(name)
        if field is None and value is not None:
            allowed = ", ".join(each.name for each in fields if each.treatment != "refused")
            raise Problem(400, f"{where}: no such field; allowed: {allowed}", param=where, code="unknown_parameter")
        if field is None or value is None:
            continue
        if field.treatment == "ignored":
            ignored.append(name)
        elif not _is_one_of(value, field.neutral):
            raise Problem(
                400, f"{where} is not supported here: {field.note}", param=where, code="unsupported_parameter"
            )
    return ignored


def check(parameters: tuple[Parameter, ...], given: dict[str, Any]) -> list[str]:
    """Judge parameters that are not fields of the request: the names of those that are ignored.

    Raises:
        Problem: for the first that is refused or unknown.
    """
    if not given:
        return []
    known = {parameter.name: parameter for parameter in parameters}
    ignored = []
    for name, value in given.items():
        parameter = known.get(name)
        if value is None or (parameter is None and _is_one_of(value, NEUTRAL.get(name, ()))):
            continue
        if parameter is None and name in NEUTRAL:
            allowed = " or ".join(json.dumps(neutral) for neutral in NEUTRAL[name])
            raise Problem(
                400, f"{name} is not supported here; allowed: {allowed}", param=name, code="unsupported_parameter"
            )
        if parameter is None:
            allowed = ", ".join(sorted(each.name for each in parameters if each.treatment != "refused"))
            raise Problem(
                400,
                f"{name!r} is no parameter of this endpoint; allowed: {allowed}",
                param=name,
                code="unknown_parameter",
            )
        if parameter.treatment == "ignored":
            ignored.append(name)
        elif not _is_one_of(value, parameter.neutral):
            raise Problem(
                400, f"{name} is not supported here: {parameter.note}", param=name, code="unsupported_parameter"
            )
    return ignored


def is_neutral(value: Any, parameter: Parameter) -> bool:
    """Whether a value of a parameter asks for nothing."""
    return value is None or _is_one_of(value, parameter.neutral)


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether it is one of them as JSON has it: 0 is 0.0, and is not false."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)
