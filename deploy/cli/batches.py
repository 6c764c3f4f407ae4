"""``stoker batches``: runs the batches of the Batch API, lists and cancels them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.batches.storage.records import BatchRecord
from gateway.batches.storage.registry import Registry
from gateway.openai.api_error import Problem
from producer.contract.errors import BatchError
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import close, connect

from .fleet import become
from .printable import printable

app = typer.Typer(name="batches")
console = Console(highlight=False, markup=False)  # tenants may hold [brackets]


@app.callback(invoke_without_command=True)
def batches(context: typer.Context) -> None:
    """Run batches submitted to the gateway, in the foreground; list and cancel them. 'stoker up' already runs one such
    process.

    Several may run at once; gateway.files in the fleet file names a folder or URL that all of them and all gateways
    can reach. When one is killed, another resumes its batches without loss.

    [bold]Example[/bold]

      stoker batches
    """
    if context.invoked_subcommand is None:
        Settings.load()
        become("gateway.batches")


@app.command("list")
def list_open(tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None) -> None:
    """List the batches that have not ended, of all tenants, the oldest first.

    [bold]Example[/bold]

      stoker batches list
    """
    with _registry() as registry:
        found = registry.open(tenant)
    table = Table(box=None, header_style="bold")
    for column in ("batch", "tenant", "key", "status", "done", "lines"):
        table.add_column(column)
    for batch in found:
        done = batch.completed + batch.failed
        key = batch.asked.caller.id or "none"
        table.add_row(batch.id, printable(batch.tenant), key, _status(batch), str(done), str(batch.total))
    console.print(table if found else "no batch is open")


@app.command()
def cancel(batch_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As 'list' shows it.")]) -> None:
    """Cancel batches of any tenant. Lines that are finished by then keep their answers.

    [bold]Example[/bold]

      stoker batches cancel batch_019a4c2f7d01b5e2
    """
    with _registry() as registry:
        for batch_id in batch_ids:
            found = registry.find(batch_id)
            if found is None:
                raise BatchError(
                    f"no batch has the id {batch_id!r:.80}; 'stoker batches list' shows those that are open"
                )
            try:
                cancelled = registry.cancel(found.tenant, batch_id)
            except Problem as problem:  # it is about to end, or has
                raise BatchError(f"{batch_id}: {problem}") from None
            console.print(f"{batch_id}, of tenant {printable(found.tenant)}, is {_status(cancelled)}")


def _status(batch: BatchRecord) -> str:
    return str(batch.public()["status"])


@contextlib.contextmanager
def _registry() -> Iterator[Registry]:
    redis = connect(Settings.load())
    try:
        yield Registry(redis)
    finally:
        close(redis)
