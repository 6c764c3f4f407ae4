"""``stoker release``: ends the quarantine of a repaired device."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autoscaler.devices import quarantine_record
from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.published import PublishedNode
from producer.contract.server.connection import connect

from .printable import printable
from .status import TIMEOUT_S

if TYPE_CHECKING:
    from redis import Redis

console = Console(highlight=False)


def release(
    device: Annotated[str, typer.Argument(help="As 'stoker status' shows it, such as cuda:1, or its UUID.")],
    host: Annotated[
        str | None, typer.Option(help="Its machine. [dim]Default: the leader's machine, or any[/dim]")
    ] = None,
) -> None:
    """End the quarantine of a device early, after a repair or a reset.

    The autoscaler uses the device from its next round on, unless it still finds it faulty.

    [bold]Example[/bold]

      stoker release cuda:1
    """
    client = connect(Settings.load(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        was = quarantine_record.release(client, *_resolve(client, device, host))
    console.print(printable(f"{device} is released; it was out for: {was.reason}"), markup=False, soft_wrap=True)


def _resolve(client: Redis, device: str, host: str | None) -> tuple[str, str]:
    """The host to search, empty for any, and the device's UUID, if ``stoker status`` shows the device by that name."""
    node = PublishedNode.parse(client.get(keys.devices()))
    if node is not None and host in (None, node.host):
        for one in node.devices:
            if one.id == device:
                return "", one.uuid or device
    return host or "", device
