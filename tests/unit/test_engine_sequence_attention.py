"""Attention of each sequence to its own keys, beside attention to all keys with a mask."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config
from transformers.generation.continuous_batching.utils import build_attention_mask

from workers.engines.generation.sequence_attention import attend, serves

KEY_HEADS, GROUPS, WIDTH = 2, 3, 8
SEQUENCES = {
    "the next tokens of sequences": [(1, 5), (1, 1), (1, 40)],
    "whole prompts": [(7, 7), (3, 3)],
    "a later piece of a prompt": [(4, 20)],
    "all of these": [(1, 5), (7, 7), (4, 20), (1, 9), (2, 3)],
}
"""Of each sequence the new tokens and all tokens."""


def starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_it_is_what_a_mask_makes_of_all_keys(sequences: list[tuple[int, int]]) -> None:
    new, tokens = ([length[side] for length in sequences] for side in (0, 1))
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(1, KEY_HEADS * GROUPS, sum(new), WIDTH, generator=draw)
    key, value = (torch.randn(1, KEY_HEADS, sum(tokens), WIDTH, generator=draw) for _ in "kv")
    mask = torch.full((1, 1, sum(new), sum(tokens)), torch.finfo(torch.float32).min)
    build_attention_mask(mask, starts(new).tolist(), starts(tokens).tolist())
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(GROUPS, 1), value.repeat_interleave(GROUPS, 1), attn_mask=mask, scale=0.3
    ).transpose(1, 2)

    def update(**given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        given["kwargs"]["cu_seq_lens_k"] = given["kwargs"]["cu_seq_lens_k"]["full_attention"]
        return key, value

    output, _ = attend(
        SimpleNamespace(layer_idx=0, num_key_value_groups=GROUPS),  # type: ignore[arg-type]  # a stand-in
        query,
        key,
        value,
        None,
        cache=SimpleNamespace(update=update),
        cu_seq_lens_q=starts(new),
        cu_seq_lens_k={"full_attention": starts(tokens)},
        scaling=0.3,
        is_causal=True,
    )
    assert torch.allclose(output, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "device", "served"),
    [
        (LlamaConfig(), "cpu", True),
        (Qwen2Config(), "cpu", True),
        (LlamaConfig(), "cuda", False),
        (MistralConfig(sliding_window=64), "cpu", False),
        (Qwen2Config(use_sliding_window=True, max_window_layers=4), "cpu", False),
    ],
)
def test_a_gpu_and_windows_are_left_to_transformers(config: PretrainedConfig, device: str, served: bool) -> None:
    assert serves(SimpleNamespace(config=config, device=torch.device(device))) is served
