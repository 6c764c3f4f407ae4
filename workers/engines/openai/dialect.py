"""The parameters that a server does not take.

Some are named by ``options.omit``. Two that the engine itself adds are found out: a server that refuses
``stream_options``, or ``max_tokens`` where newer servers take ``max_completion_tokens``, is asked again without. A
parameter that a request sets is never dropped for a refusal: the answer would not be what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from .server_error import ServerError

RENAMED = {"max_tokens": "max_completion_tokens"}
DROPPED = ("stream_options", "encoding_format")
_UNKNOWN = re.compile(
    "unsupported|not supported|does(?: not|n't) support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed"
    "|extra[ _]|additional propert|no such",
    re.IGNORECASE,
)


def refused_parameter(error: ServerError, sent: Collection[str]) -> str | None:
    """The parameter that the server does not take, of those that need not be sent in this form; None for any other
    error.

    Args:
        sent: the parameters of the request.
    """
    if error.status not in (400, 422):
        return None
    if not _UNKNOWN.search(f"{error.code} {error.type} {error.message}"):
        return None
    for name in (*DROPPED, *RENAMED):
        named = name in error.about if error.about else re.search(rf"(?<!\w){name}(?!\w)", error.message)
        if name in sent and named:
            return name
    return None


class Dialect:
    """What is sent to one server.

    Args:
        omit: parameters that are never sent.
    """

    def __init__(self, omit: Collection[str] = ()) -> None:
        self._avoided = {*omit}
        if "stream" in self._avoided:
            self._avoided.add("stream_options")  # means nothing without
        self._renamed: set[str] = set()

    def adapt(self, content: bytes, refused: Collection[str] = ()) -> bytes:
        """The body of a request without the parameters that the server does not take.

        Args:
            refused: parameters that it has just refused.
        """
        if not (self._avoided or self._renamed or refused):
            return content
        fields: dict[str, Any] = json.loads(content)
        for name, other in RENAMED.items():
            if name in fields and name not in self._avoided and (name in self._renamed or name in refused):
                fields[other] = fields.pop(name)
        for name in (*self._avoided, *(name for name in refused if name in DROPPED)):
            fields.pop(name, None)
        return json.dumps(fields, ensure_ascii=False).encode()

    def learn(self, refused: Collection[str]) -> None:
        """Remember parameters without which a request was served."""
        self._renamed.update(name for name in refused if name in RENAMED)
        self._avoided.update(name for name in refused if name in DROPPED)
