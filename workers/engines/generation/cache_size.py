"""The size of a generation engine's key-value cache, as a pure function of memory and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_schema import Model

_SHARE = 0.5
"""The cache's share of the memory besides the weights; the rest is for activations, logits and the runtime."""
_MARGIN = 0.15
"""The share of blocks that is never reserved: the batcher admits no sequence while fewer are free."""
_PAGE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class CacheSize:
    """A cache of ``blocks`` of ``page_tokens`` tokens each, of which ``usable`` may be reserved."""

    blocks: int
    page_tokens: int

    @property
    def usable(self) -> int:
        """The blocks that sequences may reserve in total."""
        return int(self.blocks * (1 - _MARGIN))

    @property
    def tokens(self) -> int:
        """The longest sequence (prompt and output) that fits, in tokens."""
        return self.usable * self.page_tokens

    def blocks_for(self, tokens: int) -> int:
        """The blocks that a sequence of ``tokens`` tokens takes."""
        return ceil(tokens / self.page_tokens)

    @classmethod
    def of(cls, model: Any, settings: Model, context: int) -> CacheSize:
        """The cache of a loaded model, for sequences of at most ``context`` tokens.

        Raises:
            ConfigError: when the model does not fit into ``memory_gb``.
        """
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls.fit(
            memory_bytes=settings.memory_gb * 1e9,
            weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
            token_bytes=2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize,
            page_tokens=_PAGE_TOKENS,
            sequences=settings.max_concurrency,
            context=context,
        )

    @classmethod
    def fit(
        cls,
        *,
        memory_bytes: float,
        weight_bytes: int,
        token_bytes: int,
        page_tokens: int,
        sequences: int,
        context: int,
    ) -> CacheSize:
        """The largest cache that fits into the memory, but no larger than ``sequences`` of ``context`` tokens need.

        Raises:
            ConfigError: when the weights and two blocks do not fit into the memory.
        """
        allowed = int((memory_bytes - weight_bytes) * _SHARE / (token_bytes * page_tokens))
        useful = ceil(sequences * ceil(context / page_tokens) / (1 - _MARGIN))
        if allowed < 2:
            needed = weight_bytes + 2 * token_bytes * page_tokens / _SHARE
            raise ConfigError(
                f"memory_gb = {memory_bytes / 1e9:.2f}: the weights take {weight_bytes / 1e9:.2f} GB, "
                f"and a cache needs room beside them; allowed: at least {needed / 1e9 + 0.01:.2f}"
            )
        return cls(min(allowed, useful), page_tokens)
