"""Attention for continuous batching on a CPU, computed for each sequence by a separate call.

The ``sdpa`` of transformers concatenates the keys of all sequences, computes all products of queries and keys, and
masks those across sequences: with 16 sequences of equal length, 15 of 16. On a CPU that takes a fifth of a step. A GPU
keeps ``sdpa``: there, 16 small calls may take longer than a large one.
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
    """Whether this attention can replace ``sdpa``: on a CPU, if all layers have full causal attention.

    Versions of transformers whose ``sdpa`` takes no ``cache`` pass the cache in another way, and keep ``sdpa``.
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
    attention_mask: torch.Tensor | None,  # noqa: ARG001  None: the batcher makes masks only for its own attentions
    *,
    cache: Any,
    cu_seq_lens_q: torch.Tensor,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute the attention of packed sequences: a function for ``AttentionInterface``.

    ``query`` (1, heads, tokens, width), ``key`` and ``value`` (1, key heads, tokens, width) hold the new tokens of all
    sequences; ``cu_seq_lens_q`` (sequences + 1,) holds the offsets of sequences; ``cache``, a ``PagedAttentionCache``,
    adds the earlier tokens. Returns (1, tokens, heads, width), equal to the attention of each sequence alone.
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
    """Attention of a single new token. Query heads that share a key head become queries of it, which copies no key."""
    _, heads, _, width = query.shape
    queries = query.reshape(1, key.shape[1], -1, width)
    return scaled_dot_product_attention(queries, key, value, scale=scaling).reshape(1, 1, heads, -1)


def _mask(new: int, all_tokens: int) -> torch.Tensor | None:
    """The causal mask of a later chunk of a prompt; None for a whole prompt, which is causal without one."""
    return None if new == all_tokens else torch.ones(new, all_tokens, dtype=torch.bool).tril(all_tokens - new)


AttentionInterface.register(NAME, attend)
