"""A small OpenAI-compatible server for the tests: real HTTP, real streams, no model.

``openai_stub.py --port N``. It answers a prompt with the words ``w0 w1 w2 ...``, one event each, until ``max_tokens``
or a stop string, and counts words as tokens; it calls the first tool that it is offered, answers a schema with an
instance, and tells log probabilities. A prompt (or the last message of a chat, or the first text to embed) that
begins with one of ``MISDEEDS`` makes it misbehave; ``--always`` adds one to every prompt. ``GET /seen`` returns what it
was asked, and what came of it.
"""

import argparse
import base64
import json
import math
import os
import select
import signal
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

MODEL = "stub"
CONTEXT = 4096
DEFAULT_TOKENS = 16
MISDEED_AT = 3
"""The word of a stream at which something goes wrong."""

EMOJI = "\U0001f600"

MISDEEDS = {
    "!status": "'!status 503 2': answers twice with that status, then as usual; "
    "'!status 503 2 30' with a Retry-After of 30 s",
    "!quota": "answers 429 with the code insufficient_quota",
    "!code": "answers 400 with an error that has a code, a type and a param",
    "!surrogate": "answers 400 with a message that holds half of a surrogate pair",
    "!hang": "takes the request and never answers",
    "!die": "the process is killed in the middle of the stream",
    "!cut": "closes the connection in the middle of the stream",
    "!end": "ends the stream in the middle, as if that were all",
    "!garbage": "sends an event that is no JSON",
    "!error": "'!error 400': reports an error in the middle of the stream",
    "!dying": "reports an error in the middle of the stream, and is not healthy from then on",
    "!abort": "says at the end that it aborted the request",
    "!sick": "'!sick 503': is not healthy from now on, and answers with that status, 500 by default",
    "!wide": "answers with a character that some take for the end of a line",
    "!parts": "answers with contents that are lists of parts",
    "!azure": "sends events without choices and choices without a text among the others",
    "!halves": "answers with an emoji, the halves of its surrogate pair in two events",
    "!bytes": "answers with an emoji, the bytes of its UTF-8 in two events",
    "!reasoning": "thinks in reasoning_content before it answers",
    "!whole": "answers at once although it was asked for a stream",
    "!raw": "'!raw {...}': sends the rest of the prompt as an event",
}
"""Of completions and chats."""

EMBEDDED = {
    "!base64": "embeddings as base64",
    "!nan": "NaN in an embedding",
    "!texts": "texts in an embedding",
    "!lengths": "embeddings of different lengths",
    "!few": "an embedding too few",
    "!indices": "all embeddings with the same index",
}
"""Misdeeds of embeddings."""


class HungUp(Exception):
    """The client closed the connection."""


class Refused(Exception):
    """An error in place of an answer: a status, words, other fields of the error, and seconds of Retry-After."""

    def __init__(self, status: int, words: str, retry_after: str = "", **fields: Any) -> None:
        super().__init__(words)
        self.status = status
        self.retry_after = retry_after
        self.error = {"message": words, "type": "Error", "code": status, **fields}


class Seen:
    """What the server was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, int] = {}
        self._told: dict[str, Any] = {"requests": [], "running": 0, "most_running": 0, "hung_up_on": 0}
        self.sick = 0
        """The status of all answers from now on, unless 0."""

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

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), Handler)
        self.seen = Seen()
        self.options = options

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are what it is for


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health" and not self.server.options.no_health:
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
            self._json(error.status, {"error": error.error}, error.retry_after)
        except (HungUp, ConnectionError):
            hung_up = self.close_connection = True
        finally:
            seen.end(hung_up)

    def _answer(self, body: dict[str, Any]) -> None:
        if body.get("model") != MODEL:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.")
        for name in self.server.options.refuse:
            if name in body:
                raise Refused(400, f"Unsupported parameter: '{name}'", param=name, code="unsupported_parameter")
        always = self.server.options.always
        if self.path == "/v1/embeddings":
            self._embed(body["input"], always or body["input"][0])
            return
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"][-1].get("content") if chat else body["prompt"]
        if isinstance(prompt, list):
            prompt = " ".join(part.get("text", part["type"]) if chat else str(part) for part in prompt)
        if not isinstance(prompt, str):
            raise Refused(400, "messages: each needs a content")
        prompt = f"{always} {prompt}" if always else prompt
        most = body.get("max_completion_tokens", body.get("max_tokens", DEFAULT_TOKENS))
        if most + len(prompt.split()) > CONTEXT:
            raise Refused(400, f"max_tokens={most} is beyond the context length of {CONTEXT} tokens")
        misdeed, *words = prompt.split() if prompt.startswith("!") else [""]
        self._misbehave(misdeed, words, prompt)
        if chat and (written := written_answer(body)) is not None:
            self._say_message(written, bool(body.get("stream")))
        elif misdeed == "!whole" or not body.get("stream"):
            self._answer_whole(chat, most)
        else:
            self._stream(body, chat, prompt, misdeed, most)

    def _misbehave(self, misdeed: str, words: list[str], prompt: str) -> None:
        if misdeed == "!sick":
            self.server.seen.sick = int("".join(words) or 500)
        if self.server.seen.sick:
            raise Refused(self.server.seen.sick, "the engine is dead")
        if misdeed == "!status" and self.server.seen.times(prompt) <= int(words[1]):
            raise Refused(int(words[0]), "as asked", "".join(words[2:]))
        if misdeed == "!quota":
            raise Refused(429, "You exceeded your quota", type="insufficient_quota", code="insufficient_quota")
        if misdeed == "!code":
            raise Refused(400, "maximum context length", type="invalid", code="context_length_exceeded", param="prompt")
        if misdeed == "!surrogate":
            raise Refused(400, "half \ud800", code="half \ud800")
        if misdeed == "!hang":
            select.select([self.connection], [], [])  # readable when the client hangs up: it has no more to say
            raise HungUp

    def _answer_whole(self, chat: bool, most: int) -> None:
        text = "".join(f" w{number}" for number in range(most))
        choice = {"message": {"content": text, "reasoning_content": "hmm"}} if chat else {"text": text}
        usage = {"prompt_tokens": 1, "completion_tokens": most}
        self._json(200, {"choices": [{"index": 0, "finish_reason": "length", **choice}], "usage": usage})

    def _stream(self, body: dict[str, Any], chat: bool, prompt: str, misdeed: str, most: int) -> None:
        self._begin_stream()
        made, reason = 0, "length"
        if chat:
            self._event(chat, "", None)
        for number in range(most):
            if number == MISDEED_AT and self._go_wrong(misdeed, prompt):
                return
            word = "\u2028" if misdeed == "!wide" else f" w{number}"
            if any(stop in word for stop in body.get("stop", [])):
                reason = "stop"
                break
            time.sleep(self.server.options.token_s)
            if "logprobs" in body:
                told = {**self._choice(chat, word, None)["choices"][0], "logprobs": logprobs_of(chat, word, made)}
                self._data(json.dumps({"choices": [told]}))
            else:
                self._say(chat, word, misdeed)
            made += 1
        self._event(chat, "", "abort" if misdeed == "!abort" else reason)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": made}
        if body.get("stream_options", {}).get("include_usage"):
            self._data(json.dumps({"choices": [], "usage": usage}))
        self._data("[DONE]")
        self._chunk(b"")

    def _say_message(self, message: dict[str, Any], stream: bool) -> None:
        """Answer with a message that calls tools, or is an instance of a schema."""
        reason = "tool_calls" if "tool_calls" in message else "stop"
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        if not stream:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            self._json(200, {"choices": [choice], "usage": usage})
            return
        self._begin_stream()
        for delta in deltas_of(message):
            self._data(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
        self._data(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}))
        self._data("[DONE]")
        self._chunk(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _say(self, chat: bool, word: str, misdeed: str) -> None:
        """Send a word as a misdeed has it."""
        match misdeed:
            case "!parts":
                parts = [{"type": "text", "text": word}, {"type": "image", "url": "x"}]
                self._event(chat, parts, None)
            case "!azure":
                self._data(json.dumps({"choices": [], "prompt_filter_results": []}))
                self._data(json.dumps({"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]}))
                self._data(json.dumps({"choices": None, "usage": None}))
                self._event(chat, word, None)
            case "!halves":
                for half in (r"\ud83d", r"\ude00"):
                    self._data(json.dumps(self._choice(chat, "HALF", None)).replace("HALF", half))
            case "!bytes":
                before, after = json.dumps(self._choice(chat, "BYTES", None)).encode().split(b"BYTES")
                for part in (EMOJI.encode()[:2], EMOJI.encode()[2:]):
                    self._chunk(b"data: " + before + part + after + b"\n\n")
            case "!reasoning":
                self._data(json.dumps({"choices": [{"index": 0, "delta": {"reasoning_content": "hmm"}}]}))
                self._event(chat, word, None)
            case _:
                self._event(chat, word, None)

    def _go_wrong(self, misdeed: str, prompt: str) -> bool:
        """Whether the stream is over."""
        match misdeed:
            case "!die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "!cut":
                raise HungUp
            case "!garbage":
                self._data("{no JSON")
            case "!error":
                code = int(prompt.split()[1])
                self._data(json.dumps({"error": {"message": "broken in the middle", "code": code}}))
            case "!dying":
                self.server.seen.sick = 500
                self._data(json.dumps({"error": {"message": "the engine core has ended", "code": 500}}))
            case "!end":
                self._data("[DONE]")
            case "!raw":
                self._data(prompt.partition(" ")[2])
                return False
            case _:
                return False
        self._chunk(b"")
        return True

    def _choice(self, chat: bool, text: Any, reason: str | None) -> dict[str, Any]:
        choice = {"delta": {"content": text}} if chat else {"text": text}
        return {"choices": [{"index": 0, "finish_reason": reason, **choice}]}

    def _event(self, chat: bool, text: Any, reason: str | None) -> None:
        # Not escaped, as servers in other languages send it.
        self._data(json.dumps(self._choice(chat, text, reason), ensure_ascii=False))

    def _data(self, data: str) -> None:
        self._chunk(f"data: {data}\n\n".encode())

    def _chunk(self, content: bytes) -> None:
        if select.select([self.connection], [], [], 0)[0]:
            raise HungUp
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _embed(self, texts: list[str], misdeed: str) -> None:
        rows: list[dict[str, Any]] = [
            {"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(texts)
        ]
        match misdeed.split()[0] if misdeed.startswith("!") else "":
            case "!base64":
                for row in rows:
                    row["embedding"] = base64.b64encode(struct.pack("<2f", *row["embedding"])).decode()
            case "!nan":
                rows[0]["embedding"][0] = math.nan
            case "!texts":
                rows[0]["embedding"][0] = "1.0"
            case "!lengths":
                rows[0]["embedding"].append(1.0)
            case "!few":
                rows.pop()
            case "!indices":
                rows = [{**row, "index": 0} for row in rows]
        usage = {"prompt_tokens": sum(len(text.split()) for text in texts), "total_tokens": 0}
        self._json(200, {"data": rows[::-1], "usage": usage})  # the API promises an index, not an order

    def _json(self, status: int, fields: dict[str, Any], retry_after: str = "") -> None:
        content = json.dumps(fields).encode()
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def logprobs_of(chat: bool, word: str, number: int) -> dict[str, Any]:
    """The log probabilities of a word, which is one token."""
    logprob, other = -0.25 * (number + 1), -9.0
    if not chat:
        return {"tokens": [word], "token_logprobs": [logprob], "top_logprobs": [{word: logprob, " x": other}]}
    best = [{"token": word, "logprob": logprob}, {"token": " x", "logprob": other, "bytes": [32, 120]}]
    return {"content": [{**best[0], "top_logprobs": best}]}


def written_answer(body: dict[str, Any]) -> dict[str, Any] | None:
    """A call of the first tool, unless one was answered; or an instance of the schema; else None."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    answered = body["messages"][-1]["role"] == "tool" and not isinstance(choice, dict)
    if tools and not answered and choice != "none":
        named = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
        function = next(tool["function"] for tool in tools if tool["function"]["name"] == named)
        arguments = json.dumps(instance_of(function.get("parameters") or {}))
        call = {"id": "call_1", "type": "function", "function": {"name": named, "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return {"role": "assistant", "content": json.dumps(instance_of(form["json_schema"]["schema"]))}
    return {"role": "assistant", "content": "{}"} if form.get("type") == "json_object" else None


def deltas_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message in the pieces of a stream."""
    if "tool_calls" not in message:
        return [{"content": message["content"][:5]}, {"content": message["content"][5:]}]
    (call,) = message["tool_calls"]
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    begin = {"index": 0, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": text}} for text in (arguments[:4], arguments[4:])]
    return [{"role": "assistant", "content": None}, *({"tool_calls": [each]} for each in (begin, *rest))]


def instance_of(schema: dict[str, Any], whole: dict[str, Any] | None = None) -> Any:
    """An instance of a simple schema."""
    whole = schema if whole is None else whole
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return instance_of((whole.get("$defs") or whole["definitions"])[name], whole)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return instance_of(schema[name][0], whole)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: instance_of(of, whole) for name, of in schema.get("properties", {}).items()}
        case "array":
            return [instance_of(schema.get("items", {"type": "string"}), whole)]
        case "string":
            return "w0"
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return max(1, schema.get("minimum", 1))


def linger() -> NoReturn:
    """Be what a server started and does not end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"child {os.getpid()}", flush=True)
    while True:
        signal.pause()


def _removed(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def main() -> None:
    misdeeds = "\n".join(f"  {name:12} {what}" for name, what in {**MISDEEDS, **EMBEDDED}.items())
    parser = argparse.ArgumentParser(
        description="An OpenAI-compatible server without a model, which misbehaves when asked to.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"prompts that make it misbehave:\n{misdeeds}",
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token-s", type=float, default=0.005, help="time for each token")
    parser.add_argument("--always", default="", help="put this before every prompt, such as '!parts'")
    parser.add_argument(
        "--black-hole",
        type=Path,
        metavar="FILE",
        help="the server that removes FILE is healthy and answers 500",
    )
    parser.add_argument("--no-health", action="store_true", help="/health is 404, as hosted servers have it")
    parser.add_argument(
        "--refuse", action="append", default=[], metavar="PARAM", help="refuse requests with this parameter; repeatable"
    )
    parser.add_argument("--fail", type=int, help="say so, and exit with this code")
    parser.add_argument("--child", action="store_true", help="start a process that ignores SIGTERM, as a model's may")
    parser.add_argument("--daemon", action="store_true", help="likewise, in a session of its own and without a parent")
    options = parser.parse_args()
    if options.black_hole and _removed(options.black_hole):
        options.always = f"!status 500 {sys.maxsize}"
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
    Stub(options).serve_forever()


if __name__ == "__main__":
    main()
