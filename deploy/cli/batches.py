"""``stoker batches``: runs the batches of the Batch API."""

from __future__ import annotations

from producer.contract.settings import Settings

from .fleet import become


def batches() -> None:
    """Run batches submitted to the gateway, in the foreground. 'stoker up' already runs one such process.

    Several may run at once; gateway.files in the fleet file names a folder or URL that all of them and all gateways
    can reach. When one is killed, another resumes its batches without loss.

    [bold]Example[/bold]

      stoker batches
    """
    Settings.load()
    become("gateway.batches")
