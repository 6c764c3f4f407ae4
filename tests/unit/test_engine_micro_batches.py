"""Micro-batches, with an encoder that counts letters: how jobs share batches, and how each is answered whole."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from producer.contract.errors import EngineError, InvalidJob, JobCancelled, JobExpired
from producer.contract.fleet.fleet_schema import Model
from scheduler.window.batch_cost import LearnedCost
from workers.engines.encoders.backlog import SLICE_CHARS, Features, Text, Unreadable
from workers.engines.encoders.micro_batches import MicroBatchEngine, OutOfMemory
from workers.engines.protocol import Batch, Outcome, Request

ROWS = 4
NOT_FINITE = 17
"""The length of a word of which the model makes no number."""


class Counter:
    """Answers each word with its length, which is also its number of tokens."""

    max_batch_tokens = 4096

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.ran: list[list[int]] = []
        self.before: Callable[[list[int]], None] = lambda _: None
        """Called with the lengths of a batch before it runs; may fail."""

    def load(self) -> None:
        pass

    def texts(self, request: Request) -> list[Text]:
        if not request.inputs:
            raise InvalidJob("no words")
        return [str(item) for item in request.inputs]

    def warm_up_text(self) -> Text:
        return "warm up"

    def encode(self, texts: list[Text]) -> list[Features | Unreadable]:
        self.encoded.append(len(texts))
        return [Unreadable("is Greek") if text == "Greek" else {"input_ids": [0] * len(text)} for text in texts]

    def forward(self, rows: list[Features]) -> list[Any]:
        lengths = [len(row["input_ids"]) for row in rows]
        self.before(lengths)
        self.ran.append(lengths)
        return [None if length == NOT_FINITE else length for length in lengths]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:  # noqa: ARG002  one value is one output
        return values

    def close(self) -> None:
        pass


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def engine(counter: Counter) -> MicroBatchEngine:
    engine = MicroBatchEngine(Model(engine="embed", source="x", max_concurrency=ROWS), counter)
    engine.load()
    counter.encoded.clear()
    counter.ran.clear()
    return engine


def words(*lengths: int) -> list[Any]:
    return ["x" * length for length in lengths]


def ended(engine: MicroBatchEngine) -> dict[str, Outcome]:
    """What one step made final."""
    return {report.id: report for report in engine.step(0.0) if isinstance(report, Outcome)}


def run(engine: MicroBatchEngine, *requests: Request) -> dict[str, Outcome]:
    for request in requests:
        engine.submit(request)
    outcomes: dict[str, Outcome] = {}
    for _ in range(10_000):
        outcomes |= ended(engine)
        if len(outcomes) == len(requests):
            return outcomes
    raise AssertionError(f"only {sorted(outcomes)} have an outcome")


def test_a_large_job_is_spread_over_batches_that_others_share(engine: MicroBatchEngine, counter: Counter) -> None:
    outcomes = run(engine, Request("a", words(5)), Request("large", words(*[5] * 9)), Request("b", words(5, 5)))
    assert [len(batch) for batch in counter.ran] == [4, 4, 4]
    assert outcomes["large"].outputs == [5] * 9
    assert outcomes["large"].usage == {"input_tokens": 45}
    assert outcomes["a"].batch_size == 4


def test_each_output_is_that_of_its_input_whatever_order_they_ran_in(engine: MicroBatchEngine) -> None:
    lengths = [3, 90, 4, 80, 5, 3, 91, 7, 100]
    outcomes = run(engine, Request("a", words(*lengths)), Request("b", words(*lengths[::-1])))
    assert outcomes["a"].outputs == lengths
    assert outcomes["b"].outputs == lengths[::-1]


def test_it_tells_what_its_batches_cost(engine: MicroBatchEngine) -> None:
    engine.submit(Request("a", words(3, 3)))
    engine.submit(Request("b", words(3)))
    [batch] = [report for report in engine.step(0.0) if isinstance(report, Batch)]
    assert (batch.requests, batch.rows, batch.tokens) == (2, 3, 9)
    assert batch.ran_s > 0


def test_ten_thousand_inputs_do_not_hold_up_the_batch_before_them(engine: MicroBatchEngine, counter: Counter) -> None:
    engine.submit(Request("first", words(3)))
    engine.submit(Request("large", words(*[3] * 10_000)))
    assert ended(engine).keys() == {"first"}
    assert sum(counter.encoded) <= engine._packing.look_ahead
    ended(engine)
    assert counter.encoded[1:] == [ROWS]  # from now on, as many rows as have run


def test_a_small_job_does_not_wait_until_a_large_one_has_run(engine: MicroBatchEngine, counter: Counter) -> None:
    engine.submit(Request("large", words(*[3] * 5000)))
    engine.submit(Request("small", words(3)))
    while "small" not in ended(engine):
        pass
    assert sum(map(len, counter.ran)) < 200
    assert len(engine._backlog) > 4000


def test_a_single_text_that_comes_while_a_large_job_runs_is_in_the_next_batch_or_two(
    engine: MicroBatchEngine, counter: Counter
) -> None:
    engine.submit(Request("large", words(*[3] * 5000)))
    for _ in range(10):
        ended(engine)
    assert engine.capacity >= 2, "there is room to claim another job"
    ran = len(counter.ran)
    engine.submit(Request("small", words(90)))  # of another length, so that it does not suit the others' batches
    while "small" not in ended(engine):
        pass
    assert len(counter.ran) - ran <= 2


def test_long_texts_are_encoded_a_few_at_a_time(engine: MicroBatchEngine, counter: Counter) -> None:
    outcomes = run(engine, Request("a", ["x" * SLICE_CHARS] * 3))
    assert outcomes["a"].outputs == [SLICE_CHARS] * 3
    assert counter.encoded == [1, 1, 1]


def test_capacity_is_counted_in_inputs(engine: MicroBatchEngine) -> None:
    assert engine.capacity == 2 * ROWS
    engine.submit(Request("a", words(*[3] * 9)))
    ended(engine)
    assert engine.capacity == 1 + 1  # the one, with five inputs left, and room for three more: another like it
    engine.submit(Request("b", words(*[3] * 9)))
    engine.submit(Request("c", words(*[3] * 9)))
    ended(engine)
    assert engine.capacity == 0
    while engine._jobs:
        ended(engine)
    assert engine.capacity == 1  # the usual job fills more than two batches by itself


def test_what_is_being_encoded_counts_too(
    engine: MicroBatchEngine, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread asks, and would find room for jobs that have to wait."""
    seen: list[int] = []
    encode = counter.encode

    def look(texts: list[Text]) -> list[Features | Unreadable]:
        seen.append(engine.capacity)
        return encode(texts)

    monkeypatch.setattr(counter, "encode", look)
    run(engine, Request("a", words(*[3] * 100)))
    assert seen[0] == 1 + 1  # the large one, and another


def test_a_large_job_now_and_then_is_not_the_usual(engine: MicroBatchEngine) -> None:
    for number in range(30):
        run(engine, Request(str(number), words(*[3] * (500 if number % 3 == 0 else 1))))
    assert engine.capacity == 2 * ROWS


@pytest.mark.parametrize("encoded", [True, False])
def test_cancelled_between_two_batches_nothing_of_it_is_left(engine: MicroBatchEngine, encoded: bool) -> None:
    engine.submit(Request("a", words(*[3] * (9 if encoded else 2000))))
    assert ended(engine) == {}  # one batch of several has run
    engine.cancel("a")
    [outcome] = engine.step(0.0)
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.error, JobCancelled)
    assert len(engine._backlog) == 0


def test_cancelled_while_its_last_batch_runs(engine: MicroBatchEngine, counter: Counter) -> None:
    counter.before = lambda _: engine.cancel("a")
    engine.submit(Request("a", words(3)))
    engine.submit(Request("b", words(3)))
    outcomes = ended(engine)
    assert isinstance(outcomes["a"].error, JobCancelled)
    assert outcomes["b"].error is None


def test_what_is_too_late_is_not_run(engine: MicroBatchEngine, counter: Counter) -> None:
    engine.submit(Request("late", words(3), deadline=time.monotonic()))
    engine.submit(Request("early", words(3), deadline=time.monotonic() + 60))
    outcomes = ended(engine)
    assert isinstance(outcomes["late"].error, JobExpired)
    assert outcomes["early"].outputs == [3]
    assert counter.ran == [[3]]


@pytest.mark.parametrize("inputs", [1, 2000])
def test_a_deadline_that_passes_while_a_batch_runs_ends_the_job_with_it(
    engine: MicroBatchEngine, counter: Counter, inputs: int
) -> None:
    due = time.monotonic() + 60.0
    engine.submit(Request("due", words(*[3] * inputs), deadline=due))

    def take_too_long(lengths: list[int]) -> None:
        [job] = engine._jobs.values()
        job.request = Request("due", [], deadline=time.monotonic())

    counter.before = take_too_long
    assert isinstance(ended(engine)["due"].error, JobExpired)
    assert len(engine._backlog) == 0


def test_the_urgent_one_runs_before_older_ones_that_suit_each_other(
    engine: MicroBatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = LearnedCost()
    slow.learn(1000, 1000, 100.0)
    monkeypatch.setattr(engine, "_token_cost", slow)
    for number in range(4):
        engine.submit(Request(str(number), words(250)))
    engine.submit(Request("urgent", words(1), deadline=time.monotonic() + 60))
    assert ended(engine).keys() == {"urgent"}
    assert ended(engine).keys() == {"0", "1", "2", "3"}


def test_an_input_that_fails_on_the_device_fails_alone(engine: MicroBatchEngine, counter: Counter) -> None:
    def fail(lengths: list[int]) -> None:
        if 13 in lengths:
            raise IndexError("an unlucky number")

    counter.before = fail
    outcomes = run(engine, Request("a", words(12)), Request("bad", words(12, 13)), Request("b", words(12)))
    assert isinstance(outcomes["bad"].error, EngineError)
    assert "text 1 failed on the device: an unlucky number" in str(outcomes["bad"].error)
    assert outcomes["a"].outputs == outcomes["b"].outputs == [12]


def test_what_is_not_finite_is_an_error_of_its_job_alone(engine: MicroBatchEngine) -> None:
    outcomes = run(engine, Request("a", words(16)), Request("bad", words(16, NOT_FINITE)), Request("b", words(16)))
    assert type(outcomes["bad"].error) is EngineError
    assert "for text 1 the model outputs NaN or infinite numbers" in str(outcomes["bad"].error)
    assert outcomes["bad"].outputs is None
    assert outcomes["a"].outputs == outcomes["b"].outputs == [16]


def test_a_model_that_makes_no_numbers_is_not_loaded(counter: Counter) -> None:
    counter.forward = lambda rows: [None] * len(rows)  # type: ignore[method-assign]  # that is the test
    with pytest.raises(EngineError, match=r"NaN or infinite numbers: if options.dtype is float16"):
        MicroBatchEngine(Model(engine="embed", source="x"), counter).load()


@pytest.mark.parametrize("place", [0, 1, 2500])
def test_what_cannot_be_read_is_an_error_of_its_job_alone(engine: MicroBatchEngine, place: int) -> None:
    inputs: list[Any] = words(*[3] * 3000)
    inputs[place] = "Greek"
    outcomes = run(engine, Request("a", words(3)), Request("bad", inputs), Request("b", words(3)))
    assert type(outcomes["bad"].error) is InvalidJob
    assert str(outcomes["bad"].error) == f"text {place} is Greek"
    assert outcomes["a"].outputs == outcomes["b"].outputs == [3]
    assert len(engine._backlog) == 0


def test_many_that_cannot_be_read_leave_nothing_to_run(engine: MicroBatchEngine) -> None:
    outcomes = run(engine, *(Request(str(number), ["Greek", "Greek"]) for number in range(2000)))
    assert all(isinstance(outcome.error, InvalidJob) for outcome in outcomes.values())
    assert len(engine._backlog) == 0


def test_out_of_memory_halves_the_batch_and_is_remembered(engine: MicroBatchEngine, counter: Counter) -> None:
    tried: list[int] = []

    def small_device(lengths: list[int]) -> None:
        tried.append(len(lengths))
        if len(lengths) > 2:
            raise OutOfMemory("a device with room for two")

    counter.before = small_device
    for _ in range(2):
        outcomes = run(engine, *(Request(str(number), words(5)) for number in range(4)))
        assert all(outcome.outputs == [5] for outcome in outcomes.values())
    assert tried == [4, 2, 2, 2, 2]  # the second time it did not try four


def test_a_failed_pass_keeps_nothing_of_the_device(engine: MicroBatchEngine, counter: Counter) -> None:
    """Its tensors would stay in the frames that a traceback holds, and the halves would not fit either."""

    class Tensor:
        alive = 0

        def __init__(self) -> None:
            Tensor.alive += 1

        def __del__(self) -> None:
            Tensor.alive -= 1

    def fail(lengths: list[int]) -> None:
        assert Tensor.alive == 0
        tensor = Tensor()
        if len(lengths) > 1:
            raise OutOfMemory(f"no room beside {tensor}")

    counter.before = fail
    run(engine, Request("a", words(5, 5, 5, 5)))


def test_a_device_that_fails_at_everything_is_lost(engine: MicroBatchEngine, counter: Counter) -> None:
    def fail(lengths: list[int]) -> None:
        raise RuntimeError("the device fell off the bus")

    counter.before = fail
    engine.submit(Request("a", words(3)))
    with pytest.raises(RuntimeError, match="fell off the bus"):
        engine.step(0.0)
