"""Attention for continuous batching on a CPU: each sequence attends to its own keys, in a call of its own.

transformers' ``sdpa`` lays the keys of all sequences in a row, lets every query attend to every key and masks what is
not its own: of 16 sequences of one length, 15 sixteenths for nothing. On a CPU that takes a fifth of a step. A GPU
keeps ``sdpa``: there, 16 small calls may well take longer than a large one.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "stoker_sequences"


def serves(model: Any) -> bool:
    """Whether it can stand in for ``sdpa``: on a CPU, where all layers attend to all that came before.

    Versions of transformers whose ``sdpa`` takes no ``cache`` hand it over in another way, and keep theirs too.
    """
    config = model.config.get_text_config()
    windows = getattr(config, "sliding_window", None) is not None
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    paged = "cache" in inspect.signature(sdpa_attention_forward).parameters
    return bool(paged and model.device.type == "cpu" and not windows and layers == {"full_attention"})


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  the batcher makes none for an attention that it does not know
    *,
    cache: Any,
    cu_seq_lens_q: torch.Tensor,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed sequences: a function for ``AttentionInterface``.

    ``query`` (1, heads, tokens, width), ``key`` and ``value`` (1, key heads, tokens, width) are the new tokens of all
    sequences, ``cu_seq_lens_q`` (sequences + 1,) where each begins; ``cache``, a ``PagedAttentionCache``, adds the
    tokens before. Returns (1, tokens, heads, width): for each sequence what ``generate`` computes when it is alone.
    """
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    new, all_tokens = cu_seq_lens_q.diff().tolist(), kwargs["cu_seq_lens_k"].diff().tolist()
    sequences = zip(
        torch.split(query, new, 2), torch.split(key, all_tokens, 2), torch.split(value, all_tokens, 2), strict=True
    )
    outputs = [
        _token(q, k, v, kwargs.get("scaling"))
        if q.shape[2] == 1
        else sdpa_attention_forward(module, q, k, v, _mask(q.shape[2], k.shape[2]), **kwargs)[0]
        for q, k, v in sequences
    ]
    return torch.cat(outputs, dim=1), None


def _token(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """For one new token. Query heads that share a key head become queries of that head, so that no key is copied."""
    _, heads, _, width = query.shape
    queries = query.reshape(1, key.shape[1], -1, width)
    return scaled_dot_product_attention(queries, key, value, scale=scaling).reshape(1, 1, heads, -1)


def _mask(new: int, all_tokens: int) -> torch.Tensor | None:
    """For a later piece of a prompt: each token sees those up to itself. A whole prompt is causal without a mask."""
    return None if new == all_tokens else torch.ones(new, all_tokens, dtype=torch.bool).tril(all_tokens - new)


AttentionInterface.register(NAME, attend)
