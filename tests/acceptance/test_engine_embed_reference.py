"""Embeddings and scores against sentence-transformers itself: equal, or refused when the model is loaded.

With ``-s`` it prints how many models were compared, and the greatest difference of a number.
"""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, WeightedLayerPooling
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import tiny_models
from encoding import loaded, run, told
from producer.contract.errors import ModelNotFound
from workers.engines.protocol import Request

TEXTS = ["One.", "A Longer Text, With CAPITALS in it", "  and spaces ", "", "word " * 200, "x"]
WIDTH = 32
POSITIONS = 64
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
LEGACY = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@functools.cache
def encoder() -> str:
    """A folder with a BERT of two layers that tells capitals apart."""
    folder = tiny_models.empty_folder()
    config = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.4,
    )
    torch.manual_seed(1)
    BertModel(config).save_pretrained(folder)
    cased_tokenizer().save_pretrained(folder)
    return str(folder)


def cased_tokenizer() -> PreTrainedTokenizerFast:
    special = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    vocabulary = special | {letter: 4 + index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def saved(folder: Path, *layers: Any, mode: Any = "mean", include_prompt: bool = True, **options: Any) -> Path:
    """A model as the installed version of sentence-transformers saves it."""
    torch.manual_seed(2)
    pooling = Pooling(WIDTH, mode, include_prompt=include_prompt)
    modules = [Transformer(encoder()), pooling, *(layer() if callable(layer) else layer for layer in layers)]
    SentenceTransformer(modules=modules, device="cpu", **options).save_pretrained(str(folder))
    return folder


DIFFERENCES: list[float] = []
"""The greatest difference from the reference, of each model that was compared."""


@pytest.fixture(scope="module", autouse=True)
def _printed() -> Iterator[None]:
    DIFFERENCES.clear()
    yield
    print(f"\n{len(DIFFERENCES)} models compared with sentence-transformers: {max(DIFFERENCES):.1e} apart at most")


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    DIFFERENCES.append((found - expected).abs().max().item())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def assert_equal(source: Path, texts: list[str] = TEXTS) -> None:
    """Alone and in company, ours are the vectors of the reference."""
    reference = SentenceTransformer(str(source), device="cpu")
    expected = torch.stack([torch.as_tensor(reference.encode(text)) for text in texts])
    engine = loaded("embed", str(source))
    try:
        found = torch.tensor(told(run(engine, Request("a", list(texts)))["a"]))
    finally:
        engine.close()
    assert_close(found, expected)


def assert_refused(source: Path, *said: str) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        loaded("embed", str(source))
    for each in said:
        assert each in str(refusal.value)


def change(file: Path, **fields: Any) -> None:
    """Change keys of a file of JSON; None takes one away."""
    told = json.loads(file.read_text()) if file.exists() else {}
    told |= fields
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


def as_version(source: Path, version: int) -> Path:
    """Rewrite the files in the layout of version 2, 3 or 5."""
    modules = json.loads((source / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (source / "modules.json").write_text(json.dumps(modules))
    pooling = source / "1_Pooling" / "config.json"
    modes = json.loads(pooling.read_text())["pooling_mode"]
    names = list(LEGACY.values())[: None if version > 2 else 4]
    flags = {name: LEGACY_MODES[name] in ([modes] if isinstance(modes, str) else modes) for name in names}
    fields: dict[str, Any] = {"word_embedding_dimension": WIDTH, **flags}
    if version > 2:
        fields["include_prompt"] = json.loads(pooling.read_text())["include_prompt"]
    pooling.write_text(json.dumps(fields))
    (source / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": POSITIONS, "do_lower_case": version == 2})
    )
    whole = source / "config_sentence_transformers.json"
    change(whole, model_type="SentenceTransformer" if version == 5 else None)
    if version == 2:
        change(whole, prompts=None, default_prompt_name=None, similarity_fn_name=None, truncate_dim=None)
    if version < 5:
        for file in source.glob("*_Normalize/config.json"):
            file.unlink()
    for dense in source.glob("*_Dense"):
        change(dense / "config.json", module_input_name=None, module_output_name=None)
        if version == 2:
            weights = load_file(dense / "model.safetensors")
            torch.save(weights, dense / "pytorch_model.bin")
            (dense / "model.safetensors").unlink()
    return source


LEGACY_MODES = {name: mode for mode, name in LEGACY.items()}


@pytest.mark.parametrize("mode", [*MODES, ("cls", "mean"), ("lasttoken", "max", "weightedmean"), tuple(MODES)])
def test_every_pooling(tmp_path: Path, mode: Any) -> None:
    assert_equal(saved(tmp_path / "model", mode=mode))


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", ("cls", "mean_sqrt_len_tokens")])
def test_every_pooling_of_old_files(tmp_path: Path, mode: Any, version: int) -> None:
    assert_equal(as_version(saved(tmp_path / "model", mode=mode), version))


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("mode", ["weightedmean", "lasttoken", ("max", "lasttoken")])
def test_every_pooling_that_version_3_added(tmp_path: Path, mode: Any, version: int) -> None:
    assert_equal(as_version(saved(tmp_path / "model", mode=mode), version))


LAYERS: dict[str, list[Callable[[], Any]]] = {
    "normalised": [Normalize],
    "dense": [lambda: Dense(WIDTH, 8)],
    "dense without bias or activation": [lambda: Dense(WIDTH, 8, bias=False, activation_function=torch.nn.Identity())],
    "dense and more": [lambda: Dense(WIDTH, WIDTH, activation_function=torch.nn.GELU()), Normalize, Dropout],
    "residual": [lambda: Dense(WIDTH, WIDTH, use_residual=True), lambda: Dense(WIDTH, 8, use_residual=True)],
    "layer norm": [lambda: LayerNorm(WIDTH), Normalize],
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_behind_the_pooling(tmp_path: Path, name: str) -> None:
    assert_equal(saved(tmp_path / "model", *LAYERS[name]))


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("name", ["normalised", "dense", "dense and more"])
def test_the_layers_of_old_files(tmp_path: Path, name: str, version: int) -> None:
    assert_equal(as_version(saved(tmp_path / "model", *LAYERS[name]), version))


@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_the_default_prompt(tmp_path: Path, mode: str, include_prompt: bool) -> None:
    prompts = {"query": "Represent This: ", "other": "unused"}
    model = saved(
        tmp_path / "model", mode=mode, include_prompt=include_prompt, prompts=prompts, default_prompt_name="query"
    )
    assert_equal(model, [text for text in TEXTS if text])


@pytest.mark.parametrize("name", [None, "document"])
def test_prompts_that_are_not_the_default_are_not_used(tmp_path: Path, name: str | None) -> None:
    assert_equal(saved(tmp_path / "model", prompts={"query": "Represent This: "}, default_prompt_name=name))


def test_fewer_dimensions_of_what_is_normalised(tmp_path: Path) -> None:
    assert_equal(saved(tmp_path / "model", Normalize, truncate_dim=8))
    assert_equal(saved(tmp_path / "small", truncate_dim=1000))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("version", "mode"), [(version, mode) for version in (2, 3, 5) for mode in MODES[: 4 if version == 2 else None]]
)
def test_prompt_cut_case_norm_and_fewer_dimensions_together(
    tmp_path: Path, mode: str, version: int, lower: bool
) -> None:
    """As far as the version's files can say it: version 2 has four poolings, no prompts and no fewer dimensions."""
    model = saved(
        tmp_path / "model",
        Normalize,
        mode=mode,
        include_prompt=False,
        prompts={"query": "Represent This: "},
        default_prompt_name="query",
        truncate_dim=8,
    )
    as_version(model, version)
    change(model / "sentence_bert_config.json", max_seq_length=24, do_lower_case=lower)
    assert_equal(model, [text for text in TEXTS if text])


def test_capitals_are_read_as_the_files_say(tmp_path: Path) -> None:
    vectors = []
    for lower in (True, False):
        model = saved(tmp_path / str(lower))
        change(model / "sentence_bert_config.json", do_lower_case=lower)
        assert_equal(model)
        vectors.append(told(run(loaded("embed", str(model)), Request("a", ["TEXT", "text"]))["a"]))
    torch.testing.assert_close(*(torch.tensor(vector) for vector in vectors[0]))
    assert (torch.tensor(vectors[1][0]) - torch.tensor(vectors[1][1])).abs().max() > 0.1


@pytest.mark.parametrize("length", [8, 20, POSITIONS])
def test_texts_are_cut_as_the_files_say(tmp_path: Path, length: int) -> None:
    model = saved(tmp_path / "model")
    change(model / "sentence_bert_config.json", max_seq_length=length)
    assert_equal(model)


def test_longer_than_the_tokenizer_says_if_the_files_say_so(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    change(model / "tokenizer_config.json", model_max_length=10)
    assert_equal(model)
    change(model / "sentence_bert_config.json", max_seq_length=20)
    assert_equal(model)


def test_no_longer_than_there_are_positions_whatever_the_files_say(tmp_path: Path) -> None:
    """Which the reference fails at."""
    model = saved(tmp_path / "model")
    change(model / "sentence_bert_config.json", max_seq_length=10 * POSITIONS)
    engine = loaded("embed", str(model))
    outcome = run(engine, Request("a", ["word " * 200]))["a"]
    assert outcome.error is None
    assert outcome.usage == {"input_tokens": POSITIONS}


def test_an_encoder_without_files_of_sentence_transformers() -> None:
    assert_equal(Path(encoder()))


def test_a_decoder_without_files_of_sentence_transformers_is_refused() -> None:
    assert_refused(Path(tiny_models.llama()), "LlamaForCausalLM", "modules.json")


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_with_its_files(tmp_path: Path, side: str) -> None:
    model = tmp_path / "model"
    SentenceTransformer(
        modules=[Transformer(tiny_models.llama()), Pooling(WIDTH, "lasttoken")], device="cpu"
    ).save_pretrained(str(model))
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    change(model / "sentence_bert_config.json", modality_config=text)  # not its chat template
    change(model / "tokenizer_config.json", padding_side=side)
    assert_equal(model, [text for text in TEXTS if text])


def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", Normalize, mode="max")
    inner = model / "0_Transformer"
    inner.mkdir()
    for file in model.glob("*.*"):
        if file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(inner / file.name)
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (model / "modules.json").write_text(json.dumps(modules))
    change(inner / "sentence_bert_config.json", max_seq_length=12)
    assert_equal(model)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a pooling of tomorrow": ("1_Pooling/config.json", {"pooling_mode": "attention"}),
    "a pooling flag of tomorrow": ("1_Pooling/config.json", {"pooling_mode_median_tokens": True}),
    "another kind of model": ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}),
    "a key of tomorrow": ("config_sentence_transformers.json", {"rotate_dims": 3}),
    "a prompt that is not there": ("config_sentence_transformers.json", {"default_prompt_name": "nowhere"}),
    "chats": ("sentence_bert_config.json", {"modality_config": {"message": {"method": "forward"}}}),
    "another output": ("sentence_bert_config.json", {"module_output_name": "sentence_embedding"}),
    "another task": ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
    "options of the tokenizer": ("sentence_bert_config.json", {"tokenizer_args": {"padding_side": "left"}}),
    "options of the model": ("sentence_bert_config.json", {"model_args": {"rotary_scaling_factor": 2}}),
    "queries of their own": ("sentence_bert_config.json", {"query_length": 32}),
    "an activation of its own": ("2_Dense/config.json", {"activation_function": "transformers.activations.NewGELU"}),
    "a layer of other vectors": ("2_Dense/config.json", {"module_input_name": "token_embeddings"}),
    "another width": ("2_Dense/config.json", {"in_features": 7}),
    "a layer's key of tomorrow": ("3_Normalize/config.json", {"p": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_file_and_key(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path / "model", lambda: Dense(WIDTH, 8), Normalize)
    file, fields = REFUSED[name]
    change(model / file, **fields)
    assert_refused(model, file, *([] if name == "another width" else [next(iter(fields)).split(".")[0]]))


@pytest.mark.parametrize(
    "missing", ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
)
def test_files_that_are_missing_are_named(tmp_path: Path, missing: str) -> None:
    model = saved(tmp_path / "model", lambda: Dense(WIDTH, 8))
    (model / missing).unlink()
    assert_refused(model, missing.rpartition("/")[2])


@pytest.mark.parametrize(
    "type_", ["sentence_transformers.models.CNN", "my_code.Pooling", "sentence_transformers.models.Pooling"]
)
def test_modules_that_are_not_known_are_refused(tmp_path: Path, type_: str) -> None:
    model = saved(tmp_path / "model", Normalize)
    modules = json.loads((model / "modules.json").read_text())
    modules[2]["type"] = type_
    (model / "modules.json").write_text(json.dumps(modules))
    assert_refused(model, "modules.json", type_.rpartition(".")[2])


def test_weighted_layers_are_refused(tmp_path: Path) -> None:
    weighted = WeightedLayerPooling(WIDTH, num_hidden_layers=2)
    SentenceTransformer(modules=[Transformer(encoder()), weighted, Pooling(WIDTH)], device="cpu").save_pretrained(
        str(tmp_path)
    )
    assert_refused(tmp_path, "WeightedLayerPooling")


PAIRS = [("a question", "An ANSWER"), ("", "x"), ("why " * 100, "because " * 100)]


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity"])
@pytest.mark.parametrize("prompt", [None, "query"])
@pytest.mark.parametrize("lower", [False, True])
def test_scores_of_a_cross_encoder(tmp_path: Path, activation: str, prompt: str | None, lower: bool) -> None:
    reference = CrossEncoder(
        tiny_models.sequence_classifier(1),
        device="cpu",
        activation_fn=getattr(torch.nn, activation)(),
        prompts={"query": "Find This: "},
        default_prompt_name=prompt,
    )
    model = tmp_path / "model"
    reference.save_pretrained(str(model))
    change(model / "sentence_bert_config.json", do_lower_case=lower, max_seq_length=40)
    expected = CrossEncoder(str(model), device="cpu").predict(PAIRS)
    engine = loaded("rerank", str(model))
    outputs = told(run(engine, Request("a", [{"query": q, "document": d} for q, d in PAIRS]))["a"])
    found = torch.tensor([output["relevance_score"] for output in outputs])
    assert_close(found, torch.as_tensor(expected))


def test_a_cross_encoder_that_is_not_known_is_refused(tmp_path: Path) -> None:
    CrossEncoder(tiny_models.sequence_classifier(1), device="cpu").save_pretrained(str(tmp_path))
    change(tmp_path / "sentence_bert_config.json", transformer_task="text-generation")
    with pytest.raises(ModelNotFound, match=r"sentence_bert_config\.json .*\n?transformer_task"):
        loaded("rerank", str(tmp_path))


def test_vectors_cut_to_trained_dimensions_are_the_reference_s(tmp_path: Path) -> None:
    """Each of the files that may tell of them does; the reference cuts, and normalises when it is asked to."""
    places: dict[str, Callable[[Path], object]] = {
        "config": lambda folder: change(folder / "config.json", matryoshka_dimensions=[16, 8]),
        "sentences": lambda folder: change(folder / "config_sentence_transformers.json", matryoshka_dims=[8, 16]),
        "card": lambda folder: (folder / "README.md").write_text('{\n  "matryoshka_dims": [\n  16,\n 8\n ]\n}'),
    }
    for name, tell in places.items():
        source = saved(tmp_path / name, Normalize)
        reference = SentenceTransformer(str(source), device="cpu", truncate_dim=8)
        expected = torch.as_tensor(reference.encode(TEXTS, normalize_embeddings=True))
        tell(source)
        engine = loaded("embed", str(source))
        try:
            outcomes = run(engine, Request("8", list(TEXTS), {"dimensions": 8}), Request("9", ["x"], {"dimensions": 9}))
        finally:
            engine.close()
        torch.testing.assert_close(torch.tensor(told(outcomes["8"])), expected, atol=1e-5, rtol=0)
        assert "dimensions = 9; allowed for this model: 16, 8" in str(outcomes["9"].error)


def test_prompts_by_name_and_token_ids_are_the_reference_s(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    source = saved(tmp_path, prompts=prompts, default_prompt_name="passage")
    reference = SentenceTransformer(str(source), device="cpu")
    ids = [reference.tokenizer("query: " + text, truncation=True)["input_ids"][:POSITIONS] for text in TEXTS]
    engine = loaded("embed", str(source))
    try:
        outcomes = run(
            engine,
            Request("query", list(TEXTS), {"prompt_name": "query"}),
            Request("default", list(TEXTS)),
            Request("ids", [*ids, "mixed"]),
        )
    finally:
        engine.close()
    for name, prompt in (("query", "query"), ("default", "passage")):
        expected = torch.stack([torch.as_tensor(reference.encode(text, prompt_name=prompt)) for text in TEXTS])
        torch.testing.assert_close(torch.tensor(told(outcomes[name])), expected, atol=1e-5, rtol=0)
    found = torch.tensor(told(outcomes["ids"]))[:-1]
    torch.testing.assert_close(found, torch.tensor(told(outcomes["query"])), atol=1e-5, rtol=0)
    assert outcomes["ids"].usage["input_tokens"] > sum(map(len, ids))
