"""A checkpoint that is not what its model computes with is refused, and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import tiny_models
from producer.contract.errors import ModelNotFound
from producer.contract.fleet.fleet_schema import Model
from workers.engines import checkpoint, sources
from workers.engines.registry import create

Weights = dict[str, torch.Tensor]


def without(*parts: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for name in [name for name in weights if any(part in name for part in parts)]:
            del weights[name]

    return change


def norms_of_queries(weights: Weights) -> None:
    """Which other models have in their attention, and Llama has not."""
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)


def buffers_of_old_versions(weights: Weights) -> None:
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)


def a_head_that_is_not_used(weights: Weights) -> None:
    weights["v_head.summary.weight"] = torch.ones(1, 32)


def load(engine: str, source: str) -> None:
    made = create(Model.model_validate({"engine": engine, "source": source, "memory_gb": 0.5}), "cpu:0")
    try:
        made.load()
    finally:
        made.close()


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        ({}, without("layers.1.mlp"), r"lacks weights that engine = 'generate' needs: model\.layers\.1\.mlp"),
        ({"num_hidden_layers": 3}, None, r"lacks weights .*model\.layers\.2.* more"),
        ({"num_hidden_layers": 1}, None, r"holds weights that its config.json does not describe: model\.layers\.1"),
        ({}, norms_of_queries, "does not describe: .*q_norm"),
        (
            {"intermediate_size": 32},
            None,
            r"other shapes than .*mlp.* \[64, 32\] instead of \[32, 32\]",
        ),
        ({}, without("lm_head"), "lm_head"),
    ],
)
def test_a_model_that_generates_with_other_weights_than_its_files_hold_is_refused(
    tmp_path: Path, config: dict[str, Any], weights: Any, said: str
) -> None:
    source = tiny_models.changed_copy(tiny_models.llama(), tmp_path / "model", config=config, weights=weights)
    with pytest.raises(ModelNotFound, match=said):
        load("generate", source)


@pytest.mark.parametrize("weights", [buffers_of_old_versions, a_head_that_is_not_used])
def test_what_changes_nothing_is_no_reason_to_refuse(tmp_path: Path, weights: Any) -> None:
    load("generate", tiny_models.changed_copy(tiny_models.llama(), tmp_path / "model", weights=weights))


def test_tied_weights_are_in_the_file_once(tmp_path: Path) -> None:
    load(
        "generate",
        tiny_models.changed_copy(
            tiny_models.llama(), tmp_path / "model", config={"tie_word_embeddings": True}, weights=without("lm_head")
        ),
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_an_encoder_with_more_or_fewer_layers_than_its_files_is_refused(tmp_path: Path, layers: int) -> None:
    source = tiny_models.changed_copy(
        tiny_models.sequence_classifier(3), tmp_path / "model", config={"num_hidden_layers": layers}
    )
    with pytest.raises(ModelNotFound, match=r"encoder\.layer\."):
        load("classify", source)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea\nsize 134\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", "1234567", r"model/model\.safetensors is damaged, copy it again: "),
        ("model.safetensors", POINTER, r"model/model\.safetensors is a Git LFS pointer.*'git lfs pull'"),
        ("model.safetensors", "", r"model/model\.safetensors is empty"),
        ("config.json", '{"model_type": "llama",', r"model/config\.json is not JSON: .*copy it again"),
        ("config.json", POINTER, r"model/config\.json is a Git LFS pointer"),
        ("generation_config.json", "{", r"model/generation_config\.json is not JSON"),
        ("tokenizer.json", '{"version": "1.0",', r"the tokenizer in .*model/tokenizer\.json is not JSON"),
        ("tokenizer.json", POINTER, r"the tokenizer in .*model/tokenizer\.json is a Git LFS pointer"),
        ("tokenizer.json", "{}", r"the tokenizer in .*model cannot be loaded"),
    ],
)
def test_a_damaged_file_is_named_with_the_cure(tmp_path: Path, name: str, content: str, said: str) -> None:
    source = tiny_models.changed_copy(tiny_models.llama(), tmp_path / "model")
    (Path(source) / name).write_text(content)
    with pytest.raises(ModelNotFound, match=said):
        load("generate", source)


def test_a_gguf_that_is_a_pointer_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(ModelNotFound, match=r"model\.gguf is a Git LFS pointer"):
        sources.resolve(str(tmp_path / "model.gguf"))


def test_a_gguf_that_lacks_layers_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy would hold random weights in their place, and look whole."""
    monkeypatch.setenv("STOKER_CACHE", str(tmp_path))
    report = {"missing_keys": {"model.layers.1.mlp.up_proj.weight"}, "mismatched_keys": set(), "unexpected_keys": set()}
    model = checkpoint.load_model(LlamaForCausalLM, Path(tiny_models.llama()), Model(engine="generate", source="x"))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: (model, report))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: None)
    (tmp_path / "model.gguf").write_text("weights")
    with pytest.raises(ModelNotFound, match=r"model\.gguf lacks weights .*layers\.1"):
        sources.resolve(str(tmp_path / "model.gguf"))
