"""The command that runs the batches of the Batch API."""

from __future__ import annotations

from producer.contract.settings import Settings

from .fleet import become


def batches() -> None:
    """Run the batches that come through the gateway, in this window. 'stoker up' runs one of these already.

    Any number may run, wherever the files are: gateway.files in the fleet file names a folder or a URL that all of
    them and all gateways reach. One that is killed loses nothing: another goes on with its batches where they were.

    [bold]Example[/bold]

      stoker batches
    """
    Settings.load()
    become("gateway.batches")
