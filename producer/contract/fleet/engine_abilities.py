"""What each engine takes: the parameters and the inputs of its jobs. A job with anything else is refused when it is
submitted, on every way in; the engines themselves are held to the table by ``tests/unit/test_engine_abilities.py`` and
``tests/acceptance/test_engine_contract.py``.

Parameters have the names of OpenAI's and vLLM's APIs. https://platform.openai.com/docs/api-reference,
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ..errors import UnsupportedByEngine
from ..message.response_format import Structure
from .engine_options import RESERVED, EchoOptions, OpenAIOptions
from .fleet_schema import Model

Input = Literal["text", "token_ids", "messages", "pair", "documents", "object"]
"""A kind of input: a text, the ids of its tokens, ``{"messages"}``, ``{"text", "text_pair"}``, ``{"query",
"documents"}``, or any other object."""

SAMPLING = frozenset(
    {"max_new_tokens", "max_tokens", "fit", "do_sample", "temperature", "top_p", "top_k", "seed", "stop"}
)
"""Parameters of every engine that generates text."""

PENALTIES = frozenset({"frequency_penalty", "presence_penalty", "logit_bias"})

EXTENSIONS = frozenset({"min_p", "repetition_penalty", "stop_token_ids", "min_tokens", "ignore_eos"})
"""Parameters that OpenAI's API does not have, and most servers of open models do."""

CALLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

TEMPLATE = frozenset({"chat_template_kwargs", "continue_final_message", "add_generation_prompt"})
"""Parameters of chat templates."""

FAULTS = frozenset({"fail", "flake", "crash", "garble", "derail", "hang"})
"""Those that the engine ``echo`` makes when it is asked to."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine takes.

    ``contents`` are the types of the parts of a chat's messages; with ``fetches``, they may be named by URLs of any
    host. With ``others`` it takes parameters that are not listed here, too, except those that are ``reserved``.
    """

    parameters: frozenset[str]
    inputs: frozenset[Input]
    contents: frozenset[str] = frozenset()
    fetches: bool = False
    others: bool = False
    reserved: frozenset[str] = frozenset()

    def takes(self, parameter: str) -> bool:
        """Whether a job may have this parameter."""
        return parameter in self.parameters or (self.others and parameter not in self.reserved)


_TEXTS: frozenset[Input] = frozenset({"text", "messages"})
_ANY: frozenset[Input] = frozenset({"text", "token_ids", "messages", "pair", "documents", "object"})
_TEXT = frozenset({"text"})

_OF_EMBEDDINGS = frozenset({"dimensions"})
"""Parameters of the engine ``openai`` for embeddings."""

_OF_SERVERS = frozenset(
    {
        *("logprobs", "echo", "response_format", "reasoning_effort", "verbosity", "include_stop_str_in_output"),
        *("skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens"),
    }
)
"""What vLLM takes besides, and OpenAI's own servers."""

ENGINES: dict[str, Abilities] = {
    "embed": Abilities(frozenset({"dimensions", "prompt_name"}), frozenset({"text", "token_ids"})),
    "classify": Abilities(frozenset({"top_k"}), frozenset({"text", "pair"})),
    "rerank": Abilities(frozenset({"top_n"}), frozenset({"documents"})),
    "generate": Abilities(
        SAMPLING
        | PENALTIES
        | EXTENSIONS
        | CALLS
        | TEMPLATE
        | {"logprobs", "prompt_logprobs", "echo", "response_format"},
        _TEXTS | {"token_ids"},
        _TEXT,
    ),
    "openai": Abilities(
        SAMPLING | PENALTIES | EXTENSIONS | CALLS | TEMPLATE | _OF_SERVERS, _TEXTS | {"token_ids"}, _TEXT
    ),
}
"""By engine. Those of ``openai`` are without what its options add, and ``echo`` is as the engine that it imitates."""

_ECHOES = {
    "echo": Abilities(FAULTS, _ANY, _TEXT, others=True),
    "generate": Abilities(FAULTS | SAMPLING, _TEXTS, _TEXT),
    "embeddings": Abilities(FAULTS, frozenset({"text"})),
}

_OF_SERVERS_OF_EMBEDDINGS = Abilities(_OF_EMBEDDINGS, frozenset({"text", "token_ids"}))


def abilities(model: Model) -> Abilities:
    """What the engine of a model takes."""
    match model.options:
        case EchoOptions(task=task):
            return _ECHOES[task]
        case OpenAIOptions() as options:
            return of_server(options)
        case _:
            return ENGINES[model.engine]


@cache
def _of_server(task: str, passes: tuple[str, ...], contents: tuple[str, ...], fetches: bool) -> Abilities:
    others = passes == ("all",)
    own = _OF_SERVERS_OF_EMBEDDINGS if task == "embeddings" else ENGINES["openai"]
    return Abilities(
        own.parameters if others else own.parameters | {*passes},
        own.inputs,
        own.contents | {*contents},
        fetches,
        others,
        RESERVED,
    )


def of_server(options: OpenAIOptions) -> Abilities:
    """What the engine ``openai`` takes for a server with these options."""
    passes = ("all",) if options.passes == "all" else options.passes
    return _of_server(options.task, passes, options.contents, options.fetches)


def check(model: Model, name: str, inputs: Iterable[Any], parameters: Mapping[str, Any]) -> None:
    """Check a job against the engine of its model.

    Args:
        name: of the model.

    Raises:
        UnsupportedByEngine: naming what the engine does not take, what it does, and which engines would.
        InvalidJob: a ``response_format`` is wrong or too large.
    """
    able = abilities(model)
    if not able.parameters.issuperset(parameters):
        for each in parameters:
            if not able.takes(each):
                raise refusal(model, name, each)
    if model.engine == "generate":
        Structure.of(parameters.get("response_format"))
    for index, item in enumerate(inputs):
        kind = input_kind(item)
        if kind not in able.inputs:
            told = f"input {index} is of kind {kind}, which {_of(name, model)} does not take"
            told += _would(engine for engine, each in ENGINES.items() if kind in each.inputs)
            raise UnsupportedByEngine(f"{told}; allowed: {_list(able.inputs)}", "input")
        if kind == "messages":
            _check_messages(item["messages"], index, able, _of(name, model))


def refusal(model: Model, name: str, parameter: str) -> UnsupportedByEngine:
    """The error of a parameter that the engine of a model does not take."""
    told = f"{_of(name, model)} takes no parameter {parameter!r:.80}{_would(engines_with(parameter))}"
    return UnsupportedByEngine(f"{told}; allowed: {_list(abilities(model).parameters)}", parameter)


def input_kind(item: Any) -> Input:
    """The kind of an input, by its type and its keys."""
    if isinstance(item, str):
        return "text"
    if isinstance(item, list):
        return "token_ids"
    if "messages" in item:
        return "messages"
    if "query" in item:
        return "documents"
    return "pair" if "text_pair" in item else "object"


def _check_messages(messages: Any, index: int, able: Abilities, whose: str) -> None:
    for place, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for number, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type") if isinstance(part, dict) else None
            where = f"messages.{place}.content.{number}"
            if not isinstance(kind, str) or kind not in able.contents:
                told = f"input {index}: {where} is of type {kind!r:.40}, which {whose} does not take"
                raise UnsupportedByEngine(f"{told}; allowed: {_list(able.contents)}", where)
            if kind != "text" and not able.fetches and (url := _url(part.get(kind))):
                told = f"input {index}: {where} names {url!r:.60}, which the server would fetch"
                raise UnsupportedByEngine(f"{told}; allowed: a data: URL (options.fetches allows others)", where)


def _url(content: Any) -> str:
    """The URL of a content that does not hold the content itself; else an empty text."""
    url = content.get("url", "") if isinstance(content, dict) else content
    return url if isinstance(url, str) and url and not url.startswith("data:") else ""


def _of(name: str, model: Model) -> str:
    return f"the engine {model.engine!r} of the model {name!r}"


def engines_with(parameter: str) -> list[str]:
    """The engines that take a parameter."""
    found = [engine for engine, each in ENGINES.items() if parameter in each.parameters]
    return [*found, "openai"] if parameter in _OF_EMBEDDINGS else found


def _would(engines: Iterable[str]) -> str:
    able = list(engines)
    return f" (the engine{'s' if len(able) > 1 else ''} {', '.join(able)} would)" if able else ""


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
