"""How much key-value cache a generation engine gets: pure arithmetic on memory and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from producer.contract.errors import ConfigError
from producer.contract.fleet_schema import Model

_SHARE = 0.5
"""Of the memory that the weights leave: the rest is for activations, logits and the runtime itself."""
_MARGIN = 0.15
"""Of the blocks: the batcher admits nothing new while fewer are free, so reservations stop short of it."""
_PAGE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class CacheSize:
    """A cache of ``blocks`` of ``page_tokens`` tokens each, of which ``usable`` may be reserved."""

    blocks: int
    page_tokens: int

    @property
    def usable(self) -> int:
        """Blocks that requests may reserve, together."""
        return int(self.blocks * (1 - _MARGIN))

    @property
    def tokens(self) -> int:
        """The longest sequence, prompt and answer, that fits."""
        return self.usable * self.page_tokens

    def blocks_for(self, tokens: int) -> int:
        """Blocks that a sequence of that many tokens takes."""
        return ceil(tokens / self.page_tokens)

    @classmethod
    def of(cls, model: Any, settings: Model, context: int) -> CacheSize:
        """The cache for a model that is loaded, of ``context`` tokens at most.

        Raises:
            ConfigError: when ``memory_gb`` does not hold the model.
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
        """The largest cache that the memory allows and that ``sequences`` of ``context`` tokens can use.

        Raises:
            ConfigError: when the memory does not hold the weights and two blocks.
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
