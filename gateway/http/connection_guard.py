"""Bounds of connections before a request is known: what a stranger sends, and how long and how often it connects.

uvicorn bounds none of these. Its parser in C is kept, which parses a request in a fraction of the time that h11 takes:
this protocol counts what the parser is fed, and closes connections that are over a limit.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES = 32 * 1024
"""Most bytes of a request's line and headers, of its trailers, and of anything else between two events of the parser.
As nginx's default for large headers; h11 allows 16 KiB."""
HEAD_S = 10.0
"""Seconds from the connection, or from the first byte of a further request, until its head is complete; also what is
left of a body whose request has been answered."""
UNREAD_S = 60.0
"""Seconds for which a client may read nothing of its answer."""
PIECE_BYTES = 64 * 1024
"""Most bytes that the parser is fed at once."""
CONNECTION = "connection"
"""Where a request's state holds its connection."""


class _Refused(Exception):
    """What came is over a limit. The parser turns it into an error of its own."""


class Crowd:
    """The connections of a server, and those among them that wait for a request, oldest first: by whether a request
    with an API key has come through them, and by their address.

    Args:
        most: connections in all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._waiting: dict[tuple[bool, str], dict[GuardedProtocol, None]] = {}

    def enter(self, connection: GuardedProtocol) -> GuardedProtocol | None:
        """Count a new connection.

        Returns:
            The connection that has to be closed for it, if there are too many: a stranger's rather than a caller's with
            a key, of the address with most that wait, the one that has waited longest. The new one itself when requests
            are served through all others.
        """
        self._count += 1
        closed = self._longest() or connection if self._count > self._most else None
        if closed is not None:
            self.serve(closed)
        if closed is not connection:
            self.wait(connection)
        return closed

    def _longest(self) -> GuardedProtocol | None:
        admitted = min((known for known, _ in self._waiting), default=False)
        crowds = [crowd for (known, _), crowd in self._waiting.items() if known is admitted]
        largest: dict[GuardedProtocol, None] = max(crowds, key=len, default={})
        return next(iter(largest), None)

    def wait(self, connection: GuardedProtocol) -> None:
        """A connection waits for a request."""
        self._waiting.setdefault(connection.whose, {})[connection] = None

    def serve(self, connection: GuardedProtocol) -> None:
        """A connection waits no more."""
        waiting = self._waiting.get(connection.whose, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(connection.whose, None)

    def leave(self, connection: GuardedProtocol) -> None:
        """A connection has ended."""
        self._count -= 1
        self.serve(connection)


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds."""

    crowd: Crowd
    """The connections of the server; see :func:`guarded`."""
    whose: tuple[bool, str] = (False, "")
    """Whether a request with an API key has come through it; the client's address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected."""
        super().connection_made(transport)
        self.whose = (False, self.client[0] if self.client else "")
        self._head = self._unparsed = 0
        self._refusing = False
        self._whole = True  # the request that was last begun has been received whole
        self._served: RequestResponseCycle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._within(HEAD_S)
        if (closed := self.crowd.enter(self)) is not None:
            closed.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.crowd.leave(self)
        self._within(None)
        if self._served is not None:  # uvicorn tells the last request only
            self._served.disconnected = True
            self._served.message_event.set()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, a piece at a time, unless too much came since its last event."""
        if self._refusing:
            return
        if self._timer is None and self._is_idle():
            self._within(HEAD_S)
        for start in range(0, len(data), PIECE_BYTES):
            if self.transport.is_closing() or self._refusing:
                return
            piece = data[start : start + PIECE_BYTES]
            if self._unparsed > HEAD_BYTES:
                self.send_400_response("A head, a trailer or the size of a chunk is too long.")
                return
            self._unparsed += len(piece)
            super().data_received(piece)

    def on_message_begin(self) -> None:
        """A request begins. One may wait for the answer to the last, whose end the client may have seen before this
        server; a second is not served: the connection is closed before it, and a client repeats what was not answered
        (RFC 9112, 9.3.2)."""
        if self.pipeline:
            raise _Refused
        self._head, self._unparsed, self._whole = 0, 0, False
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._unparsed = 0
        self._within(None)
        self.crowd.serve(self)
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # which uvicorn paused, although only reading tells when a client leaves
        else:
            self._served = self.cycle

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has been received whole."""
        self._head, self._unparsed, self._whole = 0, 0, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has been answered: wait for what its client still sends of it, or for the next."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self._served = following
        elif not self.transport.is_closing():
            self.crowd.wait(self)
            if not self._whole:  # uvicorn's own limit for the next request ends with the next byte
                self._within(HEAD_S)

    def send_400_response(self, msg: str) -> None:
        """Refuse what came; after the answer to a request that came whole before it."""
        self._refusing = True
        if self._whole and not self._is_idle():
            self.cycle.keep_alive = False
        elif self.pipeline:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def admit(self) -> None:
        """A request with an API key has come: this connection is among the last that are closed for others."""
        self.whose = (True, self.whose[1])  # while it is served, so that the crowd need not know

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _is_idle(self) -> bool:
        return self._whole and (self.cycle is None or self.cycle.response_complete)

    def _count(self, size: int) -> None:
        self._head += size
        self._unparsed = 0
        if self._head > HEAD_BYTES:
            raise _Refused

    def _within(self, seconds: float | None) -> None:
        """Close the connection after some seconds, unless this is called again before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def guarded(most: int) -> type[GuardedProtocol]:
    """A protocol for a server.

    Args:
        most: connections in all; beyond these, the one that has waited longest for a request is closed.
    """

    class Guarded(GuardedProtocol):
        crowd = Crowd(most)

    return Guarded
