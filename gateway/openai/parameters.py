"""Every parameter of every endpoint: supported, ignored or refused; the table that the code obeys and the docs print.

What a supported one becomes in a job is in ``generation.py`` beside this.

Supported ones are fields of the endpoint's request. One that is refused is an error, unless its value asks for nothing;
one that is ignored changes nothing in the answer, and is named in the response's header ``x-stoker-ignored``. One that
is not here is an error: a typing error must not go by unseen. Null asks for nothing, whatever the name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from .api_error import Problem

Treatment = Literal["supported", "refused", "ignored"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. ``neutral`` are the values of a refused one that ask for nothing, besides null."""

    name: str
    treatment: Treatment
    note: str
    neutral: tuple[Any, ...] = ()


def _supported(name: str, note: str) -> Parameter:
    return Parameter(name, "supported", note)


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
    _supported("frequency_penalty", "-2 to 2"),
    _supported("presence_penalty", "-2 to 2"),
    _supported("logit_bias", "-100 to 100 for each token id"),
    _supported("response_format", "`text`, `json_object`, `json_schema`; as extensions `regex` and `choice`"),
    _supported("min_p", "an extension: leaves out tokens less likely than this share of the likeliest"),
    _supported("repetition_penalty", "an extension: transformers'"),
    _supported("stop_token_ids", "an extension: the answer ends after any of them"),
    _supported("min_tokens", "an extension: the answer does not end before"),
    _supported("ignore_eos", "an extension: whether the answer goes on after the model's own end"),
    _ignored("user", "use one API key for each tenant"),
)
_KEPT = (_supported("metadata", "up to 16 texts, kept with the job"),)

CHAT = (
    *_ASKED,
    _supported("messages", "texts, or lists of `text` parts; roles system, developer, user, assistant, tool"),
    _supported(
        "max_completion_tokens", "by default `gateway.max_tokens` of the fleet file, or what the context leaves"
    ),
    _supported("max_tokens", "the old name of `max_completion_tokens`"),
    *_SAMPLED,
    *_KEPT,
    _supported("tools", "functions"),
    _supported("tool_choice", "`none`, `auto`, `required`, or a function by name"),
    _supported("parallel_tool_calls", "whether an answer may have several calls"),
    _refused("functions", "the engines call no functions", []),
    _refused("function_call", "the engines call no functions", "none", "auto"),
    _supported("logprobs", "whether the answer has the log probabilities of its tokens"),
    _supported("top_logprobs", "0 to 20 likeliest tokens beside each; needs `logprobs`"),
    _supported("chat_template_kwargs", "an extension: arguments of the model's chat template"),
    _supported("continue_final_message", "an extension: whether the last message is continued, not answered"),
    _supported("add_generation_prompt", "an extension: whether an answer begins behind the last message"),
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
    _supported("prompt", "a text or an array of tokens, or a list of either"),
    _supported("max_tokens", "16 by default, or what the context leaves; with `echo` 0 is allowed"),
    *_SAMPLED,
    _supported("best_of", "up to 16: makes so many answers, and gives the `n` likeliest by token; not streamed"),
    _supported("echo", "whether the answer begins with the prompt, log probabilities too"),
    _supported("logprobs", "0 to 20 likeliest tokens beside each token of the answer"),
    _refused("suffix", "the engines do not fill in the middle", ""),
)

EMBEDDING = (
    *_ASKED,
    _supported("input", "a text or an array of the model's tokens, or a list of either"),
    _supported("encoding_format", "`float` or `base64`"),
    _supported("dimensions", "those that the model was trained for"),
    _supported("prompt_name", "an extension: a prompt by its name in the model's files, such as `query`"),
    _ignored("user", "use one API key for each tenant"),
)

TABLE = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION, "/v1/embeddings": EMBEDDING}
"""By path."""


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_prompt": (True,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "custom_params": ({},),
    "documents": ([],),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "early_stopping": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "functions": ([],),
    "grammar": ("",),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "logprobs": (False, 0),
    "metadata": ({},),
    "min_length": (0,),
    "min_p": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "mm_processor_kwargs": ({},),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "no_repeat_ngram_size": (0,),
    "no_stop_trim": (False,),
    "presence_penalty": (0,),
    "priority": (0,),
    "prompt_logprobs": (False, 0),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_full_text": (False,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "session_params": ({},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_regex": ([], ""),
    "stop_token_ids": ([],),
    "store": (False,),
    "stream": (False,),
    "tfs_z": (1,),
    "timings_per_token": (False,),
    "tools": ([],),
    "top_a": (0,),
    "top_logprobs": (0,),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermark": (False,),
    "xtc_probability": (0,),
}
"""Parameters that no endpoint, or not every one, has, and their values that ask for nothing. Load generators and the
clients of vLLM, SGLang, TGI and llama.cpp send them always (the pages of these servers list them)."""


MESSAGE = (
    _supported("role", "system, developer (as system), user, assistant, tool"),
    _supported("content", "a text, or a list of `text` parts"),
    _ignored("name", "templates of chats know roles only"),
    _ignored("annotations", "templates of chats know texts only"),
    _ignored("reasoning", "templates of chats leave it out"),
    _ignored("reasoning_content", "templates of chats leave it out"),
    _ignored("refusal", "templates of chats know texts only"),
    _supported("tool_calls", "calls of an assistant's message"),
    _supported("tool_call_id", "the call that a message of the role tool answers"),
    _refused("function_call", "the engines call no functions"),
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


def is_neutral(name: str, value: Any) -> bool:
    """Whether a value of a parameter asks for nothing."""
    return _is_one_of(value, NEUTRAL.get(name, ()))


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether it is one of them as JSON has it: 0 is 0.0, and is not false."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)
