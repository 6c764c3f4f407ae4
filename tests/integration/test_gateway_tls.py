"""A gateway with a certificate speaks TLS and nothing else, and half a certificate is refused."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import trustme

from deploy.machine.server import Server
from gatewayed import Gatewayed


@pytest.fixture
def fleet(tmp_path: Path, server: Server) -> Gatewayed:
    return Gatewayed(tmp_path / "fleet", server.url)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[trustme.CA, Path, Path]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return authority, cert, key


@pytest.mark.slow
def test_it_is_spoken_to_by_tls_and_proves_who_it_is(
    fleet: Gatewayed, certificate: tuple[trustme.CA, Path, Path]
) -> None:
    authority, cert, key = certificate
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    try:
        url = fleet.gateway("--tls-cert", str(cert), "--tls-key", str(key), tls=trusting)
        models = httpx2.get(f"{url}/v1/models", timeout=10, verify=trusting).json()["data"]
        assert "talk" in [each["id"] for each in models]
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx2.get(f"{url}/v1/models", timeout=10)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url.replace("https", "http") + "/v1/models", timeout=10)
    finally:
        fleet.close()


@pytest.mark.parametrize("half", ["--tls-cert", "--tls-key"])
def test_half_a_certificate_is_refused(
    fleet: Gatewayed,
    certificate: tuple[trustme.CA, Path, Path],
    half: str,
) -> None:
    _, cert, key = certificate
    file = cert if half == "--tls-cert" else key
    command = [sys.executable, "-m", "deploy.cli", "--fleet", str(fleet.file), "gateway", half, str(file)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        fleet.close()
    assert (ended.returncode, ended.stderr) == (2, "stoker: TLS needs both --tls-cert and --tls-key\n")
