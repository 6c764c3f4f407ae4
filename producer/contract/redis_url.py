"""The URL of Redis: in the form that every library accepts, and in the form that may be shown.

A URL carries the password, so it is never printed as it is: logs, errors and ``status`` use :func:`shown`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from .errors import ConfigError

_HOST = r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])"
# What does not have exactly this form may hold a password anywhere, and is not shown at all.
_URL = re.compile(
    rf"(?P<scheme>[a-z+]+)://(?P<user>[^/?#\s]*@)?(?P<host>{_HOST}(?::\d+)?)?(?P<path>/[\w./-]*)?(?:\?[^@\s]*)?"
)
_UNREADABLE = "***"
_CREDENTIALS = re.compile(r"(\w+://).*[@?].*", re.DOTALL)


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
    """A text, such as the value of a setting, without the credentials of URLs in it."""
    return _CREDENTIALS.sub(r"\1***", text)


def usable(url: str) -> str:
    """The URL of a single Redis in the one form that redis-py, Kombu and Celery all understand.

    Credentials go before the host; ``rediss://`` checks the server's certificate unless told otherwise.

    Raises:
        ConfigError: it is not such a URL; the text holds no part of it.
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
    if user or password:
        netloc = f"{quote(user or parts.username or '', safe='')}:{quote(password or '', safe='')}@"
        parts = parts._replace(netloc=netloc + parts.netloc.rpartition("@")[2])
    if parts.scheme == "rediss":
        # Celery's backend insists on it; redis-py knows only the short names of the ssl module's constants.
        query["ssl_cert_reqs"] = query.get("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
    return parts._replace(query=urlencode(query, safe="/")).geturl()
