"""Targets of webhooks: public hosts over TLS, so that no tenant reaches the operator's network through the gateway.

Names are resolved and every address is checked when the connection is made, and the connection goes to the checked
address, so that DNS rebinding gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from producer.contract.errors import StokerError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that IANA has given to regional registries of IPv6 lies in it."""
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "192.0.0.0/24", "192.88.99.0/24")
]
"""Blocks of IANA's registries of special-purpose addresses, IPv4 and IPv6, some of which Python calls global, depending
on its version: protocol assignments, documentation, 6to4."""
_PORT = 443


class ForbiddenTarget(StokerError):
    """The target of a webhook is not allowed."""


def check_url(url: str) -> str:
    """Check the form of a webhook's URL, and return it.

    Raises:
        ValueError: with what is allowed.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("https", "http") or "@" in parts.netloc:
        raise ValueError("allowed: https://HOST/PATH, without a user")
    return url


def check_policy(url: str, exempt: Collection[str]) -> None:
    """Refuse targets that need no name resolution to be forbidden: without TLS, or literal private addresses.

    Args:
        exempt: what the operator allows (``gateway.webhook_hosts``).

    Raises:
        ForbiddenTarget: with the reason.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_exempt(host, parts.port or (_PORT if parts.scheme == "https" else 80), exempt):
        return
    if parts.scheme != "https":
        raise ForbiddenTarget("a webhook goes over https, but for the hosts in gateway.webhook_hosts")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(address):
        raise ForbiddenTarget(f"{host} is no public address; gateway.webhook_hosts names hosts that are exempt")


def is_exempt(host: str, port: int, exempt: Collection[str]) -> bool:
    """Whether ``HOST:PORT`` or ``HOST:*`` is among the exempt ones, or, for port 443, ``HOST``."""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" in exempt or f"{host}:*" in exempt or (port == _PORT and host in exempt)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is anybody's to reach: not loopback, private, link-local, shared, reserved or multicast.

    Of an IPv6 address that stands for an IPv4 one (mapped, or by NAT64's well-known prefix), that one counts. Other
    IPv6 addresses are public within 2000::/3 only.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    special = any(address in network for network in _SPECIAL if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Makes connections to public addresses, and to exempt hosts."""

    def __init__(self, exempt: Collection[str]) -> None:
        self._exempt = exempt
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host, at an address that was checked.

        Raises:
            ForbiddenTarget: one of its addresses is not public.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not is_exempt(host, port, self._exempt):
            for address in addresses:
                if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                    raise ForbiddenTarget(f"{host} is at {address}, which is no public address")
        return await self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)
