"""``stoker gateway``: runs a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from producer.contract.fleet.fleet_file import FleetFile


def gateway(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate in PEM format, to speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
) -> None:
    """Serve the OpenAI API from this fleet, in the foreground. 'stoker up' already runs one gateway.

    A gateway keeps no state: any number can run behind a load balancer.
    On an address other than 127.0.0.1 clients need an API key: stoker keys create.

    [bold]Examples[/bold]

      stoker gateway
      stoker gateway --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
      OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any python app.py
    """
    # Imported here, because only this command needs the gateway's libraries.
    from gateway.server import Listen, serve

    serve(FleetFile(fixed=("gateway",), part="gateway"), Listen(host, port, tls_cert, tls_key))
