"""``stoker release``: a device that was repaired is taken back before its time."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autoscaler.devices import quarantine_record
from producer.contract import keys
from producer.contract.connection import connect
from producer.contract.settings import Settings

from .printable import printable
from .status import TIMEOUT_S

if TYPE_CHECKING:
    from redis import Redis

console = Console(highlight=False)


def release(
    device: Annotated[str, typer.Argument(help="As 'stoker status' shows it, such as cuda:1.")],
    host: Annotated[
        str | None, typer.Option(help="Its machine. [dim]Default: that of the autoscaler, or this one[/dim]")
    ] = None,
) -> None:
    """Take a device back from quarantine before its hold is over, once it is repaired or was reset.

    The autoscaler uses it from its next look on, unless it sees that the device is still not well.

    [bold]Example[/bold]

      stoker release cuda:1
    """
    client = connect(Settings.load(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        was = quarantine_record.release(client, host or _host(client), device)
    console.print(printable(f"{device} is released; it was out for: {was.reason}"), markup=False, soft_wrap=True)


def _host(client: Redis) -> str:
    told = client.get(keys.devices())
    return str(json.loads(told)["host"]) if told else socket.gethostname()
