"""``stoker release``: a device that was repaired is taken back before its time."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autoscaler.devices import quarantine_record
from producer.contract import keys
from producer.contract.connection import connect
from producer.contract.published import PublishedNode
from producer.contract.settings import Settings

from .printable import printable
from .status import TIMEOUT_S

if TYPE_CHECKING:
    from redis import Redis

console = Console(highlight=False)


def release(
    device: Annotated[str, typer.Argument(help="As 'stoker status' shows it, such as cuda:1, or its UUID.")],
    host: Annotated[
        str | None, typer.Option(help="Its machine. [dim]Default: that of the autoscaler, or any[/dim]")
    ] = None,
) -> None:
    """Take a device back from quarantine before its hold is over, once it is repaired or was reset.

    The autoscaler uses it from its next look on, unless it sees that the device is still not well.

    [bold]Example[/bold]

      stoker release cuda:1
    """
    client = connect(Settings.load(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        was = quarantine_record.release(client, *_known_as(client, device, host))
    console.print(printable(f"{device} is released; it was out for: {was.reason}"), markup=False, soft_wrap=True)


def _known_as(client: Redis, device: str, host: str | None) -> tuple[str, str]:
    """The machine by which a name is understood, and the UUID behind the name as ``stoker status`` shows it."""
    node = PublishedNode.parse(client.get(keys.devices()))
    if node is not None and host in (None, node.host):
        for one in node.devices:
            if one.id == device:
                return "", one.uuid or device
    return host or "", device
