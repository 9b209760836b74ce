"""A tokenizer comes from a file, a folder or the hub, and is whole when it arrives."""

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from support.tiny_tokenizers import as_tokenizer_json, train_sentencepiece

from z1_ros.errors import BundleError
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.importing.tokenizer_source import PALIGEMMA, fetch_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_sentencepiece(tmp_path_factory.mktemp("source") / "paligemma_tokenizer.model")


@pytest.fixture
def bundle(tmp_path):
    """The directory of a bundle in the making."""
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


@pytest.fixture
def hub(monkeypatch):
    """A hub whose replies, by file name, are paths or errors; records what was asked for."""
    replies, asked = {}, []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        reply = replies[name]
        if isinstance(reply, type):
            raise reply.__new__(reply)
        return str(reply)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    replies["asked"] = asked
    return replies


def test_a_file_keeps_its_content_under_the_bundles_name_for_it(model, bundle):
    assert fetch_tokenizer(str(model), bundle) == "tokenizer.model"
    assert (bundle / "tokenizer.model").read_bytes() == model.read_bytes()
    assert fetch_tokenizer(str(as_tokenizer_json(model)), bundle) == "tokenizer.json"
    first, second = (PromptTokenizer(file, 48).ids("open") for file in bundle.iterdir())
    assert first == second


def test_a_directory_gives_the_tokenizer_in_it(model, bundle):
    assert fetch_tokenizer(str(model.parent), bundle) in ("tokenizer.model", "tokenizer.json")


def test_a_directory_without_one_is_named(bundle):
    with pytest.raises(BundleError, match=f"{bundle} holds no tokenizer: none of tokenizer.json"):
        fetch_tokenizer(str(bundle), bundle)


@pytest.mark.parametrize("source", ["gone.model", "folder/tokenizer.json", "word", "/a/b", "a/b/c"])
def test_what_is_neither_a_file_nor_a_repository_is_refused(bundle, hub, source):
    with pytest.raises(BundleError, match=f"no tokenizer at '{source}': expected a file"):
        fetch_tokenizer(source, bundle)
    assert not hub["asked"]


def test_a_file_of_another_kind_is_refused(bundle, tmp_path):
    (tmp_path / "vocab.txt").write_text("open")
    with pytest.raises(BundleError, match=r"vocab\.txt is no tokenizer file"):
        fetch_tokenizer(str(tmp_path / "vocab.txt"), bundle)


def test_a_corrupt_file_never_reaches_the_bundle(model, bundle, tmp_path):
    (tmp_path / "cut.model").write_bytes(model.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"cut\.model is not a tokenizer"):
        fetch_tokenizer(str(tmp_path / "cut.model"), bundle)
    assert not list(bundle.iterdir())


def test_a_repository_gives_its_json_and_else_its_model(model, bundle, hub):
    hub["tokenizer.json"] = as_tokenizer_json(model)
    assert fetch_tokenizer(PALIGEMMA, bundle) == "tokenizer.json"
    hub |= {"tokenizer.json": RemoteEntryNotFoundError, "tokenizer.model": model}
    assert fetch_tokenizer(PALIGEMMA, bundle) == "tokenizer.model"
    assert hub["asked"] == [
        (PALIGEMMA, "tokenizer.json"),
        (PALIGEMMA, "tokenizer.json"),
        (PALIGEMMA, "tokenizer.model"),
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "accept its licence at https://huggingface.co/google/.*set HF_TOKEN"),
        (RepositoryNotFoundError, "knows no repository 'google/.*check the name, set HF_TOKEN"),
        (LocalEntryNotFoundError, "hub cannot be reached: go online, or give a local"),
        (RemoteEntryNotFoundError, "has neither tokenizer.json nor tokenizer.model"),
        (PermissionError, "tokenizer.json of 'google/.* could not be fetched"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_out(bundle, hub, error, words):
    hub |= {"tokenizer.json": error, "tokenizer.model": error}
    with pytest.raises(BundleError, match=words):
        fetch_tokenizer(PALIGEMMA, bundle)
    assert not list(bundle.iterdir())
