"""What strangers do to a gateway's connections, with a real server of HTTP and real sockets."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deploy.machine.ports import free_port
from gateway.http import body_limit, connection_guard
from gateway.http.body_limit import BodyLimit
from gateway.http.connection_guard import CONNECTION, HEAD_BYTES, guarded
from processes import wait_for

MOST = 8
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server whose application answers with the body; ``/admitted`` counts as a request with an API key, ``/slow`` is
    answered when ``go`` is set, and ``/large`` with more than sockets hold."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.go = threading.Event()
        self.begun = self.ended = 0
        self.clients: set[tuple[str, int]] = set()

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        self.clients.add(scope["client"])
        await self._answer(scope, receive, send)
        self.ended += 1

    @property
    def connections(self) -> int:
        """The connections that requests have come through."""
        return len(self.clients)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/admitted":
            scope["state"][CONNECTION].admit()
        while scope["path"] == "/until-gone" and (await receive())["type"] != "http.disconnect":
            pass
        if scope["path"] == "/slow":
            await asyncio.to_thread(self.go.wait)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000 if scope["path"] == "/large" else 0):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": body})

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            yield connection

    def answer(self, request: bytes) -> bytes:
        """All that comes for what was sent, until the server closes the connection."""
        with self.connected() as connection:
            return exchange(connection, request)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send, then read until the server closes the connection."""
    received = b""
    try:
        connection.sendall(request)
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:  # closed with bytes on their way
        pass
    return received


def status(connection: socket.socket, request: bytes = GET) -> bytes:
    """The status of an answer, on a connection that stays."""
    connection.sendall(request)
    return connection.recv(65536).split(b" ")[1]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(connection_guard, "HEAD_S", 1.0)
    monkeypatch.setattr(connection_guard, "UNREAD_S", 0.5)
    monkeypatch.setattr(body_limit, "PATIENCE_S", 0.5)
    served = Served(free_port())
    application = BodyLimit(served.application, 10**6)
    config = uvicorn.Config(
        application, port=served.port, http=guarded(MOST), ws="none", log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the server to listen")
    yield served
    served.go.set()
    server.should_exit = server.force_exit = True
    thread.join()


ENDLESS = {
    "a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 4_000_000,
    "headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 700_000,
    "a URL": b"GET /" + b"x" * 4_000_000,
    "trailers": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: x\r\n" * 700_000,
    "a trailer": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA:" + b"x" * 4_000_000,
    "a chunk's size": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 4_000_000,
    "blank lines": b"\r\n" * 2_000_000,
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_refused(served: Served, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = HttpToolsProtocol.data_received

    def counted(self: HttpToolsProtocol, data: bytes) -> None:
        fed.append(len(data))
        feed(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", counted)
    answer = served.answer(ENDLESS[what])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert sum(fed) <= 2 * HEAD_BYTES + 2 * connection_guard.PIECE_BYTES


def test_a_request_of_ordinary_size_is_served_again_and_again(served: Served) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)) as connection:
        for _ in range(20):
            connection.request("POST", "/", b"x" * 200_000, {"A": "a" * 8000})
            assert connection.getresponse().read() == b"x" * 200_000
    assert served.connections == 1


def test_requests_before_an_answer_are_not_kept(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: served.begun, "the first request")
        connection.sendall(GET * 400_000)  # which is taken, and dropped
        served.go.set()
        assert exchange(connection, b"").count(b"HTTP/1.1 200 ") == 2
    assert served.begun == 2


def test_a_request_that_came_before_the_last_one_ended_is_answered(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        wait_for(lambda: served.begun, "the first request")
        served.go.set()
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 2:
            received += connection.recv(65536)
        assert status(connection) == b"200"


def test_who_hangs_up_with_another_request_sent_is_gone_from_the_first(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"GET /until-gone HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        wait_for(lambda: served.begun, "the first request")
    wait_for(lambda: served.ended, "the first request to be told")


def test_half_a_head_is_waited_for_so_long_and_no_longer(served: Served) -> None:
    assert served.answer(b"GET / HT") == b""
    with served.connected() as connection:
        assert status(connection) == b"200"
        assert exchange(connection, b"GET / HT") == b""


def test_half_heads_keep_nobody_out(served: Served) -> None:
    strangers = []
    with served.connected() as idle, served.connected() as caller:
        assert status(caller, b"GET /admitted HTTP/1.1\r\nHost: x\r\n\r\n") == b"200"
        assert status(idle) == b"200"
        for _ in range(3 * MOST):
            strangers.append(socket.create_connection(("127.0.0.1", served.port), timeout=30))
            strangers[-1].sendall(b"GET / HT")
        with served.connected() as other:
            assert status(other) == b"200"
        assert status(caller) == b"200"
        assert exchange(idle, GET) == b""
    for stranger in strangers:
        stranger.close()


def test_idle_callers_keep_no_stranger_out(served: Served) -> None:
    with ExitStack() as stack:
        callers = [stack.enter_context(served.connected()) for _ in range(MOST)]
        for caller in callers:
            assert status(caller, b"GET /admitted HTTP/1.1\r\nHost: x\r\n\r\n") == b"200"
        with served.connected() as other:
            assert status(other) == b"200"
        assert exchange(callers[0], GET) == b""


def test_when_all_are_served_a_new_connection_is_closed(served: Served) -> None:
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(MOST)]
    for connection in slow:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: served.begun == MOST, "all requests to be served")
    assert served.answer(GET) == b""
    served.go.set()
    for connection in slow:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.close()


def test_a_body_that_trickles_is_given_up(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nx")
        connection.settimeout(0.05)
        received = b""
        while not received:
            try:
                received = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"x")
    assert received.startswith(b"HTTP/1.1 500 ")  # of the 408 that is raised; a gateway has a handler for it


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nx")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert connection.recv(65536) == b""  # though nothing was closed here


def test_an_answer_that_is_not_read_ends_its_connection(served: Served) -> None:
    with served.connected() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: served.begun, "the request")
        wait_for(lambda: served.ended, "the application to be told that the client is gone")
