"""``stoker retry``: starts a model again at once whose workers ended unexpectedly."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.console import Console

from autoscaler import retries
from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.published import PublishedSizes
from producer.contract.server.connection import connect

from .printable import printable
from .status import TIMEOUT_S

console = Console(highlight=False)


def retry(model: Annotated[str, typer.Argument(help="A model of the fleet file.")]) -> None:
    """Start a model again at once, after its files or options were mended.

    When a worker ends unexpectedly, the autoscaler pauses before the next start, longer each time, up to 5 minutes.
    This ends the pause.

    [bold]Example[/bold]

      stoker retry embed
    """
    settings = Settings.load()
    settings.model(model)
    client = connect(settings, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    with contextlib.closing(client):
        sizes = PublishedSizes.parse(client.get(keys.sizes()))
        retries.ask(client, model)
    if sizes is None:
        told = "no autoscaler leads; the next one starts without any pause"
    elif (size := sizes.models.get(model)) is not None and size.backed_off_until > sizes.at:
        told = f"it starts in the next round. {size.backed_off_for}"
    else:
        told = f"no pause holds it back; 'stoker explain {model}' says what does"
    console.print(printable(f"{model}: {told}"), markup=False, soft_wrap=True)
