"""``stoker explain``: the reasons for a model's workers, and the conditions for starting another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from producer.contract.fleet.engine_abilities import abilities
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from producer.contract.published import JournalEntry, PublishedDevice, PublishedSize
from producer.contract.server.connection import connect

from ..explain import Explanation, ModelExplained, explain_fleet
from .duration import duration
from .printable import printable
from .status import TIMEOUT_S

console = Console(highlight=False)


def explain(
    model: Annotated[str | None, typer.Argument(help="A model of the fleet file. [dim]Default: all[/dim]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Explain the number of workers of a model, and the conditions for another one.

    Shows the number of replicas that the autoscaler wants and its inputs, what blocks a start, why each worker was
    started, and the last decisions with their inputs.

    [bold]Examples[/bold]

      stoker explain smollm2
      stoker explain --json | jq '.models[] | {model, one_more: .wanted.one_more}'
    """
    settings = Settings.load()
    models = [*settings.models] if model is None else [model]
    for name in models:
        settings.model(name)
    client = connect(settings, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        found = explain_fleet(client, models)
    if as_json:
        print(TypeAdapter(Explanation).dump_json(found, indent=2).decode())
    else:
        console.print(screen_of(found, settings))


def screen_of(found: Explanation, settings: Settings) -> RenderableType:
    """The explanation as text and tables."""
    parts: list[RenderableType] = []
    if found.sized_at is None:
        what = "No autoscaler is running: 'stoker up' or 'stoker autoscaler' starts one, and "
        parts.append(Text(f"{what}'stoker autoscaler --dry-run' shows what it would do.", "bold yellow"))
    for one in found.models:
        parts += [_title(one, found), Padding(_facts(one, settings.models[one.model], found.at), (0, 0, 1, 2))]
    if found.shared:
        parts += [Text("memory that others use", "bold"), Padding(_shared(found.shared), (0, 0, 1, 2))]
    if found.devices:
        parts += [Text("devices", "bold"), Padding(_decisions(found.devices), (0, 0, 1, 2))]
    return Group(*parts)


def _title(one: ModelExplained, found: Explanation) -> Text:
    title = Text(one.model, "bold")
    if one.wanted is None:
        return title.append("  not reported by the autoscaler", "dim")
    demand = one.wanted.demand
    phases = ", ".join(f"{count} {phase}" for phase, count in demand.phases.items() if count) or "none"
    title.append(f"  {one.wanted.replicas} wanted; there: {phases}", "not bold")
    return title.append(f"  (policy {found.policy})", "not bold dim")


def _facts(one: ModelExplained, model: Model, now: float) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if one.wanted is not None:
        table.add_row("why", Text(printable(one.wanted.reason)))
        if one.wanted.hold:
            table.add_row("blocker", Text(printable(one.wanted.hold), "yellow"))
        for line in attained_lines(one.wanted, model):
            table.add_row("attained", Text(printable(line)))
        if since := one.wanted.surplus_since:
            table.add_row("surplus", f"for {duration(now - since)}")
        if speeds := one.wanted.demand.speeds:
            told = ", ".join(f"{kind} {per_s:.3g} jobs/s" for kind, per_s in sorted(speeds.items()))
            table.add_row("capacity", Text(printable(told)))
    for nth, line in enumerate(one_more_lines(one, model, now)):
        table.add_row("" if nth else "next start", Text(printable(line)))
    for nth, served in enumerate(one.workers):
        beat = served.worker
        told = f"{beat.name} on {beat.device}, {beat.state.value} for {duration(now - beat.started_at)}"
        because = f": {served.because}" if served.because else "; its start is not in the journal"
        if not served.managed:
            because = "; started by hand: the autoscaler counts it, and never stops it"
        table.add_row("" if nth else "workers", Text(printable(told + because)))
    able = abilities(model)
    names = [*sorted(able.parameters), *(["any other"] if able.others else [])]
    table.add_row("inputs", ", ".join(sorted(able.inputs)))
    table.add_row("parameters", ", ".join(names) or "none")
    table.add_row("decisions", _decisions(one.decisions) if one.decisions else "[dim]none yet[/dim]")
    return table


def attained_lines(wanted: PublishedSize, model: Model) -> list[str]:
    """What tiers attained lately against what is asked of them, and what holds back one that attains less."""
    lines = []
    for tier in wanted.demand.tiers:
        if tier.attain is None:
            continue
        asked = f"{tier.attain:.3g} asked within {tier.target_wait_s:g} s"
        if tier.attained is None:
            lines.append(f"{tier.tier}: too few jobs lately to tell; {asked}")
        elif tier.attained >= tier.attain:
            lines.append(f"{tier.tier}: {tier.attained:.1%} lately; {asked}")
        else:
            lines.append(f"{tier.tier}: {tier.attained:.1%} lately; {asked}; held back by {_held_back(wanted, model)}")
    return lines


def _held_back(wanted: PublishedSize, model: Model) -> str:
    demand = wanted.demand
    loading = sum(demand.phases.get(phase, 0) for phase in ("starting", "loading"))
    if wanted.hold:
        return f"devices: {wanted.hold}"
    if wanted.replicas >= model.max_replicas:
        return f"max_replicas, which is {model.max_replicas}"
    if loading:
        return f"the load time of {demand.load_s:.0f} s: {loading} load now"
    step = f"one replica more takes a device, for {demand.jobs_per_s:.3g} jobs/s"
    return f"bursts faster than a load of {demand.load_s:.0f} s; headroom is raised, and {step}"


def _shared(devices: Sequence[PublishedDevice]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for device in devices:
        table.add_row(device.id, f"{device.others_gb:.1f} of {device.memory_gb or 0.0:.1f} GB")
        for line in others_lines(device):
            table.add_row("", Text(printable(line)))
    return table


def others_lines(device: PublishedDevice) -> list[str]:
    """The processes that use a device's memory and are not of workers, one per line."""
    if device.others:
        most_first = sorted(device.others, key=lambda pid: -device.used_by.get(pid, 0.0))
        return [f"pid {pid} ({device.others[pid]}): {device.used_by.get(pid, 0.0):.1f} GB" for pid in most_first]
    if device.used_by:
        return ["by the workers there, beyond the memory_gb of their models"]
    return ["the driver does not tell by which processes"]


def one_more_lines(one: ModelExplained, model: Model, now: float) -> list[str]:
    """The conditions for another replica, one per line."""
    if one.wanted is None:
        return []
    need = one.wanted.one_more
    if need.present >= model.max_replicas:
        lines = [f"never: max_replicas is {model.max_replicas}; raise it in fleet.toml"]
    elif need.queued is None:
        lines = [f"the policy starts none for any number of jobs queued in {need.tier}"]
    else:
        waiting = next(tier.queued for tier in one.wanted.demand.tiers if tier.tier == need.tier)
        when = f"from {need.queued} jobs waiting in {need.tier} on ({waiting} now)"
        lines = ["wanted already" if need.queued <= waiting else when]
    where = f"room for it on {need.device}: {need.free_gb:.1f} GB free, {model.memory_gb:g} GB needed"
    lines.append(where if need.device else f"no device: {need.hindrance}")
    if (wait := one.wanted.backed_off_until - now) > 0:
        lines.append(f"not for {duration(wait)}: {one.wanted.backed_off_for}")
    elif need.present and (wait := one.wanted.cooled_at - now) > 0:
        lines.append(f"not for {duration(wait)}, after the last start (up_cooldown_s)")
    return lines


def _decisions(decisions: Sequence[JournalEntry]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for decision in decisions:
        at = time.strftime("%H:%M:%S", time.localtime(decision.at))
        what = f"{decision.action} {decision.worker}".strip() + (f" on {decision.device}" if decision.device else "")
        table.add_row(at, Text(printable(f"{what}: {decision.reason}")))
        if decision.inputs:
            table.add_row("", Text(printable(_numbers(decision.inputs)), "dim"))
    return table


def _numbers(inputs: Mapping[str, object]) -> str:
    """The inputs that are not empty or zero, on one line."""
    told = []
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            told += [f"{name}.{part} {number}" for part, number in value.items()]
        elif value not in (None, 0, []):
            told.append(f"{name} {value}")
    return ", ".join(told)
