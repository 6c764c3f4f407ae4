"""``stoker status``: the state of the fleet as tables, or as JSON for programs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Annotated

import redis
import typer
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from producer.client import Client
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.published import JournalEntry, NodeSummary, PublishedDevice
from producer.contract.server.connection import connect
from scheduler.queue_lengths import ModelQueues

from ..status import FleetStatus, read_status
from ..strays import Stray
from . import job as jobs
from .duration import duration
from .printable import printable

REFRESH_S = 2.0
TIMEOUT_S = 5.0

console = Console(highlight=False)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds, until Ctrl-C.")] = False,
    job: Annotated[str | None, typer.Option(help="Show one job: why it waits, and when it starts and ends.")] = None,
    queue: Annotated[
        str | None, typer.Option(help="With --job: its queue, MODEL.TIER, where Redis does not permit a search.")
    ] = None,
) -> None:
    """Show queues, workers and devices, and the last scaling decisions with their reasons.

    [bold]Examples[/bold]

      stoker status
      stoker status --watch
      stoker status --json | jq '.queues[] | {model, inflight}'
      stoker status --job 0f3c6a52-9d1e-4a57-8a3b-2f8f6f1f5d10
    """
    settings = Settings.load()
    if job is not None:
        _job(settings, job, queue, as_json)
        return
    client = connect(settings, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                _watch(client, settings, as_json)
        else:
            _print(read_status(client, settings), as_json)


def _job(settings: Settings, job_id: str, queue: str | None, as_json: bool) -> None:
    model, _, tier = queue.rpartition(".") if queue else ("", "", "")
    with Client(settings) as client:
        found = client.waiting(job_id, model or None, tier or None)
    print(jobs.json_of(job_id, found) if as_json else jobs.text_of(job_id, found))


def _watch(client: redis.Redis, settings: Settings, as_json: bool) -> None:
    if as_json:
        while True:
            print(json_of(read_status(client, settings), indent=None), flush=True)
            time.sleep(REFRESH_S)
    with Live(screen_of(read_status(client, settings)), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(screen_of(read_status(client, settings)), refresh=True)


def _print(snapshot: FleetStatus, as_json: bool) -> None:
    if as_json:
        print(json_of(snapshot, indent=2))
    else:
        console.print(screen_of(snapshot))


def json_of(snapshot: FleetStatus, indent: int | None) -> str:
    """The status as one JSON object."""
    return TypeAdapter(FleetStatus).dump_json(snapshot, indent=indent).decode()


def screen_of(snapshot: FleetStatus) -> RenderableType:
    """The status as tables; warnings come first."""
    parts: list[RenderableType] = [_trouble(warning) for warning in snapshot.warnings]
    parts += [_warning(stray) for stray in snapshot.strays]
    if snapshot.node:
        parts += [_trouble(what) for what in (snapshot.node.failing, snapshot.node.trouble) if what]
    parts += [_trouble(f"{beat.name}: {beat.failing}") for beat in snapshot.workers if beat.failing]
    parts += [_queues(snapshot.queues), _workers(snapshot.workers, snapshot.at), _devices(snapshot.devices)]
    if snapshot.node:
        parts.append(_node(snapshot.node))
    parts.append(_decisions(snapshot.decisions))
    leads = snapshot.leader or "none leads: nothing is scaled until 'stoker up' or 'stoker autoscaler' runs"
    elsewhere = "does not run here"
    places = {
        "redis": snapshot.redis,
        "autoscaler": leads,
        "flower": snapshot.flower or elsewhere,
        "gateway": snapshot.gateway or elsewhere,
    }
    parts.append(Text("   ".join(f"{name} {where}" for name, where in places.items()), "dim"))
    if snapshot.batches:
        parts.append(Text(f"{snapshot.batches} open batches: 'GET /v1/batches' shows the progress of each", "dim"))
    return Group(*parts)


def _warning(stray: Stray) -> Text:
    count = "1 job" if stray.waiting == 1 else f"{stray.waiting} jobs"
    return Text(f"! {count} on {printable(stray.queue)} cannot be served: {stray.cure}", "bold yellow")


def _trouble(what: str) -> Text:
    return Text(f"! {printable(what)}", "bold yellow")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        # ">" at the start of a name stands for a column of numbers, aligned right.
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            header_style="dim",
            no_wrap=column in ("model", "tier"),
            overflow="fold",
        )
    return table


def _queues(models: list[ModelQueues]) -> Table:
    columns = (">queued", ">oldest", ">in flight", ">deferred", ">suspects", ">dead letters")
    table = _table("Queues", "model", "tier", *columns)
    for model in models:
        # These counts are totals of the model; they stand in the row of its first tier.
        of_model = (str(model.inflight), str(model.deferred), _alarm(model.suspects), _alarm(model.dead))
        for nth, tier in enumerate(model.tiers):
            name, counts = (model.model, of_model) if nth == 0 else ("", ())
            table.add_row(name, tier.tier, str(tier.length), duration(tier.oldest_age_s), *counts)
    return table


def _alarm(count: int) -> str:
    return f"[bold red]{count}[/bold red]" if count else "0"


_STATE_STYLES = {WorkerState.LOADING: "yellow", WorkerState.READY: "green", WorkerState.DRAINING: "cyan"}


def _state(beat: Heartbeat) -> Text:
    if beat.failing:
        return Text(f"breaker {printable(beat.breaker)}", "bold red")
    return Text(beat.state.value, _STATE_STYLES[beat.state])


def _workers(beats: list[Heartbeat], now: float) -> Table:
    table = _table("Workers", "name", "model", "device", "state", ">running", ">jobs/s", ">busy", ">batch", ">up")
    for beat in beats:
        table.add_row(
            beat.name,
            beat.model,
            beat.device,
            _state(beat),
            str(len(beat.running)),
            f"{beat.jobs_per_s:.1f}",
            f"{beat.busy:.0%}",
            f"{beat.batch_size:.1f}",
            duration(now - beat.started_at),
        )
    if not beats:
        table.add_row("[dim]none[/dim]")
    return table


def _devices(devices: Sequence[PublishedDevice]) -> Table:
    table = _table("Devices", "device", "name", "state", ">memory", "held by", "fault")
    for device in devices:
        memory = _memory(device.used_gb, device.memory_gb)
        state = Text(device.state, "bold red" if device.state == "faulty" else "")
        held = ", ".join(device.workers)
        table.add_row(Text(device.id), Text(device.name), state, memory, held, Text(device.fault))
    if not devices:
        table.add_row("[dim]unknown: no autoscaler reports them[/dim]")
    return table


def _memory(used_gb: float | None, total_gb: float | None) -> str:
    if total_gb is None:
        return "unknown"
    return f"{'?' if used_gb is None else f'{used_gb:.1f}'} of {total_gb:g} GB"


def _node(node: NodeSummary) -> Text:
    states = f"{node.idle} idle, {node.reserved} reserved, {node.allocated} allocated, {node.faulty} faulty"
    memory = f"{node.used_gb:.0f} of {node.memory_gb:.0f} GB used, {node.free_gb:.0f} GB left for further workers"
    count = "1 device" if node.total == 1 else f"{node.total} devices"
    return Text(f"{node.host}: {count}: {states}; {memory}", "dim")


def _decisions(decisions: list[JournalEntry]) -> Table:
    table = _table("Last decisions (their numbers: stoker explain)", "at", "action", "of", "reason")
    for decision in decisions:
        at = time.strftime("%H:%M:%S", time.localtime(decision.at))
        table.add_row(at, decision.action, decision.model or decision.device, Text(printable(decision.reason)))
    if not decisions:
        table.add_row("[dim]none yet[/dim]")
    return table
