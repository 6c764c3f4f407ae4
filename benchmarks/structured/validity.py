"""Whether every answer is valid, by another library, or refused with a reason."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema_rs

from benchmarks.bars import Bar
from benchmarks.generation.measured import say
from benchmarks.queue_tax.direct import drive
from producer.contract.errors import InvalidJob
from producer.contract.fleet.fleet_schema import Model
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Outcome, Request

from .schemas import regex, schema

MOST_TOKENS = 3000
VERDICTS = ("valid", "refused", "cut", "invalid", "failed")


def check(schemas: int, regexes: int) -> list[Bar]:
    """Answers of a model with random weights, which without constraints are noise."""
    from tiny_models import byte_level_llama

    draw = random.Random(15)
    asked: dict[str, Any] = {f"schema {n}": schema(draw) for n in range(schemas)}
    asked |= {f"regex {n}": regex(draw) for n in range(regexes)}
    engine = GenerateEngine(
        Model(engine="generate", source=byte_level_llama(context=4096), memory_gb=1.5, max_concurrency=16), "cpu:0"
    )
    engine.load()
    requests = [request(name, each, number) for number, (name, each) in enumerate(asked.items())]
    outcomes = {outcome.id: outcome for outcome in drive(engine, requests)}
    engine.close()
    found = {name: judge(asked[name], outcome) for name, outcome in outcomes.items()}
    for name in [name for name, verdict in found.items() if verdict != "valid"]:
        say(f"{name}: {found[name]}: {asked[name]}: {outcomes[name].outputs or outcomes[name].error}")
    count = {verdict: list(found.values()).count(verdict) for verdict in VERDICTS}
    say(f"{count}")
    wrong = count["invalid"] + count["failed"] + count["cut"]
    note = ", ".join(f"{number} {verdict}" for verdict, number in count.items())
    return [
        Bar("answers neither valid nor refused", wrong, 0, note=note),
        Bar("answers that are valid", count["valid"], 0.6 * len(asked), "higher", note=f"of {len(asked)}"),
    ]


def request(name: str, asked: Any, seed: int) -> Request:
    """A sampled request for one answer."""
    form: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "x", "schema": asked}}
    if isinstance(asked, str):
        form = {"type": "regex", "regex": asked}
    return Request(name, ["x"], {"response_format": form, "max_tokens": MOST_TOKENS, "temperature": 1.0, "seed": seed})


def judge(asked: Any, outcome: Outcome) -> str:
    """What became of one."""
    if outcome.outputs is None:
        return "refused" if isinstance(outcome.error, InvalidJob) else "failed"
    text, reason = outcome.outputs[0]["text"], outcome.outputs[0]["finish_reason"]
    if reason == "length":
        return "cut"
    if isinstance(asked, str):
        return "valid" if re.fullmatch(asked, text) else "invalid"
    try:
        fine = jsonschema_rs.validator_for(asked, validate_formats=True).is_valid(json.loads(text))
    except ValueError:
        return "invalid"
    return "valid" if fine else "invalid"
