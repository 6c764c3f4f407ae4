"""Web pages and a gateway without a key: pages of other origins get nothing.

On loopback no key is needed until the first one is made, and every page that a browser on this machine shows can reach
loopback. Headers tell its requests: a name that was pointed to 127.0.0.1 (DNS rebinding) stands in ``Host``, and the
site of a form or script in ``Origin`` and ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from ..openai.api_error import Problem

CURE = "make a key with 'stoker keys create' and send it as 'Authorization: Bearer KEY'"


def check_same_origin(headers: Mapping[str, str], allowed: Collection[str]) -> None:
    """Refuse a request without a key that a web page of another origin may have made.

    Args:
        headers: by name in lower case.
        allowed: origins whose pages may ask (``gateway.cors_origins``), or ``*``.

    Raises:
        Problem: 403.
    """
    host = headers.get("host")  # browsers always send it
    if host is not None and not _leads_to_loopback(f"//{host}"):
        raise _refused(f"the host {host!r} is not this machine")
    origin = headers.get("origin")
    if origin in allowed or "*" in allowed:
        return
    if origin is not None and not (_leads_to_loopback(origin) and urlsplit(origin).netloc == host):
        raise _refused(f"the origin {origin!r} is another than this gateway's")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise _refused("a page of another site asks")


def _refused(reason: str) -> Problem:
    return Problem(403, f"{reason}, and such requests need an API key: {CURE}", code="foreign_origin")


def _leads_to_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return name.endswith(".localhost") or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether a name or address of a host is on loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
