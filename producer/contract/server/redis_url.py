"""The address of Redis: as every library wants it, and as it may be shown.

A URL carries the password, so none is ever printed as it is: logs, errors and ``status`` go through :func:`shown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ..errors import ConfigError

_HOST = r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])"
# What does not have exactly this form may hold a password anywhere, and is not shown at all.
_URL = re.compile(
    rf"(?P<scheme>[a-z+]+)://(?P<user>[^/?#\s]*@)?(?P<host>{_HOST}(?::\d+)?)?(?P<path>/[\w./-]*)?(?:\?[^@\s]*)?"
)
_UNREADABLE = "***"
_SCHEME = re.compile(r"\w://")


def _seconds(text: str) -> float:
    if not (seconds := float(text)) > 0:
        raise ValueError("allowed: a number above 0")
    return seconds


def _yes(text: str) -> bool:
    if (
        found := {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
    ) is None:
        raise ValueError("allowed: true or false")
    return found


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "client_name": str,
    "health_check_interval": int,
    "max_connections": int,
    "retry_on_timeout": _yes,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _yes,
    "socket_timeout": _seconds,
}
"""Options that a URL may have, and how each is read; redis-py and Kombu agree on what they mean."""

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")


def shown(url: str) -> str:
    """A URL without user, password and options: ``rediss://***@host:6379/0``.

    Several, as Sentinel takes them, are separated by semicolons. One that cannot be understood is ``***``.
    """
    found = [_URL.fullmatch(each) for each in url.split(";")]
    return ";".join(_shown(each) for each in found if each) if all(found) else _UNREADABLE


def _shown(url: re.Match[str]) -> str:
    hidden = "***@" if url["user"] else ""
    return f"{url['scheme']}://{hidden}{url['host'] or ''}{url['path'] or ''}"


def concealed(text: str) -> str:
    """A text, such as the value of a setting, without what may be the credentials of a URL in it."""
    # One expression for all of it takes quadratic time: a caller's long text would stop the process for minutes.
    scheme = _SCHEME.search(text)
    if scheme is None or max(text.rfind("@"), text.rfind("?")) < scheme.end():
        return text
    return f"{text[: scheme.end()]}***"


def usable(url: str) -> str:
    """The URL of a single Redis in the one form that redis-py, Kombu and Celery all understand.

    Credentials go before the host; ``rediss://`` checks the server's certificate unless told otherwise.

    Raises:
        ConfigError: when it cannot be one; the text holds no part of it.
    """
    if not url.startswith(("redis://", "rediss://")):
        if shown(url) != _UNREADABLE:
            return url  # a socket or Sentinel: whoever connects knows more about them
    elif _URL.fullmatch(url) and urlsplit(url).hostname:
        return _rewritten(url)
    raise ConfigError(
        "the URL of Redis cannot be read; allowed: rediss://USER:PASSWORD@HOST:PORT/DB?OPTIONS, and in the "
        "password %2F for /, %3F for ?, %23 for #; of several sentinels each needs its sentinel://"
    )


def _rewritten(url: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    user, password = query.pop("username", None), query.pop("password", None)
    if db := query.pop("db", None):
        parts = parts._replace(path=f"/{db}")
    _check(query, OPTIONS.keys() | (_TLS_OPTIONS if parts.scheme == "rediss" else ()))
    if user or password:
        netloc = f"{quote(user or parts.username or '', safe='')}:{quote(password or '', safe='')}@"
        parts = parts._replace(netloc=netloc + parts.netloc.rpartition("@")[2])
    if parts.scheme == "rediss":
        # Celery's backend insists on it; redis-py knows only the short names of the ssl module's constants.
        query["ssl_cert_reqs"] = query.get("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
    return parts._replace(query=urlencode(query, safe="/")).geturl()


def _check(query: Mapping[str, str], allowed: Collection[str]) -> None:
    """See that the options of a URL are known and can be read."""
    for name, text in query.items():
        if name not in allowed:
            names = ", ".join(sorted(allowed))
            raise ConfigError(f"the URL of Redis has the option {name!r:.40}, which is not known; allowed: {names}")
        try:
            OPTIONS.get(name, str)(text)
        except ValueError as error:
            raise ConfigError(f"the URL of Redis has {name} = {text!r:.40}: {error}") from None


def options_of(url: str) -> dict[str, Any]:
    """The options of a URL, those for TLS excepted; of several sentinels, all of theirs."""
    query = [pair for each in url.split(";") for pair in parse_qsl(urlsplit(each).query)]
    return {name: OPTIONS[name](text) for name, text in query if name in OPTIONS}


def without_options(url: str) -> str:
    """The URL as Kombu and Celery take it: with no options but those for TLS."""

    def bare(url: str) -> str:
        parts = urlsplit(url)
        kept = [(name, text) for name, text in parse_qsl(parts.query) if name not in OPTIONS]
        return parts._replace(query=urlencode(kept, safe="/")).geturl()

    return ";".join(map(bare, url.split(";")))
