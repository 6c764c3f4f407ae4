"""The families whose fleet differs: how long it loads, what it runs on, how its engines work, and what fails."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from producer.contract.fleet.fleet_schema import DeviceType

from ..service import ServiceModel
from . import arrivals
from .drawing import DEVICE, SERVICE, Draw, Lengths
from .load_families import BUSY
from .workload import Family, Parameter, Workload

Values = Mapping[str, float]


def _slow_loads(values: Values, rng: random.Random) -> Workload:
    lasts_s = 5400.0
    service = replace(SERVICE, load_s=values["load_s"], load_sigma=0.2)
    shape = arrivals.wave(values["period_s"], 0.6)
    return Draw(values["busy"], lasts_s, shape, 1.6, service=service, scaling={"interval_s": 2.0}).workload(rng)


def _many_models(values: Values, rng: random.Random) -> Workload:
    count = round(values["models"])
    shares = {f"model-{rank:02d}": 1.0 / rank ** values["tail"] for rank in range(1, count + 1)}
    service = replace(SERVICE, load_s=30.0, load_sigma=0.4)
    return Draw(values["busy"], service=service, models=shares, known=False, scaling={"interval_s": 2.0}).workload(rng)


def _mixed_devices(values: Values, rng: random.Random) -> Workload:
    old = DeviceType(type="old", count=16, memory_gb=24, price_per_hour=0.4, speed=values["slower"])
    return Draw(values["busy"], devices=(old, DEVICE.model_copy(update={"count": 8}))).workload(rng)


def _failures(values: Values, rng: random.Random) -> Workload:
    failing = DEVICE.model_copy(update={"failures_per_day": values["per_day"], "repair_s": 300.0})
    return Draw(values["busy"], 3600.0, devices=(failing,)).workload(rng)


def _pieces(values: Values, rng: random.Random) -> Workload:
    """A piece of a prompt is read beside a step of all that run, and stops nobody: in the service model it is a step
    like that of a token, and each costs what pieces and tokens cost on average."""
    whole = Lengths(values["inputs"], 250.0, 0.5, 0.7)
    piece, usual = 512, SERVICE
    per_step = (whole.inputs * usual.prompt_token_s + whole.outputs * usual.sequence_s) / (
        whole.inputs / piece + whole.outputs
    )
    service = ServiceModel(usual.step_s, per_step, 0.0, load_s=usual.load_s)
    draw = Draw(values["busy"], lengths=whole, service=service)
    found = draw.requests(rng)
    steps = [
        tokens + -(-prompt // piece) for prompt, tokens in zip(found.input_tokens, found.output_tokens, strict=True)
    ]
    return draw.of(replace(found, output_tokens=steps), rng)


def _encoder(values: Values, rng: random.Random) -> Workload:
    service = ServiceModel(0.02, 0.002, values["token_s"], batches=True, load_s=20.0)
    lasts_s = 1200.0
    shape = arrivals.bursts(rng, lasts_s, 60.0, 240.0, 2.5)
    lengths = Lengths(180.0, 1.0, 0.8, 0.0)
    return Draw(values["busy"], lasts_s, shape, 2.5, lengths, service, 32).workload(rng)


FLEET_FAMILIES = (
    Family(
        "slow loads",
        "five minutes to load: what is decided now is there when the load has changed",
        {
            "busy": Parameter((3.0, 4.0), (4.2, 5.5)),
            "load_s": Parameter((240.0, 320.0), (330.0, 420.0)),
            "period_s": Parameter((1500.0, 2000.0), (2100.0, 2800.0)),
        },
        _slow_loads,
    ),
    Family(
        "many models with a heavy tail",
        "most models are asked for rarely, and each needs a replica of its own; cold",
        {
            "busy": Parameter((3.0, 4.0), (4.2, 5.5)),
            "models": Parameter((9.0, 12.0), (13.0, 17.0)),
            "tail": Parameter((1.0, 1.3), (1.4, 1.8)),
        },
        _many_models,
    ),
    Family(
        "mixed device types",
        "a replica's capacity depends on where it is placed",
        {"busy": BUSY, "slower": Parameter((0.4, 0.5), (0.52, 0.65))},
        _mixed_devices,
    ),
    Family(
        "failures",
        "devices are lost with what runs on them, in the middle of the load",
        {"busy": BUSY, "per_day": Parameter((6.0, 10.0), (11.0, 18.0))},
        _failures,
    ),
    Family(
        "prompts cut into pieces",
        "long prompts that stop nobody, as engines read them now: the price of a stall is nil",
        {"busy": Parameter((3.0, 4.0), (4.2, 6.0)), "inputs": Parameter((4000.0, 6000.0), (6500.0, 9000.0))},
        _pieces,
    ),
    Family(
        "whole batches",
        "an encoder: no slots, short jobs, and a batch costs little more than a job",
        {"busy": Parameter((1.0, 1.6), (1.7, 2.4)), "token_s": Parameter((0.0001, 0.00014), (0.00015, 0.0002))},
        _encoder,
    ),
)
