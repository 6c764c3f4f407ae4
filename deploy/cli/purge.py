"""``stoker purge``: cancels the queued jobs of a model, whose clients are told at once."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from producer import calls
from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.message.celery_message import is_id
from producer.contract.queue.withdrawal import Search, Whereabouts
from producer.contract.server.connection import connect
from producer.contract.server.dialogue import run
from scheduler.lease.queue import queue_of
from scheduler.queue_lengths import observe

from .status import TIMEOUT_S

if TYPE_CHECKING:
    from redis import Redis

console = Console(highlight=False)


def purge(
    model: Annotated[str, typer.Argument(help="A model of the fleet file.")],
    tier: Annotated[str | None, typer.Option(help="Only this tier. [dim]Default: all tiers of the model[/dim]")] = None,
    running: Annotated[bool, typer.Option("--running", help="Cancel the jobs that workers hold, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Cancel all queued jobs of a model. Clients that wait for one are told at once.

    Jobs that workers hold go on, unless --running is given. Jobs that are submitted meanwhile may be cancelled as well.
    Use this rather than celery purge, which deletes messages without a word to their clients.

    [bold]Examples[/bold]

      stoker purge smollm2 --tier batch
      stoker purge smollm2 --running --yes
    """
    settings = Settings.load()
    model = settings.named(model)
    if tier is not None:
        settings.tier(model, tier)
    client = connect(settings, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        if not yes:
            _confirm(client, settings, model, tier, running)
        queued = _withdrawn(client, settings, model, tier)
        ended = _cancelled(client, settings, model, tier) if running else 0
        if running:  # what workers gave back meanwhile
            queued += _withdrawn(client, settings, model, tier)
    name = model if tier is None else keys.queue(model, tier)
    also = f", and {_jobs(ended, 'running')}" if running else ""
    console.print(f"{name}: cancelled {_jobs(queued, 'queued')}{also}", markup=False, soft_wrap=True)


def _confirm(client: Redis, settings: Settings, model: str, tier: str | None, running: bool) -> None:
    found = observe(client, settings)[model]
    queued = sum(of.length for of in found.tiers if tier in (None, of.tier))
    name = model if tier is None else keys.queue(model, tier)
    also = " and all running ones" if running else ""
    typer.confirm(f"Cancel {_jobs(queued, 'queued')}{also} of {name}?", abort=True, err=True)


def _withdrawn(client: Redis, settings: Settings, model: str, tier: str | None) -> int:
    """Cancel what is queued, deferred or a suspect, in steps of some milliseconds of Redis; returns how many."""
    known = Whereabouts(model=model) if tier is None else Whereabouts(model=model, tier=tier)
    search = Search(settings, known, every=True)
    while not search.done:
        run(client, search.step())
    return search.count


def _cancelled(client: Redis, settings: Settings, model: str, tier: str | None) -> int:
    """Cancel what workers hold; returns how many."""
    held = []
    for lease, entry in client.hscan_iter(keys.inflight(model), count=100):
        if tier is None or queue_of(lease.decode()) == keys.queue(model, tier):
            held += _id(entry)
    return len(run(client, calls.cancel(settings, held, Whereabouts(model=model), writes=True, searches=False)))


def _id(entry: bytes) -> list[str]:
    """The id of a job as it is held by a worker; in a lane, its due time stands before it. Empty if it is no job."""
    try:
        job_id = json.loads(entry[entry.index(b"{") :])["headers"]["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [job_id] if is_id(job_id) else []


def _jobs(count: int, what: str) -> str:
    return f"1 {what} job" if count == 1 else f"{count:,} {what} jobs"
