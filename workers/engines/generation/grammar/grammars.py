"""Grammars compiled from structures, kept for the next request with the same structure.

llguidance compiles and computes masks (chosen by measurement: ``benchmarks/structured``). Whatever a request asks for,
its limits bound the work: one that exceeds them fails alone. Compilation runs on a thread of its own, so that a costly
one delays only requests that also wait for a grammar.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLParserLimits, regex_to_lark

from producer.contract.errors import InvalidJob
from producer.contract.message.response_format import Structure

from ..vocabulary import Vocabulary
from .walk import GrammarWalk

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # its stubs alone have it

KEPT = 64
"""Compiled grammars that are kept, the last used."""

_LIMITS = LLParserLimits(
    max_grammar_size=50_000,
    max_lexer_states=50_000,  # 1 to 2 kB each
    step_lexer_fuel=100_000,  # about 7 ms a token at most
    verbose_errors=False,  # they show the parser's state
)
_JSON: JsonCompileOptions = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}
"""Without a bound on whitespace a model may go on with it for ever."""


class Grammars:
    """The grammars of one model. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._kept: OrderedDict[Structure, Future[LLMatcher]] = OrderedDict()
        self._lock = threading.Lock()
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="grammars")

    def compile(self, structure: Structure) -> Future[LLMatcher]:
        """The compiled grammar, or ``InvalidJob`` as the exception, at once or later."""
        with self._lock:
            found = self._kept.pop(structure, None) or self._compiler.submit(self._compiled, structure)
            self._kept[structure] = found
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def close(self) -> None:
        """End the compiler."""
        self._compiler.shutdown(wait=False, cancel_futures=True)

    def walk(self, grammar: LLMatcher) -> GrammarWalk:
        """A walk from the beginning of a grammar."""
        return GrammarWalk(grammar.deep_copy(), self._vocabulary.size)

    def _compiled(self, structure: Structure) -> LLMatcher:
        if self._vocabulary.grammars is None:
            raise InvalidJob(
                "structured output: this model's tokenizer supports no structured output "
                f"({self._vocabulary.why_no_grammars}); leave it out"
            )
        try:
            grammar = _grammar(structure)
        except ValueError as error:
            raise InvalidJob(f"structured output: {error}") from None
        matcher = LLMatcher(self._vocabulary.grammars, grammar, log_level=0, limits=_LIMITS)
        matcher.compute_bitmask()  # what is too complex for the first token is refused here
        if matcher.is_error():
            raise InvalidJob(f"structured output cannot be fulfilled here: {_reason(matcher)}")
        if matcher.is_stopped():
            raise InvalidJob("structured output allows no answer, or only an empty one")
        return matcher


def _grammar(structure: Structure) -> str:
    if structure.kind == "json":
        return LLMatcher.grammar_from_json_schema(structure.source, overrides=_JSON)
    if structure.kind == "regex":
        # Digits are those of ASCII: which others there are depends on the version of Unicode.
        return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(structure.source, 'd')}/")
    if structure.kind == "lark":
        return LLMatcher.grammar_from_lark(structure.source)
    return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, json.loads(structure.source))))


def _reason(matcher: LLMatcher) -> str:
    lines = [line.strip() for line in matcher.get_error().splitlines()]
    return " ".join(line for line in lines[:6] if line)[:300]
