"""Models with the shapes of real ones and random weights, made here: nothing is downloaded.

How fast a model runs depends on its shapes and precision, not on what its weights say. Llama 3.2 1B and Llama 3.1 8B
for generation (by Meta's config.json of each), and BERT large (J. Devlin et al., 2018), which most large embedding
models are. Words are tokens of one vocabulary, as large as the real one; no answer ends before its time, for there is
no token that ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.queue_tax.workload import WORDS

PAD, UNKNOWN = "<pad>", "<unk>"
CONTEXT = 4096
ENCODER_VOCABULARY, ENCODER_CONTEXT = 30_522, 512


@dataclass(frozen=True, slots=True)
class Preset:
    """Shapes: ``generator`` is (width, layers, heads, key-value heads, feed-forward width, vocabulary), ``encoder``
    (width, layers, heads, feed-forward width). ``memory_gb`` is for the generator with its cache; two of them have to
    fit the device, for the fleet runs beside the engine by hand."""

    generator: tuple[int, int, int, int, int, int]
    encoder: tuple[int, int, int, int]
    dtype: str
    memory_gb: float
    places: int


PRESETS = {
    "tiny": Preset((128, 2, 4, 2, 256, 1024), (64, 2, 2, 128), "float32", 0.2, 16),
    "1b": Preset((2048, 16, 32, 8, 8192, 128_256), (1024, 24, 16, 4096), "bfloat16", 12.0, 64),
    "8b": Preset((4096, 32, 32, 8, 14_336, 128_256), (1024, 24, 16, 4096), "bfloat16", 32.0, 64),
}


def build(preset: Preset, folder: Path, device: str) -> tuple[Path, Path]:
    """Make a generator and an encoder; the folders that hold them, as a fleet file's ``source`` wants them."""
    torch.manual_seed(1)
    width, layers, heads, kv_heads, wide, vocabulary = preset.generator
    generator = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=layers < 32,  # as the 1B has it, and the 8B has not
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    width, layers, heads, wide = preset.encoder
    encoder = BertConfig(
        vocab_size=ENCODER_VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=wide,
        max_position_embeddings=ENCODER_CONTEXT,
        pad_token_id=0,
    )
    sources = folder / "generator", folder / "encoder"
    _save(partial(LlamaForCausalLM, generator), generator, sources[0], device, preset.dtype)
    _save(partial(BertModel, encoder), encoder, sources[1], device, preset.dtype)
    return sources


def _save(
    make: Callable[[], PreTrainedModel],
    config: LlamaConfig | BertConfig,
    folder: Path,
    device: str,
    dtype: str,
) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):  # random numbers of billions are made quickly only where they stay
            model = make()
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    _tokenizer(config.vocab_size, config.max_position_embeddings).save_pretrained(folder)


def _tokenizer(vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A word is a token; what is beyond the words of the workload has a name of its own."""
    words = [PAD, UNKNOWN, *dict.fromkeys(WORDS)][:vocabulary]
    words += [f"word{number}" for number in range(len(words), vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, model_max_length=context
    )
