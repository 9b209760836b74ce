"""The one writer of bundles: whole or not at all, and nothing of anybody else's is touched."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.tiny_bundle import write_tiny_bundle

from z1_ros.errors import BundleError, ConfigError
from z1_ros.files import write_text
from z1_ros.models.bundle.card import CARD
from z1_ros.models.bundle.manifest import (
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    load_bundle,
    require_replaceable,
)
from z1_ros.models.bundle.writer import write_bundle, write_result
from z1_ros.models.checkpoint import loading
from z1_ros.models.checkpoint.loading import read_tensors


@pytest.fixture
def start(tmp_path):
    """A bundle in a folder of its own."""
    return write_tiny_bundle(tmp_path / "start" / "tiny")


def copy_of(start, **changed):
    """Return a fill that copies a bundle."""

    def fill(folder: Path) -> Manifest:
        for name in (WEIGHTS, TOKENIZER):
            shutil.copyfile(start.file(name), folder / name)
        return replace(start.manifest, **changed)

    return fill


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_has_its_name_its_card_and_every_file_listed(start, tmp_path) -> None:
    made = write_bundle(tmp_path / "deeper" / "mine", copy_of(start))
    assert made.manifest.name == "mine" and made.path == tmp_path / "deeper" / "mine"
    assert set(made.manifest.files) == {WEIGHTS, TOKENIZER, CARD}
    assert "# mine" in made.file(CARD).read_text("utf-8")
    assert load_bundle(made.path).sha256 == made.sha256
    assert names(made.path.parent) == ["mine"]


def test_an_older_bundle_is_replaced_whole_or_stays(start, tmp_path) -> None:
    out = tmp_path / "mine"
    first = write_bundle(out, copy_of(start))

    def fail(folder: Path) -> Manifest:
        (folder / WEIGHTS).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(BundleError, match=r"mine cannot be written: .*No space left"):
        write_bundle(out, fail)
    assert load_bundle(out).sha256 == first.sha256
    second = write_bundle(out, copy_of(start, denoise_steps=7))
    assert load_bundle(out).manifest.denoise_steps == 7 and second.sha256 != first.sha256
    assert names(tmp_path) == ["mine", "start"]


def test_a_full_disk_is_one_sentence_also_where_safetensors_meets_it(
    start, tmp_path, monkeypatch
) -> None:
    def fail(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(loading, "save_file", fail)
    weights = read_tensors(start.file(WEIGHTS))
    with pytest.raises(BundleError, match=r"out cannot be written: .*No space left on device"):
        write_result(start, weights, tmp_path / "out", {})
    assert names(tmp_path) == ["start"]


def test_a_link_to_a_bundle_is_followed_and_stays(start, tmp_path) -> None:
    write_bundle(tmp_path / "v1", copy_of(start))
    (tmp_path / "current").symlink_to("v1")
    made = write_bundle(tmp_path / "current", copy_of(start, denoise_steps=7))
    assert (tmp_path / "current").readlink() == Path("v1") and made.path == tmp_path / "v1"
    assert load_bundle(tmp_path / "v1").manifest.denoise_steps == 7
    (tmp_path / "next").symlink_to("v2")
    assert write_bundle(tmp_path / "next", copy_of(start)).path == tmp_path / "v2"


def test_folders_beside_the_bundle_are_nobodys_scratch(start, tmp_path) -> None:
    for name in ("mine.older", "mine.partial"):
        write_text(tmp_path / name / "thesis.txt", "kept")
    write_bundle(tmp_path / "mine", copy_of(start))
    write_bundle(tmp_path / "mine", copy_of(start))
    for name in ("mine.older", "mine.partial"):
        assert (tmp_path / name / "thesis.txt").read_text() == "kept"


def test_only_a_bundle_and_nothing_beside_it_is_replaced(start, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    require_replaceable(out)
    out.mkdir()
    require_replaceable(out)
    write_text(out / "thesis.txt", "kept")
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        require_replaceable(out)
    for text in ("{", json.dumps({"name": "a web page", "icons": []})):
        write_text(out / MANIFEST, text)
        with pytest.raises(ConfigError, match="exists and is no bundle"):
            require_replaceable(out)
    shutil.rmtree(out)
    write_bundle(out, copy_of(start))
    require_replaceable(out)
    write_text(out / "notes" / "thesis.txt", "kept")
    with pytest.raises(ConfigError, match="holds notes beside a bundle; it would be lost"):
        write_bundle(out, copy_of(start))
    assert (out / "notes" / "thesis.txt").read_text() == "kept"
    shutil.rmtree(out / "notes")
    # What an export that was killed leaves is no reason to refuse.
    write_text(out / "prefix.onnx", "half")
    require_replaceable(out)
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        require_replaceable(out / MANIFEST)
    monkeypatch.chdir(out)
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        require_replaceable(Path())


def test_a_result_keeps_all_of_its_start_but_what_was_trained(start, tmp_path) -> None:
    weights = {name: t + 1 for name, t in read_tensors(start.file(WEIGHTS)).items()}
    made = write_result(start, weights, tmp_path / "out", {"command": "z1-train"})
    assert made.manifest.made_by == {"command": "z1-train"} and made.manifest.name == "out"
    assert made.manifest.contract == start.manifest.contract
    assert made.manifest.files[TOKENIZER] == start.manifest.files[TOKENIZER]
    own = read_tensors(made.file(WEIGHTS))
    assert all(torch.equal(own[name], tensor) for name, tensor in weights.items())


def test_a_result_may_replace_the_bundle_it_came_from(start) -> None:
    weights = read_tensors(start.file(WEIGHTS))
    for step in (1, 2):
        made = write_result(start, weights, start.path, {"command": f"round {step}"})
        assert made.manifest.made_by == {"command": f"round {step}"}
