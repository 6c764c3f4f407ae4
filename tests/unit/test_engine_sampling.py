"""The parameters of a generation, and the choice of a token by them."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from producer.contract.errors import InvalidJob
from workers.engines.generation.choice.generate_parameters import GenerateParameters
from workers.engines.generation.choice.rows import RowChoice, TokenChoice
from workers.engines.generation.choice.sampling import TokenSampler

LOGITS = torch.tensor([0.0, 3.0, 2.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("fields", "sampled"),
    [
        ({}, False),
        ({"seed": 1}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0.0, "do_sample": True}, False),
        ({"temperature": 1e-46, "do_sample": True}, False),
        ({"temperature": 1e-38}, False),
        ({"temperature": 9e-6}, False),
        ({"temperature": 1e-5}, True),
        ({"temperature": 0.7}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 5}, True),
        ({"do_sample": True}, True),
        ({"temperature": 0.7, "do_sample": False}, False),
    ],
)
def test_greedy_unless_sampling_is_asked_for(fields: dict[str, Any], sampled: bool) -> None:
    assert GenerateParameters.parse(fields).do_sample is sampled


def test_one_stop_or_several() -> None:
    assert GenerateParameters.parse({"stop": "a"}).stop == ["a"]
    assert GenerateParameters.parse({"stop": ["a", "b"]}).stop == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"most": 5}, r"parameters.most = 5: no such parameter; allowed: .*max_new_tokens"),
        ({"min_p": 1.5}, r"parameters.min_p = 1.5"),
        ({"logit_bias": {"x": 1}}, r"parameters.logit_bias.x"),
        ({"logit_bias": {"7": 101}}, r"parameters.logit_bias.* = 101"),
        ({"stop_token_ids": [-1]}, r"parameters.stop_token_ids.0 = -1"),
        ({"min_tokens": 5, "max_tokens": 4}, r"min_tokens is 5; allowed: up to max_new_tokens = 4"),
        ({"max_new_tokens": -1}, r"parameters.max_new_tokens = -1: .*greater than or equal to 0"),
        ({"max_new_tokens": 0}, r"max_new_tokens is 0; allowed without echo or prompt_logprobs: at least 1"),
        ({"max_new_tokens": "5"}, r"parameters.max_new_tokens = '5': .*integer"),
        ({"temperature": -0.1}, r"parameters.temperature = -0.1: .*greater than or equal to 0"),
        ({"temperature": float("nan")}, r"parameters.temperature = nan"),
        ({"top_p": 0}, r"parameters.top_p = 0: .*greater than 0"),
        ({"top_p": 1.1}, r"parameters.top_p = 1.1: .*less than or equal to 1"),
        ({"top_k": -1}, r"parameters.top_k = -1"),
        ({"top_k": True}, r"parameters.top_k = True"),
        ({"seed": -1}, r"parameters.seed = -1"),
        ({"stop": [""]}, r"parameters.stop.0 = ''"),
        ({"stop": 3}, r"parameters.stop = 3"),
        ({"do_sample": "yes"}, r"parameters.do_sample = 'yes'"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        GenerateParameters.parse(fields)


def test_names_of_other_servers_are_understood() -> None:
    parameters = GenerateParameters.parse({"max_tokens": 5, "logit_bias": {"7": 1}, "seed": None})
    assert (parameters.max_new_tokens, parameters.logit_bias, parameters.seed) == (5, {7: 1.0}, None)


def draws(count: int = 400, **fields: Any) -> Counter[int]:
    sampler = TokenSampler(GenerateParameters.parse({"seed": 1, "do_sample": True, **fields}), 0)
    return Counter(sampler.draw(LOGITS) for _ in range(count))


def test_draws_follow_the_softmax() -> None:
    found = draws(4000)
    for token, probability in enumerate(LOGITS.softmax(-1).tolist()):
        assert found[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(top_k=2)) == {1, 2}
    assert set(draws(top_k=1)) == {1}
    assert set(draws(top_k=99)) == set(draws())


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    # Probabilities of the likeliest: 0.64, 0.24, 0.09.
    assert set(draws(top_p=0.5)) == {1}
    assert set(draws(top_p=0.7)) == {1, 2}
    assert set(draws(top_p=0.9)) == {1, 2, 4}


def test_a_low_temperature_is_nearly_greedy() -> None:
    assert set(draws(temperature=0.01)) == {1}
    assert set(draws(temperature=1e-5)) == {1}
    assert len(draws(temperature=50.0)) == len(LOGITS)


def test_a_seed_decides_and_inputs_of_one_job_differ() -> None:
    parameters = GenerateParameters.parse({"seed": 7, "temperature": 2.0})

    def tokens(index: int) -> list[int]:
        sampler = TokenSampler(parameters, index)
        return [sampler.draw(LOGITS) for _ in range(50)]

    assert tokens(0) == tokens(0)
    assert tokens(0) != tokens(1)


def states(*samplers: TokenSampler | None) -> list[Any]:
    choices = [{} if sampler is None else {"choice": TokenChoice(sampler=sampler)} for sampler in samplers]
    return [
        SimpleNamespace(
            state=SimpleNamespace(
                request_id=str(number), logit_processor_kwargs=choice, generated_tokens=[], _true_initial_tokens=0
            )
        )
        for number, choice in enumerate(choices)
    ]


def test_rows_of_one_batch_keep_to_themselves() -> None:
    sampler = TokenSampler(GenerateParameters.parse({"top_k": 1}), 0)
    processor = RowChoice()
    arguments = processor.prepare_tensor_args(states(None, sampler, None))
    before = torch.stack([LOGITS, LOGITS.flip(0), -LOGITS])
    after = processor(before.clone(), arguments)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[2], before[2])
    assert after.argmax(-1).tolist() == [1, 3, 3]
    assert processor.not_finite == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_told_and_nothing_is_drawn_of_them(value: float) -> None:
    sampler = TokenSampler(GenerateParameters.parse({"temperature": 1.0, "seed": 1}), 0)
    processor = RowChoice()
    arguments = processor.prepare_tensor_args(states(sampler, None, sampler, None, None))
    scores = torch.stack([LOGITS] * 5)
    scores[0, 3] = scores[1, 2] = value
    scores[4, :2] = float("-inf")  # tokens that a model never says
    processor(scores, arguments)
    assert processor.not_finite == {"0", "1"}
