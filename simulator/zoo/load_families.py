"""The families whose load differs: when requests come, how long they are, and who asks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from ..traces.trace import Trace
from . import arrivals
from .drawing import MODEL, Draw, Lengths
from .workload import Family, Parameter, Workload

Values = Mapping[str, float]
BUSY = Parameter((3.0, 5.0), (5.5, 8.0))
OTHERS = {"interactive": 1.0, "standard": 1.0}


def _steady(values: Values, rng: random.Random) -> Workload:
    return Draw(values["busy"]).workload(rng)


def _bursts(values: Values, rng: random.Random) -> Workload:
    lasts_s = 2400.0
    shape = arrivals.bursts(rng, lasts_s, values["burst_s"], values["every_s"], values["height"])
    return Draw(values["busy"], lasts_s, shape, values["height"]).workload(rng)


def _long_prompts(values: Values, rng: random.Random) -> Workload:
    lengths = Lengths(values["inputs"], 250.0, 0.5, 0.7)
    return Draw(values["busy"], lengths=lengths, known=False).workload(rng)


def _long_answers(values: Values, rng: random.Random) -> Workload:
    return Draw(values["busy"], 3600.0, lengths=Lengths(200.0, values["outputs"], 0.7, 0.6)).workload(rng)


def _step(values: Values, rng: random.Random) -> Workload:
    shape = arrivals.step(values["begins_s"], values["begins_s"] + 900.0, values["height"])
    return Draw(values["busy"], shape=shape, most=values["height"]).workload(rng)


def _ramp(values: Values, rng: random.Random) -> Workload:
    lasts_s = 3600.0
    return Draw(values["busy"], lasts_s, arrivals.ramp(lasts_s, values["height"]), values["height"]).workload(rng)


def _season(values: Values, rng: random.Random) -> Workload:
    # Rounds are further apart than live: a second would take 200,000 of them.
    return Draw(
        values["busy"],
        2.25 * 86_400,
        arrivals.wave(86_400.0, values["swing"]),
        1 + values["swing"],
        Lengths(4000.0, 1500.0, 0.5, 0.5),
        scaling={"interval_s": 15.0},
        tiers={"standard": 2.0, "batch": 1.0},
    ).workload(rng)


def _crowd(values: Values, rng: random.Random) -> Workload:
    shape = arrivals.crowd(values["begins_s"], values["rises_s"], 600.0)
    return Draw(values["busy"], shape=shape, known=False, tiers=OTHERS).workload(rng)


def _large_jobs(values: Values, rng: random.Random) -> Workload:
    lengths = Lengths(3000.0, values["outputs"], 0.4, 0.4)
    tiers = {"standard": 1.0, "batch": 1.0}
    return Draw(values["busy"], 7200.0, lengths=lengths, slots=8, tiers=tiers, scaling={"interval_s": 2.0}).workload(
        rng
    )


def _tenants(values: Values, rng: random.Random) -> Workload:
    usual = Draw(values["busy"], tiers={"interactive": 1.0, "standard": 2.0})
    steady = usual.requests(rng)
    begins_s, lasts_s = 600.0, 600.0
    flood = replace(usual, busy=values["flood"], lasts_s=lasts_s).requests(rng)
    rows = [(at, i, o, 1 + rng.randrange(8)) for at, i, o in _rows(steady)]
    rows += [(begins_s + at, i, o, 0) for at, i, o in _rows(flood)]
    at, inputs, outputs, tenant = (list(column) for column in zip(*sorted(rows), strict=True))
    names = ("greedy", *(f"tenant-{n}" for n in range(1, 9)))
    return usual.of(Trace(at, inputs, outputs, tenant, tenants=names), rng)


def _offline(values: Values, rng: random.Random) -> Workload:
    usual = Draw(values["busy"], tiers=OTHERS)
    online = usual.workload(rng)
    # A file holds the work of that many replicas over a sixth of the time, and comes within a second.
    once = replace(usual, busy=values["files"] * usual.lasts_s / 6, lasts_s=1.0)
    rows = [(at, i, o, tier) for (at, i, o), tier in zip(_rows(online.trace), online.trace.tier, strict=True)]
    for nth in range(6):
        file = once.requests(rng)
        rows += [(300.0 + nth * 300.0 + at, i, o, len(OTHERS)) for at, i, o in _rows(file)]
    at, inputs, outputs, tier = (list(column) for column in zip(*sorted(rows), strict=True))
    zeros = [0] * len(at)
    trace = Trace(at, inputs, outputs, zeros, zeros, tier, (MODEL,), (*OTHERS, "batch"))
    return replace(online, trace=trace)


def _rows(trace: Trace) -> zip[tuple[float, int, int]]:
    return zip(trace.at, trace.input_tokens, trace.output_tokens, strict=True)


LOAD_FAMILIES = (
    Family("steady", "the easiest: what a policy costs when nothing happens", {"busy": BUSY}, _steady),
    Family(
        "bursts of seconds",
        "shorter than any load: only capacity that is there helps",
        {
            "busy": Parameter((2.0, 3.5), (4.0, 5.5)),
            "burst_s": Parameter((5.0, 10.0), (11.0, 18.0)),
            "every_s": Parameter((60.0, 100.0), (110.0, 160.0)),
            "height": Parameter((3.0, 5.0), (2.0, 2.9)),
        },
        _bursts,
    ),
    Family(
        "bursts of minutes",
        "as long as a load: a policy that reacts is late, one that never lets go is dear",
        {
            "busy": Parameter((2.0, 3.5), (4.0, 5.0)),
            "burst_s": Parameter((90.0, 140.0), (150.0, 240.0)),
            "every_s": Parameter((300.0, 400.0), (420.0, 600.0)),
            "height": Parameter((2.0, 2.8), (3.0, 3.8)),
        },
        _bursts,
    ),
    Family(
        "long prompts",
        "device time goes into prompts, which stop all others: slots in use say little; cold",
        {"busy": Parameter((2.5, 4.0), (4.5, 6.0)), "inputs": Parameter((8000.0, 11_000.0), (12_000.0, 16_000.0))},
        _long_prompts,
    ),
    Family(
        "long answers",
        "slots are held for minutes, so that a fleet is full long before it is busy",
        {"busy": Parameter((3.0, 4.5), (5.0, 7.0)), "outputs": Parameter((900.0, 1300.0), (1400.0, 2000.0))},
        _long_answers,
    ),
    Family(
        "a step",
        "the rate changes once and stays: how fast, and whether it overshoots",
        {
            "busy": Parameter((2.0, 3.0), (3.2, 4.0)),
            "begins_s": Parameter((500.0, 700.0), (720.0, 1000.0)),
            "height": Parameter((2.0, 3.0), (3.1, 4.0)),
        },
        _step,
    ),
    Family(
        "a ramp",
        "a trend that a forecast can see",
        {"busy": Parameter((1.0, 1.5), (1.6, 2.2)), "height": Parameter((5.0, 6.5), (3.5, 4.8))},
        _ramp,
    ),
    Family(
        "a day with a season",
        "two days and a quarter, alike: the second can be known from the first",
        {"busy": Parameter((2.0, 2.6), (2.7, 3.4)), "swing": Parameter((0.7, 0.8), (0.82, 0.92))},
        _season,
    ),
    Family(
        "a flash crowd from zero",
        "no replica, no history, no capacity known, and everybody at once",
        {
            "busy": Parameter((6.0, 9.0), (10.0, 14.0)),
            "begins_s": Parameter((20.0, 60.0), (70.0, 120.0)),
            "rises_s": Parameter((30.0, 60.0), (70.0, 120.0)),
        },
        _crowd,
    ),
    Family(
        "few large jobs",
        "jobs of minutes, of which few end in any window: rates are noise",
        {"busy": Parameter((2.0, 3.0), (3.2, 4.5)), "outputs": Parameter((3000.0, 4000.0), (4500.0, 6000.0))},
        _large_jobs,
    ),
    Family(
        "tenants out of balance",
        "one of nine floods the queue for ten minutes: the others are due what they always got",
        {"busy": Parameter((2.5, 4.0), (4.2, 5.5)), "flood": Parameter((5.0, 7.0), (7.5, 10.0))},
        _tenants,
    ),
    Family(
        "offline floods",
        "files of thousands at once behind interactive work: patient, but not for ever",
        {"busy": Parameter((2.0, 3.0), (3.2, 4.0)), "files": Parameter((1.0, 1.8), (2.0, 3.0))},
        _offline,
    ),
)
