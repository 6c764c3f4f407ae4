"""A small OpenAI-compatible server for the tests: real HTTP, real streams, no model.

``openai_stub.py --port N``. It answers a prompt with the words ``w0 w1 w2 ...``, one event each, until ``max_tokens``
or a stop string, and counts words as tokens. A prompt (or the last message of a chat) that names one of ``MISDEEDS``
makes it misbehave. ``GET /seen`` tells what it was asked, and what came of it.
"""

import argparse
import json
import os
import select
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

MODEL = "stub"
CONTEXT = 4096
DEFAULT_TOKENS = 16
MISDEED_AT = 3
"""The word of a stream at which something goes wrong."""

MISDEEDS = {
    "!status": "'!status 503 2': answers with that status so many times, then as usual",
    "!hang": "takes the request and never answers",
    "!die": "the process is killed in the middle of the stream",
    "!cut": "closes the connection in the middle of the stream",
    "!end": "ends the stream in the middle, as if that were all",
    "!garbage": "sends an event that is no JSON",
    "!error": "'!error 400': reports an error in the middle of the stream",
    "!dying": "reports an error in the middle of the stream, and is not healthy from then on",
    "!abort": "says at the end that it aborted the request",
    "!sick": "is not healthy from now on, and answers 500",
    "!wide": "answers with a character that some take for the end of a line",
}


class HungUp(Exception):
    """The client closed the connection."""


class Refused(Exception):
    """An error in place of an answer: a status, and words."""


class Seen:
    """What the server was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, int] = {}
        self._told: dict[str, Any] = {"requests": [], "running": 0, "most_running": 0, "hung_up_on": 0}
        self.sick = False

    def begin(self, request: dict[str, Any]) -> None:
        with self._lock:
            self._told["requests"].append(request)
            self._told["running"] += 1
            self._told["most_running"] = max(self._told["most_running"], self._told["running"])

    def end(self, hung_up_on: bool) -> None:
        with self._lock:
            self._told["running"] -= 1
            self._told["hung_up_on"] += hung_up_on

    def times(self, prompt: str) -> int:
        """How often this prompt came, this time included."""
        with self._lock:
            self._times[prompt] = self._times.get(prompt, 0) + 1
            return self._times[prompt]

    def told(self) -> dict[str, Any]:
        with self._lock:
            return {**self._told, "requests": list(self._told["requests"])}


class Stub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, token_s: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.seen = Seen()
        self.token_s = token_s

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are what it is for


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(503 if self.server.seen.sick else 200, {})
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif self.path == "/seen":
            self._json(200, self.server.seen.told())
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = self.server.seen
        seen.begin({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
        hung_up = False
        try:
            self._answer(body)
        except Refused as error:
            status, words = error.args
            self._json(status, {"error": {"message": words, "type": "Error", "code": status}})
        except (HungUp, ConnectionError):
            hung_up = self.close_connection = True
        finally:
            seen.end(hung_up)

    def _answer(self, body: dict[str, Any]) -> None:
        if body.get("model") != MODEL:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.")
        if self.path == "/v1/embeddings":
            self._embed(body["input"])
            return
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"][-1].get("content") if chat else body["prompt"]
        if not isinstance(prompt, str):
            raise Refused(400, "messages: each needs a content")
        most = body.get("max_tokens", DEFAULT_TOKENS)
        if most + len(prompt.split()) > CONTEXT:
            raise Refused(400, f"max_tokens={most} is more than the {CONTEXT} tokens of the context")
        misdeed, *numbers = prompt.split() if prompt.startswith("!") else [""]
        self._misbehave(misdeed, [int(number) for number in numbers], prompt)
        self._stream(body, chat, prompt, misdeed, numbers)

    def _misbehave(self, misdeed: str, numbers: list[int], prompt: str) -> None:
        if misdeed == "!sick":
            self.server.seen.sick = True
        if self.server.seen.sick:
            raise Refused(500, "the engine is dead")
        if misdeed == "!status" and self.server.seen.times(prompt) <= numbers[1]:
            raise Refused(numbers[0], "as asked")
        if misdeed == "!hang":
            select.select([self.connection], [], [])  # readable when the client hangs up: it has no more to say
            raise HungUp

    def _stream(self, body: dict[str, Any], chat: bool, prompt: str, misdeed: str, numbers: list[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        made, reason = 0, "length"
        if chat:
            self._event(chat, "", None)
        for number in range(body.get("max_tokens", DEFAULT_TOKENS)):
            if number == MISDEED_AT and self._go_wrong(misdeed, numbers):
                return
            word = "\u2028" if misdeed == "!wide" else f" w{number}"
            if any(stop in word for stop in body.get("stop", [])):
                reason = "stop"
                break
            time.sleep(self.server.token_s)
            self._event(chat, word, None)
            made += 1
        self._event(chat, "", "abort" if misdeed == "!abort" else reason)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": made}
        if body["stream_options"]["include_usage"]:
            self._data(json.dumps({"choices": [], "usage": usage}))
        self._data("[DONE]")
        self._chunk(b"")

    def _go_wrong(self, misdeed: str, numbers: list[str]) -> bool:
        """Whether the stream is over."""
        match misdeed:
            case "!die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "!cut":
                raise HungUp
            case "!garbage":
                self._data("{no JSON")
            case "!error":
                code = int(numbers[0])
                self._data(json.dumps({"error": {"message": "broken in the middle", "code": code}}))
            case "!dying":
                self.server.seen.sick = True
                self._data(json.dumps({"error": {"message": "the engine core has ended", "code": 500}}))
            case "!end":
                self._data("[DONE]")
            case _:
                return False
        self._chunk(b"")
        return True

    def _event(self, chat: bool, text: str, reason: str | None) -> None:
        choice = {"delta": {"content": text}} if chat else {"text": text}
        # Not escaped, as servers in other languages send it.
        self._data(json.dumps({"choices": [{"index": 0, "finish_reason": reason, **choice}]}, ensure_ascii=False))

    def _data(self, data: str) -> None:
        self._chunk(f"data: {data}\n\n".encode())

    def _chunk(self, content: bytes) -> None:
        if select.select([self.connection], [], [], 0)[0]:
            raise HungUp
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _embed(self, texts: list[str]) -> None:
        rows = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(len(text.split()) for text in texts), "total_tokens": 0}
        self._json(200, {"data": rows[::-1], "usage": usage})  # the API promises an index, not an order

    def _json(self, status: int, fields: dict[str, Any]) -> None:
        content = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def linger() -> NoReturn:
    """Be what a server started and does not end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"child {os.getpid()}", flush=True)
    while True:
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token-s", type=float, default=0.005, help="time for each token")
    parser.add_argument("--fail", type=int, help="say so, and exit with this code")
    parser.add_argument("--child", action="store_true", help="start a process that ignores SIGTERM, as a model's may")
    parser.add_argument("--daemon", action="store_true", help="likewise, in a session of its own and without a parent")
    options = parser.parse_args()
    if options.fail is not None:
        print("loading ...", "no such weights", sep="\n", file=sys.stderr)
        sys.exit(options.fail)
    if options.child and os.fork() == 0:
        linger()
    if options.daemon and (child := os.fork()):
        os.waitpid(child, 0)
    elif options.daemon:
        os.setsid()
        if os.fork() == 0:
            linger()
        os._exit(0)
    print(f"serving as {os.getpid()} on {os.environ.get('CUDA_VISIBLE_DEVICES', 'no GPU')}", flush=True)
    Stub(options.port, options.token_s).serve_forever()


if __name__ == "__main__":
    main()
