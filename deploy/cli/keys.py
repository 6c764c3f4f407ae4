"""``stoker keys``: makes, lists and revokes the API keys of gateways."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import redis
import typer
from rich.console import Console
from rich.table import Table

from gateway.access import api_key_store
from gateway.access.api_key import ApiKey
from producer.contract.errors import ConfigError, UnknownTier
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import DEFAULT
from producer.contract.server.connection import close, connect

from .printable import printable

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Make, list and revoke the API keys of gateways.",
    epilog="Redis stores only the SHA-256 of a key: a lost key cannot be recovered, only replaced.",
)
console = Console(highlight=False, markup=False)  # tenants and names may hold [brackets]


@contextlib.contextmanager
def _redis(settings: Settings) -> Iterator[redis.Redis]:
    client = connect(settings)
    try:
        yield client
    finally:
        close(client)


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant of its jobs; tenants cannot see each other's jobs.")],
    name: Annotated[str, typer.Option(help="A name to recognise it by.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it may use; repeatable. [dim]Default: all[/dim]")
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option(help="A tier that it may use; repeatable. [dim]Default: all[/dim]")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--rpm", min=1, help="Maximum of requests per minute. [dim]Default: no limit[/dim]")
    ] = None,
) -> None:
    """Make a key and print it on stdout. The key cannot be shown again.

    [bold]Examples[/bold]

      stoker keys create --tenant search
      stoker keys create --tenant intern --model smollm2 --tier batch --rpm 60
    """
    settings = Settings.load()
    for each in model or ():
        settings.model(each)
    for each in tier or ():
        if each not in settings.tiers:
            raise UnknownTier(f"no tier {each!r} in the fleet; allowed: {', '.join(settings.tiers)}")
    if not 1 <= len(tenant) <= 128:
        raise ConfigError(f"--tenant has {len(tenant)} characters; allowed: 1 to 128")
    if tenant == DEFAULT and settings.bars_default:
        raise ConfigError(
            f"--tenant is {DEFAULT!r}, whose jobs would escape max_in_flight and tokens_per_minute of "
            '[tenants."*"]; allowed: any other name'
        )
    secret, key = ApiKey.new(
        tenant,
        name=name,
        models=tuple(model) if model else None,
        tiers=tuple(tier) if tier else None,
        requests_per_minute=requests_per_minute,
    )
    with _redis(settings) as client:
        api_key_store.add(client, secret, key)
    print(f"{key.id}, for tenant {printable(key.tenant)}; keep it now:", file=sys.stderr)
    print(secret)


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array, for programs.")] = False,
) -> None:
    """List all keys ever made, by ID and without their secrets."""
    with _redis(Settings.load()) as client:
        found = api_key_store.read_all(client)
    if as_json:
        print(json.dumps([key.model_dump() for key in found]))
        return
    if not found:
        console.print("no API keys: gateways serve every client on 127.0.0.1, and refuse all others")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("ID", "TENANT", "NAME", "MODELS", "TIERS", "PER MINUTE", "MADE", "STATE"):
        table.add_column(column)
    for key in found:
        table.add_row(
            key.id,
            printable(key.tenant),
            printable(key.name),
            ", ".join(key.models or ("all",)),
            ", ".join(key.tiers or ("all",)),
            str(key.requests_per_minute or "any"),
            time.strftime("%Y-%m-%d", time.gmtime(key.created_at)),
            "revoked" if key.revoked_at else "active",
        )
    console.print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'stoker keys list' shows it.")]) -> None:
    """Revoke a key: its next request is refused, and its batches are cancelled. Jobs already submitted continue.

    [bold]Example[/bold]

      stoker keys revoke key_3f9c2a71b0de
    """
    with _redis(Settings.load()) as client:
        key = api_key_store.revoke(client, key_id)
    console.print(f"{key.id}, of tenant {printable(key.tenant)}, is revoked")
