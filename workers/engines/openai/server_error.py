"""The errors of a server: their fields, which servers put in different places, and whose fault each is.

Sources: https://platform.openai.com/docs/guides/error-codes; FastAPI's ``{"detail": [{"type", "loc", "msg"}]}``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from producer.contract.errors import EngineError, ServerBusy, ServerRefused, StokerError

from .text_assembly import whole_characters

BUSY = (408, 425, 429, 503)
"""HTTP statuses that mean that the request may succeed later."""
SETUP = (401, 403, 404, 405)
"""HTTP statuses that mean that the fleet file is wrong rather than the request."""
SPENT = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of OpenAI with status 429 that no waiting cures."""
TOO_LONG = "context_length_exceeded"
"""OpenAI's code for a request that is longer than the model's context. Others only say so."""
SHOWN_CHARS = 500


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says of a request that it did not serve.

    ``status`` is HTTP's, 0 if unknown. ``code``, ``type`` and ``param`` are the server's own, or empty. ``about`` are
    the parameters that the error names as its cause.
    """

    status: int
    message: str
    code: str = ""
    type: str = ""
    param: str = ""
    about: tuple[str, ...] = ()

    @property
    def blames_request(self) -> bool:
        """Whether the request is invalid, rather than the server broken, busy, or set up wrong."""
        return 400 <= self.status < 500 and self.status not in (*SETUP, *BUSY)

    @property
    def passes(self) -> bool:
        """Whether the request may succeed later."""
        return self.status in BUSY and self.code not in SPENT

    @property
    def exceeds_context(self) -> bool:
        """Whether the prompt and the length asked for are longer than the model's context."""
        return (
            self.code == TOO_LONG or re.search("context (length|size|window)", self.message, re.IGNORECASE) is not None
        )

    def refusal(self) -> ServerRefused:
        """The error of a request that the server finds invalid."""
        code = self.code or (TOO_LONG if self.exceeds_context else "")
        return ServerRefused(f"the server refused it: {self.message}", code, self.param, self.type)

    def busy(self, retry_after_s: float | None = None) -> ServerBusy:
        """The error of a request for which the server stays too busy."""
        wait = "" if retry_after_s is None else f"{retry_after_s:g}"
        status = 429 if self.status == 429 else 503
        message = f"the server is busy: it answered {self.status}: {self.message}"
        return ServerBusy(message, str(status), wait, self.code, self.type)

    def within_stream(self) -> StokerError:
        """The error of a request whose answer breaks off with this."""
        return self.refusal() if self.blames_request else EngineError(f"the server broke off: {self.message}")


def read_error(status: int, body: bytes) -> ServerError:
    """Parse an error, in any of the forms that servers use. Without an HTTP status, a number as its code is one."""
    try:
        fields = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError):
        return ServerError(status, shown(body))
    inner = fields.get("error") or fields if isinstance(fields, dict) else fields
    if not isinstance(inner, dict):
        return ServerError(status, _word(inner, SHOWN_CHARS) or shown(body))
    message = next((text for name in ("message", "detail", "msg") if (text := _word(inner.get(name), SHOWN_CHARS))), "")
    code = inner.get("code")
    if isinstance(code, int) or (isinstance(code, str) and re.fullmatch("[1-5][0-9]{2}", code)):
        status, code = status or int(code), None
    param = _word(inner.get("param"))
    about = (param,) if param else tuple(_places(inner.get("detail") or inner.get("message")))
    return ServerError(status, message or shown(body), _word(code), _word(inner.get("type")), param, about)


def _places(details: Any) -> Iterator[str]:
    """The fields that a validation error of FastAPI is about; Mistral puts its list into an object."""
    details = details.get("detail") if isinstance(details, dict) else details
    for detail in details if isinstance(details, list) else ():
        place = detail.get("loc") if isinstance(detail, dict) else None
        if isinstance(place, list) and len(place) > 1 and isinstance(place[1], str):
            yield whole_characters(place[1])


def _word(value: Any, most: int = 100) -> str:
    return whole_characters(value[:most]) if isinstance(value, str) else ""


def shown(body: bytes) -> str:
    """The beginning of a body, as text."""
    text = body[: 4 * SHOWN_CHARS].decode(errors="replace").strip()
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def retry_after(header: str, now: datetime) -> float | None:
    """The seconds that a header ``Retry-After`` asks to wait: a number, or a date. None if it asks for nothing."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
