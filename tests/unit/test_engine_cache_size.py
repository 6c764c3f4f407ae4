"""How large a key-value cache the memory allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract.errors import ConfigError
from workers.engines.generation.cache_size import CacheSize

TOKEN_BYTES = 46_080  # SmolLM2-135M in float32


def fit(memory_gb: float, sequences: int = 8, context: int = 8192) -> CacheSize:
    return CacheSize.fit(
        memory_bytes=memory_gb * 1e9,
        weight_bytes=538_000_000,
        token_bytes=TOKEN_BYTES,
        page_tokens=256,
        sequences=sequences,
        context=context,
    )


@given(st.floats(0.7, 100), st.integers(1, 64), st.integers(256, 32_768))
def test_weights_and_cache_stay_within_the_memory(memory_gb: float, sequences: int, context: int) -> None:
    size = fit(memory_gb, sequences, context)
    assert 538e6 + size.blocks * size.page_tokens * TOKEN_BYTES <= memory_gb * 1e9
    assert 1 <= size.usable < size.blocks


def test_no_more_than_the_sequences_can_use() -> None:
    size = fit(1000, sequences=2, context=1024)
    assert size.usable >= 2 * size.blocks_for(1024)
    assert size.blocks <= 10


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"memory_gb = 0\.50.*at least 0\.60"):
        fit(0.5)
    fit(0.60)


def test_a_token_more_takes_a_block_more() -> None:
    assert [CacheSize(10, 256).blocks_for(tokens) for tokens in (1, 256, 257)] == [1, 1, 2]
