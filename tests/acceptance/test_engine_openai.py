"""The openai engine with a server that does not always behave: ``tests/openai_stub.py``, over real HTTP."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import deploy.machine.server
from processes import Fleet, wait_for
from producer.contract.errors import (
    ConfigError,
    EngineError,
    InvalidJob,
    JobCancelled,
    JobExpired,
    ServerBusy,
    ServerRefused,
)
from producer.contract.fleet.fleet_schema import Model
from scheduler.lease import retry_backoff
from workers.device_thread import EXIT_ENGINE_LOST
from workers.engines.openai.client import ServerLost
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.openai.server import free_port
from workers.engines.protocol import Outcome, OutputPiece, Prefilled, Report, Request

STUB = str(Path(__file__).parents[1] / "openai_stub.py")
DEADLINE_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, STUB, "--port", "{port}", *arguments]


def settings(*arguments: str, **options: Any) -> Model:
    fields = {"command": command(*arguments), **options}
    return Model.model_validate({"engine": "openai", "max_concurrency": 4, "options": fields})


@pytest.fixture
def start() -> Iterator[Callable[[Model], OpenAIEngine]]:
    engines: list[OpenAIEngine] = []

    def started(model: Model) -> OpenAIEngine:
        engines.append(OpenAIEngine(model, "cpu:0"))
        engines[-1].load()
        return engines[-1]

    yield started
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(start: Callable[[Model], OpenAIEngine]) -> OpenAIEngine:
    return start(settings())


def run(engine: OpenAIEngine, *requests: Request) -> dict[str, Outcome]:
    for request in requests:
        engine.submit(request)
    return {report.id: report for report in reports_of(engine, len(requests)) if isinstance(report, Outcome)}


def step(engine: OpenAIEngine, timeout: float) -> list[Report]:
    """The reports of a step, except of prompts, which stall no other sequence."""
    reports = engine.step(timeout)
    assert all(report.stall_s == 0 for report in reports if isinstance(report, Prefilled))
    return [report for report in reports if not isinstance(report, Prefilled)]


def reports_of(engine: OpenAIEngine, outcomes: int) -> list[Report]:
    reports: list[Report] = []
    deadline = time.monotonic() + DEADLINE_S
    while sum(isinstance(report, Outcome) for report in reports) < outcomes:
        assert time.monotonic() < deadline, reports
        reports += step(engine, 0.5)
    return reports


def step_until_lost(engine: OpenAIEngine) -> str:
    deadline = time.monotonic() + DEADLINE_S
    with pytest.raises(ServerLost) as lost:  # noqa: PT012  it is not known which of the steps raises
        while time.monotonic() < deadline:
            assert step(engine, 0.2) == []
    return str(lost.value)


def process_of(engine: OpenAIEngine) -> psutil.Process:
    """The server itself, which is the child of its lifeline."""
    assert engine._server is not None
    lifeline = psutil.Process(engine._server._process.pid)
    return wait_for(lifeline.children, "the server's process")[0]


def seen(engine: OpenAIEngine) -> dict[str, Any]:
    assert engine._client is not None
    told: dict[str, Any] = httpx2.get(f"{engine._client._http.base_url}/seen").json()
    return told


def step_until(engine: OpenAIEngine, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Step until the server has seen what it should; nothing must end meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition(told := seen(engine)):
        assert time.monotonic() < deadline, told
        assert step(engine, 0.02) == []
    return told


def test_the_answer_and_how_it_ended(engine: OpenAIEngine) -> None:
    outcomes = run(
        engine,
        Request("length", ["two words"], {"max_new_tokens": 3}),
        Request("stop", ["x"], {"stop": "w2"}),
        Request("chat", [{"messages": [{"role": "user", "content": "hello there"}]}], {"max_new_tokens": 2}),
        Request("wide", ["!wide"], {"max_new_tokens": 2}),
    )
    assert outcomes["length"].outputs == [{"text": " w0 w1 w2", "finish_reason": "length"}]
    assert outcomes["length"].usage == {"input_tokens": 2, "output_tokens": 3}
    assert outcomes["stop"].outputs == [{"text": " w0 w1", "finish_reason": "stop"}]
    assert outcomes["chat"].outputs == [{"text": " w0 w1", "finish_reason": "length"}]
    assert outcomes["wide"].outputs == [{"text": "\u2028\u2028", "finish_reason": "length"}]
    assert {request["path"] for request in seen(engine)["requests"]} == {"/v1/completions", "/v1/chat/completions"}


def chat(prompt: str) -> Any:
    return {"messages": [{"role": "user", "content": prompt}]}


def test_the_answers_of_servers_that_differ_from_the_api(engine: OpenAIEngine) -> None:
    prompts = {
        "parts": " w0 w1",
        "azure": " w0 w1",
        "halves": "😀😀",
        "bytes": "😀😀",
        "reasoning": " w0 w1",
        "whole": " w0 w1",
    }
    short = {"max_new_tokens": 2}
    for name in prompts:
        engine.submit(Request(name, [chat(f"!{name}")], short, stream=True))
    reports = reports_of(engine, len(prompts))
    outcomes = {report.id: report for report in reports if isinstance(report, Outcome)}
    for name, text in prompts.items():
        assert outcomes[name].error is None
        outputs = outcomes[name].outputs
        assert outputs is not None
        assert outputs[0]["text"] == text
        pieces = [report for report in reports if isinstance(report, OutputPiece) and report.id == name]
        assert "".join(piece.text for piece in pieces if not piece.reasoning) == text
        thinking = "".join(piece.text for piece in pieces if piece.reasoning)
        assert thinking == outputs[0].get("reasoning_content", "")
    thought = {
        name: outcome.outputs[0].get("reasoning_content") for name, outcome in outcomes.items() if outcome.outputs
    }
    assert {name: said for name, said in thought.items() if said} == {"reasoning": "hmmhmm", "whole": "hmm"}
    assert outcomes["whole"].usage == {"input_tokens": 1, "output_tokens": 2}


def test_a_server_that_refuses_parameters_of_ours_is_asked_without_them(start: Callable[[Model], OpenAIEngine]) -> None:
    engine = start(settings("--refuse", "max_tokens", "--refuse", "stream_options", "--refuse", "top_k"))
    outcomes = run(engine, Request("a", ["x"], {"max_new_tokens": 2}))
    assert outcomes["a"].outputs == [{"text": " w0 w1", "finish_reason": "length"}]
    assert len(seen(engine)["requests"]) == 3
    run(engine, Request("b", ["x"], {"max_new_tokens": 2}))
    last = seen(engine)["requests"][3:]
    assert [request["body"].keys() for request in last] == [{"model", "prompt", "stream", "max_completion_tokens"}]
    error = run(engine, Request("c", ["x"], {"top_k": 3}))["c"].error  # the request set it
    assert isinstance(error, ServerRefused)
    assert (error.code, error.param, error.type) == ("unsupported_parameter", "top_k", "Error")


def test_a_length_that_nobody_asked_for_fits_the_context(engine: OpenAIEngine) -> None:
    outcomes = run(
        engine,
        Request("fits", ["x"], {"max_new_tokens": 4096, "fit": True}),
        Request("asked", ["x"], {"max_new_tokens": 4096}),
    )
    assert outcomes["fits"].error is None
    assert isinstance(outcomes["asked"].error, ServerRefused)
    assert outcomes["asked"].error.code == "context_length_exceeded"


def test_what_is_to_be_omitted_is_not_sent(start: Callable[[Model], OpenAIEngine]) -> None:
    engine = start(settings(omit=["top_k", "stream"]))
    outcome = run(engine, Request("a", [chat("x")], {"top_k": 3, "max_new_tokens": 1}))["a"]
    assert outcome.outputs == [{"text": " w0", "finish_reason": "length", "reasoning_content": "hmm"}]
    assert seen(engine)["requests"][0]["body"].keys() == {"model", "messages", "max_tokens"}


def test_the_inputs_of_a_job_are_asked_for_together_and_answered_in_order(engine: OpenAIEngine) -> None:
    prompts: list[Any] = ["word " * (n + 1) for n in range(9)]
    outcome = run(engine, Request("a", prompts, {"max_new_tokens": 20, "seed": 7}))["a"]
    assert outcome.outputs is not None
    assert len(outcome.outputs) == 9
    assert outcome.usage == {"input_tokens": sum(range(1, 10)), "output_tokens": 180}
    assert outcome.batch_size == 4
    told = seen(engine)
    assert told["most_running"] == 4
    seeds = {request["body"]["prompt"]: request["body"]["seed"] for request in told["requests"]}
    assert [seeds[prompt] for prompt in prompts] == list(range(7, 16))


def test_who_has_inputs_enough_wants_no_more(engine: OpenAIEngine) -> None:
    assert engine.capacity == 4
    engine.submit(Request("three", ["!hang"] * 3))
    step_until(engine, lambda told: told["running"] == 3)
    assert engine.capacity == 2
    engine.submit(Request("many", ["!hang"] * 3000))
    step_until(engine, lambda told: told["running"] == 4)
    assert engine.capacity == 2
    engine.cancel("many")
    engine.cancel("three")
    reports_of(engine, 2)
    assert engine.capacity == 4


def test_a_request_that_cannot_even_be_sent_has_an_outcome(
    engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a defect of the HTTP client")

    assert engine._client is not None
    monkeypatch.setattr(engine._client._http, "stream", fail)
    error = run(engine, Request("a", ["x", "y"]))["a"].error
    assert type(error) is EngineError
    assert "could not be sent to the server: RuntimeError('a defect of the HTTP client')" in str(error)


def test_connections_are_used_again(engine: OpenAIEngine) -> None:
    client = psutil.Process()
    for name in "abc":
        run(engine, Request(name, ["x"], {"max_new_tokens": 1}))
        assert engine._client is not None
        ports = {c.laddr.port for c in client.net_connections("tcp") if c.raddr and c.status == "ESTABLISHED"}
        ours = engine._client._http.base_url.port
        to_server = {c.laddr.port for c in client.net_connections("tcp") if c.raddr and c.raddr.port == ours}
        assert len(ports & to_server) == 1
        if name == "a":
            first = ports & to_server
    assert ports & to_server == first


def test_a_stream_is_told_in_pieces_and_only_if_asked_for(engine: OpenAIEngine) -> None:
    engine.submit(Request("told", ["x", "y"], {"max_new_tokens": 5}, stream=True))
    engine.submit(Request("untold", ["x"], {"max_new_tokens": 5}))
    reports = reports_of(engine, 2)
    pieces = [report for report in reports if isinstance(report, OutputPiece)]
    assert {piece.id for piece in pieces} == {"told"}
    for index in (0, 1):
        assert "".join(piece.text for piece in pieces if piece.index == index) == " w0 w1 w2 w3 w4"
        assert sum(piece.tokens for piece in pieces if piece.index == index) == 5
    ended_at = next(i for i, report in enumerate(reports) if isinstance(report, Outcome) and report.id == "told")
    assert all(not isinstance(report, OutputPiece) for report in reports[ended_at:])


def test_a_cancelled_request_is_hung_up_on_at_once_and_its_place_is_free(engine: OpenAIEngine) -> None:
    for name in "abcd":
        engine.submit(Request(name, ["x"], {"max_new_tokens": 4000}))
    engine.submit(Request("next", ["x"], {"max_new_tokens": 1}))
    step_until(engine, lambda told: told["running"] == 4)
    for name in "abcd":
        engine.cancel(name)
    outcomes = {report.id: report for report in engine.step(1.0) if isinstance(report, Outcome)}
    assert outcomes.keys() == set("abcd")
    assert all(isinstance(outcome.error, JobCancelled) for outcome in outcomes.values())
    assert run(engine) == {}
    next_one = reports_of(engine, 1)[0]
    assert next_one.id == "next" if isinstance(next_one, Outcome) else False
    told = wait_for(lambda: told if (told := seen(engine))["running"] == 0 else None, "the server to notice")
    assert told["hung_up_on"] == 4


def test_what_is_cancelled_tells_what_it_has_used(engine: OpenAIEngine) -> None:
    engine.submit(Request("a", ["x" * 400], {"max_new_tokens": 4000}, stream=True))
    pieces = 0
    while pieces < 5:
        pieces += sum(isinstance(report, OutputPiece) for report in engine.step(1.0))
    engine.cancel("a")
    outcome = next(report for report in engine.step(1.0) if isinstance(report, Outcome))
    assert 5 <= outcome.usage["output_tokens"] < 4000
    assert 100 <= outcome.usage["input_tokens"] < 400


def test_what_hangs_can_be_cancelled(engine: OpenAIEngine) -> None:
    engine.submit(Request("a", ["!hang"]))
    step_until(engine, lambda told: told["running"] == 1)
    engine.cancel("a")
    [outcome] = reports_of(engine, 1)
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.error, JobCancelled)
    wait_for(lambda: seen(engine)["hung_up_on"] == 1, "the server to notice")


def test_nothing_grows_while_the_server_hangs(engine: OpenAIEngine) -> None:
    """Which is how the watchdog finds out."""
    engine.submit(Request("a", ["!hang"]))
    step_until(engine, lambda told: told["running"] == 1)
    before = engine.progress
    assert engine.step(0.3) == []
    assert engine.progress == before


def test_a_deadline_ends_what_runs_and_what_waits(engine: OpenAIEngine) -> None:
    soon = time.monotonic() + 0.3
    hanging = [Request(name, ["!hang"], deadline=soon) for name in "abcd"]
    waiting = Request("waiting", ["x"], deadline=soon)
    over = Request("over", ["x"], deadline=time.monotonic() - 1)
    later = Request("later", ["x"], deadline=time.monotonic() + 1000)
    outcomes = run(engine, *hanging, waiting, over, later)
    for name in ("a", "b", "c", "d", "waiting", "over"):
        assert isinstance(outcomes[name].error, JobExpired)
    assert outcomes["later"].error is None
    assert "over" not in [request["body"]["prompt"] for request in seen(engine)["requests"]]
    wait_for(lambda: seen(engine)["hung_up_on"] == 4, "the server to notice")


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ("!status 400 9", ServerRefused, "the server refused it: as asked"),
        ("!code", ServerRefused, "the server refused it: maximum context length"),
        ("!surrogate", ServerRefused, "the server refused it: half \ufffd"),
        ('!raw {"choices": [{"delta": 5}]}', EngineError, 'no event of the OpenAI API: {"choices": [{"delta": 5}]}'),
        ('!raw {"choices": [{"index": 1, "text": "x"}]}', EngineError, "no event of the OpenAI API"),
        ('!raw {"choices": [], "usage": {"prompt_tokens": NaN}}', EngineError, "no event of the OpenAI API"),
        ("!status 401 9", EngineError, "the server answered 401: as asked"),
        ("!status 500 9", EngineError, "the server answered 500: as asked"),
        ("!cut", EngineError, "the connection to the server broke"),
        ("!end", EngineError, "ended its answer in the middle"),
        ("!garbage", EngineError, "no event of the OpenAI API: {no JSON"),
        ("!error 400", ServerRefused, "broken in the middle"),
        ("!error 500", EngineError, "broken in the middle"),
        ("!abort", EngineError, "finish_reason = 'abort'"),
    ],
)
def test_what_goes_wrong_with_one_request_ends_that_one(
    engine: OpenAIEngine, prompt: str, error: type[Exception], said: str
) -> None:
    outcomes = run(engine, Request("bad", ["fine", prompt, "!hang"]), Request("good", ["x"] * 3, {"max_new_tokens": 9}))
    assert type(outcomes["bad"].error) is error
    assert said in str(outcomes["bad"].error)
    assert outcomes["good"].error is None
    wait_for(lambda: seen(engine)["running"] == 0, "the rest of the job to be hung up on")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(retry_backoff, "delays", lambda retries: [0.01] * retries)
    outcomes = run(engine, Request("busy", [f"!status {status} 4"]), Request("always", [f"!status {status} 999"]))
    assert outcomes["busy"].error is None
    error = outcomes["always"].error
    assert isinstance(error, ServerBusy)
    assert error.status == status
    assert f"answered {status}: as asked" in str(error)


def test_a_server_that_is_busy_for_longer_than_a_request_may_take_is_not_waited_for(engine: OpenAIEngine) -> None:
    soon = time.monotonic() + 40
    outcomes = run(
        engine,
        Request("long", ["!status 429 999 120"]),
        Request("late", ["!status 503 999 50"], deadline=soon),
        Request("quota", ["!quota"]),
    )
    errors = {name: outcome.error for name, outcome in outcomes.items()}
    told = {
        name: (error.status, error.retry_after_s) for name, error in errors.items() if isinstance(error, ServerBusy)
    }
    assert told == {"long": (429, 120.0), "late": (503, 50.0), "quota": (429, None)}
    assert time.monotonic() < soon


def test_an_engine_whose_requests_wait_for_a_busy_server_is_not_taken_for_hung(engine: OpenAIEngine) -> None:
    engine.submit(Request("a", ["!status 429 999 50"]))
    step_until(engine, lambda told: len(told["requests"]) == 1 and told["running"] == 0)
    assert engine._client is not None
    wait_for(lambda: step(engine, 0.02) == [] and engine._client is not None and engine._client.pausing, "the pause")
    before = engine.progress
    step(engine, 0.02)
    assert engine.progress > before
    engine.cancel("a")
    reports_of(engine, 1)


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_server_that_dies_is_the_end_of_the_engine(engine: OpenAIEngine, when: str) -> None:
    if when == "running":
        engine.submit(Request("other", ["!hang"]))
        step_until(engine, lambda told: told["running"] == 1)
        engine.submit(Request("a", ["!die"]))
    else:
        process_of(engine).kill()
    said = step_until_lost(engine)
    assert "killed by SIGKILL" in said or "its health check /health does not answer 200" in said


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_is_not_well_is_the_end_of_the_engine(
    engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(retry_backoff, "delays", lambda retries: [0.01] * retries)
    engine.submit(Request("a", [f"!sick {status}"]))
    assert "the engine is dead; and its health check /health does not answer 200" in step_until_lost(engine)


def test_the_last_words_of_a_dying_server_cost_no_job_a_retry(engine: OpenAIEngine) -> None:
    """vLLM tells all that ran of its end, each in its stream."""
    engine.submit(Request("a", ["!dying", "x"], {"max_new_tokens": 9}))
    assert "the engine core has ended; and its health check /health does not answer 200" in step_until_lost(engine)


def test_a_server_that_ends_while_it_loads_is_told_with_its_last_words() -> None:
    engine = OpenAIEngine(settings("--fail", "3"), "cpu:0")
    with pytest.raises(
        EngineError, match=r"before it was ready: exit code 3; the end of its log:\nloading \.\.\.\nno such"
    ):
        engine.load()


def test_a_server_that_is_not_ready_in_time_is_told_and_ended() -> None:
    engine = OpenAIEngine(settings(health="/nowhere", start_s=1.0), "cpu:0")
    with pytest.raises(
        EngineError,
        match=r"start_s = 1 s: .* did not answer 200 \(/nowhere answered 404\); the end of its log:\nserving as (\d+)",
    ) as told:
        engine.load()
    assert not psutil.pid_exists(int(str(told.value).split("serving as ")[1].split()[0]))


def test_a_stranger_on_the_port_is_not_taken_for_the_server(
    running_server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port was taken between choosing and binding; the server here does not even end for it."""
    url, stranger = running_server
    port = int(url.removesuffix("/v1").rpartition(":")[2])
    wait_for(lambda: listens(port), "the stranger")
    monkeypatch.setattr("workers.engines.openai.engine.free_port", lambda: port)
    waits = [sys.executable, "-c", "import threading; threading.Event().wait()", "{port}"]
    engine = OpenAIEngine(
        Model.model_validate({"engine": "openai", "options": {"command": waits, "start_s": 1}}), "cpu:0"
    )
    with pytest.raises(
        EngineError, match=rf"process {stranger.pid} \(.*\), which this worker did not start, listens on port"
    ):
        engine.load()
    assert httpx2.get(f"http://127.0.0.1:{port}/seen").json()["requests"] == []


def test_a_server_that_a_daemon_starts_is_refused_with_the_cure(
    running_server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docker does: the command is only a client, and the server no descendant of the worker."""
    url, _ = running_server
    port = int(url.removesuffix("/v1").rpartition(":")[2])
    wait_for(lambda: listens(port), "the server")
    monkeypatch.setattr("workers.engines.openai.engine.free_port", lambda: port)
    monkeypatch.setattr("workers.engines.openai.readiness.STRANGER_S", 0.1)
    client_of_daemon = [sys.executable, "-c", "import threading; threading.Event().wait()", "{port}"]
    engine = OpenAIEngine(Model.model_validate({"engine": "openai", "options": {"command": client_of_daemon}}), "cpu:0")
    with pytest.raises(EngineError, match=r"as docker run does: .* start it yourself, and give options\.url instead"):
        engine.load()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_a_program_that_is_not_there_is_named() -> None:
    engine = OpenAIEngine(Model(engine="openai", options={"command": ["no-such-server", "{port}"]}), "cpu:0")
    with pytest.raises(ConfigError, match="no program 'no-such-server'"):
        engine.load()


def test_the_server_sees_the_workers_device_and_its_own_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    caplog.set_level("INFO")
    engine = OpenAIEngine(settings(env={"GREETING": "hello"}), "cuda:3")
    engine.load()
    try:
        environment = process_of(engine).environ()
    finally:
        engine.close()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["GREETING"]) == ("3", "hello")
    assert "on 3" in caplog.text  # what the server writes is in the worker's log


def test_embeddings(start: Callable[[Model], OpenAIEngine]) -> None:
    engine = start(settings(task="embeddings"))
    texts: list[Any] = ["x" * (n + 1) for n in range(130)]
    outcomes = run(
        engine,
        Request("many", texts),
        Request("bad", ["fine", {"no": "text"}]),
        Request("parameters", ["x"], {"seed": 1}),
    )
    assert outcomes["many"].outputs == [[float(n + 1), 1.0] for n in range(130)]
    assert outcomes["many"].usage == {"input_tokens": 130}
    assert isinstance(outcomes["bad"].error, InvalidJob)
    assert "parameters.seed: no such parameter; allowed: dimensions" in str(outcomes["parameters"].error)
    misdeeds = ["!nan", "!texts", "!lengths", "!few", "!indices"]
    bad = run(engine, *(Request(misdeed, [misdeed, "x"]) for misdeed in misdeeds))
    assert {name: type(outcome.error) for name, outcome in bad.items()} == dict.fromkeys(misdeeds, EngineError)
    assert run(engine, Request("base64", ["!base64"]))["base64"].outputs == [[7.0, 1.0]]
    assert sorted(len(request["body"]["input"]) for request in seen(engine)["requests"]) == [
        1,
        *[2] * 6,
        64,
        64,
    ]  # sent at once


@pytest.fixture
def running_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    with subprocess.Popen([sys.executable, STUB, "--port", str(port)]) as process:
        yield f"http://127.0.0.1:{port}/v1", process
        process.kill()


def test_a_server_that_runs_already_is_used_and_left_running(
    start: Callable[[Model], OpenAIEngine], running_server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, process = running_server
    monkeypatch.setenv("STUB_KEY", "sesame")
    engine = start(Model(engine="openai", options={"url": url, "model": "stub", "api_key_env": "STUB_KEY"}))
    assert run(engine, Request("a", ["x"]))["a"].error is None
    assert seen(engine)["requests"][0]["key"] == "Bearer sesame"
    engine.close()
    assert process.poll() is None


def test_a_server_without_a_health_check_of_its_own_is_asked_for_its_models(
    start: Callable[[Model], OpenAIEngine],
) -> None:
    engine = start(settings("--no-health"))
    assert run(engine, Request("a", ["!status 500 9"]))["a"].error is not None
    process_of(engine).kill()
    assert "killed by SIGKILL" in step_until_lost(engine)


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_file_descriptors_requests_wait_and_the_engine_is_not_lost(
    engine: OpenAIEngine, few_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_backoff, "delays", lambda retries: [0.05] * retries)
    engine.submit(Request("connected", ["!hang"]))
    step_until(engine, lambda told: told["running"] == 1)
    few_files(max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 8)
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        engine.submit(Request("fails", ["x"]))
        [outcome] = [report for report in reports_of(engine, 1) if isinstance(report, Outcome)]
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert type(outcome.error) is EngineError
    assert "used up its" in str(outcome.error)
    assert run(engine, Request("after", ["x"]))["after"].error is None
    engine.cancel("connected")
    reports_of(engine, 1)


def test_more_connections_than_there_may_be_open_files_are_refused(few_files: Callable[[int], None]) -> None:
    few_files(512)
    engine = OpenAIEngine(Model(engine="openai", max_concurrency=500, options={"url": "http://x"}), "cpu:0")
    with pytest.raises(ConfigError, match=r"max_concurrency = 500 takes up to 628 open files, and the limit"):
        engine.load()


def test_a_server_elsewhere_that_goes_is_the_end_of_the_engine(
    start: Callable[[Model], OpenAIEngine], running_server: tuple[str, Any]
) -> None:
    url, process = running_server
    engine = start(Model(engine="openai", options={"url": url}))
    process.kill()
    process.wait()
    engine.submit(Request("a", ["x"]))
    assert "the connection to the server broke" in step_until_lost(engine)


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_KEY", raising=False)
    engine = OpenAIEngine(Model(engine="openai", options={"url": "http://x", "api_key_env": "STUB_KEY"}), "cpu:0")
    with pytest.raises(ConfigError, match="the environment has no STUB_KEY"):
        engine.load()


def family(mark: str) -> list[psutil.Process]:
    """The processes that live with this in their environment: a server, what it started, and its lifeline."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("STUB_FAMILY") == mark and running(process):
                found.append(process)
    return found


@pytest.mark.parametrize("started", ["--child", "--daemon"])
def test_what_a_server_has_started_ends_with_it_even_if_it_ignores_sigterm(started: str, tmp_path: Path) -> None:
    engine = OpenAIEngine(settings(started, stop_s=0.3, env={"STUB_FAMILY": str(tmp_path)}), "cpu:0")
    engine.load()
    try:
        assert len(family(str(tmp_path))) == 3  # the lifeline, the server, and its child
    finally:
        engine.close()
    assert family(str(tmp_path)) == []


@pytest.mark.parametrize("started", ["--child", "--daemon"])
def test_the_server_does_not_outlive_a_worker_that_is_killed(started: str, tmp_path: Path) -> None:
    options = settings(started, stop_s=0.3, env={"STUB_FAMILY": str(tmp_path)}).options.model_dump()
    program = (
        "import sys, threading; from producer.contract.fleet.fleet_schema import Model; "
        "from workers.engines.openai.engine import *; "
        f"engine = OpenAIEngine(Model(engine='openai', options={options!r}), 'cpu:0'); "
        "engine.load(); print('ready', flush=True); threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert len(family(str(tmp_path))) == 3
        os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not family(str(tmp_path)), "the server to end")


def running(process: psutil.Process) -> bool:
    """Whether it runs; an orphan that has ended may stay a zombie where no process collects these."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_that_dies_loses_its_worker_and_the_job_runs_on_the_next(
    redis: object, server: deploy.machine.server.Server, make_fleet: Callable[[str, str], Fleet]
) -> None:
    """The autoscaler, here this test, starts another one."""
    told_command = json.dumps(command("--token-s", "0.05"))
    fleet = make_fleet(server.url, f'[models.m]\nengine = "openai"\noptions = {{ command = {told_command} }}')
    worker = fleet.worker("m", "first")
    job = fleet.client.submit("m", "some words", parameters={"max_new_tokens": 40}, stream=True)
    told = fleet.client.stream(job, timeout=DEADLINE_S)
    first = next(told)
    stub = next(one for one in psutil.Process(worker.pid).children(recursive=True) if not one.children())
    stub.kill()
    assert worker.wait(DEADLINE_S) == EXIT_ENGINE_LOST
    assert "the engine of model m is lost" in fleet.log("first").read_text()
    fleet.worker("m", "second")
    whole = "".join(f" w{number}" for number in range(40))
    assert fleet.client.result(job, timeout=DEADLINE_S).output == {"text": whole, "finish_reason": "length"}
    assert first.text + "".join(piece.text for piece in told) == whole  # no word twice
