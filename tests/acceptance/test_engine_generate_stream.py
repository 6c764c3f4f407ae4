"""What a streaming request tells while it runs: pieces that are its text, whatever happens to the batch."""

from collections.abc import Iterator

import pytest
from pydantic import JsonValue

from generating import Told, drive, left_empty, loaded, run, stream, text
from producer.contract.errors import EngineError, JobCancelled
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

EMOJI: dict[str, JsonValue] = {
    "messages": [
        {"role": "user", "content": "Repeat exactly: \N{SHRUG}\N{ROCKET}\N{PARTY POPPER} caf\u00e9 \u4f60\u597d"}
    ]
}


@pytest.fixture(scope="module")
def loaded_engine() -> Iterator[GenerateEngine]:
    with loaded() as engine:
        yield engine


@pytest.fixture
def engine(loaded_engine: GenerateEngine) -> Iterator[GenerateEngine]:
    with left_empty(loaded_engine) as engine:
        yield engine


def assert_pieces_are_the_text(told: Told, name: str, index: int = 0) -> None:
    assert told.text(name, index) == text(told.outcomes[name], index)


@pytest.mark.slow
def test_pieces_come_token_by_token_and_are_the_text(engine: GenerateEngine) -> None:
    warm = {"temperature": 1.5, "max_new_tokens": 40}
    told = stream(
        engine,
        Request("greedy", ["One, two, three,"], {"max_new_tokens": 20}, stream=True),
        Request("warm", ["Once upon a time"], warm, stream=True),
        Request("emoji", [EMOJI], {"max_new_tokens": 40}, stream=True),
        Request("silent", ["One, two, three,"], {"max_new_tokens": 20}),
    )
    assert {name for name, _ in told.pieces} == {"greedy", "warm", "emoji"}
    for name in ("greedy", "warm", "emoji"):
        assert_pieces_are_the_text(told, name)
    assert told.text("emoji") == text(run(engine, Request("a", [EMOJI], {"max_new_tokens": 40}))["a"])
    assert not told.text("emoji").isascii()
    assert len(told.pieces["greedy", 0]) > 15
    assert text(told.outcomes["silent"]) == told.text("greedy")
    assert sum(piece.tokens for piece in told.pieces["greedy", 0]) == 20


def test_pieces_come_while_it_runs(engine: GenerateEngine) -> None:
    engine.submit(Request("a", ["Once upon a time"], {"max_new_tokens": 1500}, stream=True))
    told = Told()
    while len(told.pieces.get(("a", 0), [])) < 5:
        told.step(engine)
    assert not told.outcomes
    engine.cancel("a")
    while not told.outcomes:
        told.step(engine)
    assert isinstance(told.outcomes["a"].error, JobCancelled)


def test_the_inputs_of_one_request_stream_side_by_side(engine: GenerateEngine) -> None:
    inputs = ["The capital of France is", "One, two, three,", "The opposite of hot is", "Water boils at", "def f(n):"]
    told = stream(engine, Request("a", list(inputs), {"max_new_tokens": 12}, stream=True))
    for index in range(len(inputs)):
        assert_pieces_are_the_text(told, "a", index)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [" six", "six, sev", ["ve, six, seven!", ", seven"], "not in there"])
def test_what_a_stop_string_cuts_is_never_told(engine: GenerateEngine, stop: str | list[str]) -> None:
    told = stream(engine, Request("a", ["One, two, three,"], {"stop": stop, "max_new_tokens": 16}, stream=True))
    assert_pieces_are_the_text(told, "a")
    plain = text(run(engine, Request("a", ["One, two, three,"], {"stop": stop, "max_new_tokens": 16}))["a"])
    assert told.text("a") == plain


def kill_the_batch(engine: GenerateEngine, told: Told, pieces: int) -> None:
    """Poison the batch once ``pieces`` pieces of request ``a`` were told."""
    while len(told.pieces.get(("a", 0), [])) < pieces:
        told.step(engine)
    engine._batch.add("poison", [10**6], 5, (), None)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [{}, {"temperature": 1.3}, {"temperature": 1.3, "seed": 7}])
def test_a_batch_that_dies_makes_nobody_hear_a_word_twice(engine: GenerateEngine, parameters: dict[str, float]) -> None:
    """It runs again, and draws what it drew before, also without a seed of the producer's."""
    batch = engine._batch
    engine.submit(Request("a", ["Once upon a time"], {**parameters, "max_new_tokens": 24}, stream=True))
    told = Told()
    kill_the_batch(engine, told, 5)
    while not told.outcomes:
        told.step(engine)
    assert engine._batch is not batch
    assert_pieces_are_the_text(told, "a")
    assert sum(piece.tokens for piece in told.pieces["a", 0]) <= 24


def test_who_would_have_to_take_a_word_back_fails_instead(
    engine: GenerateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.submit(Request("a", ["Once upon a time"], {"temperature": 1.5, "max_new_tokens": 24}, stream=True))
    told = Told()
    kill_the_batch(engine, told, 5)
    [sequence] = engine._admission.running.values()
    monkeypatch.setattr(sequence, "_told", {None: "something else"})
    while not told.outcomes:
        told.step(engine)
    error = told.outcomes["a"].error
    assert isinstance(error, EngineError)  # so that the job is tried again
    assert "became another text" in str(error)


def test_no_text_no_piece(engine: GenerateEngine) -> None:
    told = stream(engine, Request("a", ["One, two,"], {"stop": " ", "max_new_tokens": 4}, stream=True))
    assert told.pieces == {}
    assert text(told.outcomes["a"]) == ""


def test_withdrawn_and_expired_requests_stream_nothing_more(engine: GenerateEngine) -> None:
    for name in "abcd":
        engine.submit(Request(name, ["Once upon a time"], {"max_new_tokens": 12}, stream=True))
    engine.submit(Request("late", ["Once upon a time"], {"max_new_tokens": 12}, deadline=0.0, stream=True))
    engine.submit(Request("waiting", ["Once upon a time"], {"max_new_tokens": 12}, stream=True))
    engine.withdraw()
    told = drive(engine, 6)
    assert {name for name, outcome in told.outcomes.items() if outcome.error} == {*"abcd", "late", "waiting"}
    assert told.pieces == {}
