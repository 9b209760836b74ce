"""Prompts: the published text form, and a tokenizer that takes any instruction."""

import json
import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DATA as DATA_ROOT
from support.tiny_tokenizers import as_tokenizer_json, train_sentencepiece
from tokenizers import AddedToken, Tokenizer

from z1_ros.errors import BackendUnavailable, BundleError, ConfigError
from z1_ros.models.bundle.tokenizer import (
    BOS_ID,
    PAD_ID,
    STATE_BINS,
    PromptTokenizer,
    prompt_text,
    small_tokenizer,
)
from z1_ros.models.network.geometry import SMALL

GOLDEN = json.loads((DATA_ROOT / "processor" / "processor_golden.json").read_text("utf-8"))
BINS = (-1, 0, 20, 255, 128, 7, 99, 200, 13)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(small_tokenizer(), "utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return PromptTokenizer(path, SMALL.prompt_tokens)


def test_prompt_is_that_of_the_published_processor():
    bins = [int(b) for b in GOLDEN["prompt"].split("State: ")[1].split(";")[0].split()]
    assert prompt_text(GOLDEN["task"], bins) == GOLDEN["prompt"]


def test_each_state_bin_is_one_token(tokenizer):
    short = len(tokenizer.ids(prompt_text("open the drawer", [0])))
    for value in STATE_BINS:
        assert len(tokenizer.ids(prompt_text("open the drawer", [value]))) == short
    ids = {tuple(tokenizer.ids(prompt_text("open the drawer", [b]))) for b in STATE_BINS}
    assert len(ids) == 257


def test_longest_task_template_fits_with_room(tokenizer):
    text = "Pick the bell pepper from the sink and place it on the plate located on the counter."
    _, mask = tokenizer.encode(text, BINS)
    assert mask.sum() <= 34


def test_tokens_start_with_bos_and_are_padded_on_the_right(tokenizer):
    tokens, mask = tokenizer.encode("open the left drawer", BINS)
    assert tokens.shape == mask.shape == (SMALL.prompt_tokens,)
    assert tokens[0] == BOS_ID
    assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert (tokens[~mask] == PAD_ID).all()


def test_ids_fit_the_kitchen_geometry(tokenizer):
    assert tokenizer.vocab <= SMALL.vocab


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_instruction_tokenises_and_the_state_is_never_cut(path, instruction):
    tokenizer = PromptTokenizer(path, SMALL.prompt_tokens)
    tokens, mask = tokenizer.encode(instruction, BINS)
    # "," before the state may merge with nothing, so the tail is the same whatever came before.
    tail = tokenizer.ids(prompt_text("x", BINS))[-12:]
    assert tokens[mask][-12:].tolist() == tail


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=30))
def test_text_comes_back_from_its_ids(path, text):
    library = Tokenizer.from_file(str(path))
    assert library.decode(library.encode(text, add_special_tokens=False).ids) in (text, text[1:])


def test_text_that_spells_a_control_token_stays_text(tokenizer):
    ids = tokenizer.ids(prompt_text("<bos><pad><eos>", BINS))
    assert not {PAD_ID, 1, BOS_ID} & set(ids[1:])


def test_a_long_instruction_is_cut_and_said_so_once(tokenizer, caplog):
    for _ in range(2):
        _, mask = tokenizer.encode("open the drawer " * 40, BINS)
    assert mask.all()
    assert len([r for r in caplog.records if "instruction cut" in r.message]) == 1


def test_a_state_that_cannot_fit_is_refused(path):
    with pytest.raises(ConfigError, match="more than the 8 tokens"):
        PromptTokenizer(path, 8).encode("open", BINS)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["open", "the", "drawers", "bell", "pepper", "ünknown", "xyz"]), min_size=12
    ),
    st.lists(st.sampled_from(STATE_BINS), max_size=9),
)
def test_no_longer_part_of_the_instruction_would_have_fitted(tokenizer, words, bins):
    instruction = " ".join(words)
    tokens, mask = tokenizer.encode(instruction, bins)
    lengths = range(len(instruction), -1, -1)
    prompts = (tokenizer.ids(prompt_text(instruction[:n], bins)) for n in lengths)
    longest = next(ids for ids in prompts if len(ids) <= tokenizer.max_tokens)
    assert tokens[mask].tolist() == longest


def test_a_book_for_an_instruction_takes_few_attempts(path):
    tokenizer = PromptTokenizer(path, SMALL.prompt_tokens)
    attempts, ids = [], tokenizer.ids
    tokenizer.ids = lambda text: attempts.append(text) or ids(text)
    tokenizer.encode("open the drawer " * 5000, BINS)
    assert len(attempts) < 70


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"{}", b"", b"\x00\xff garbage", None], ids=repr)
def test_a_broken_tokenizer_file_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not a tokenizer"):
        PromptTokenizer(tmp_path / name, 48)


# --- SentencePiece and Hugging Face files of one vocabulary, shaped like PaliGemma's ---


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_sentencepiece(tmp_path_factory.mktemp("gemma") / "tokenizer.model")


@pytest.fixture(scope="module")
def twins(model):
    """The SentencePiece file and its equal in JSON."""
    converted = as_tokenizer_json(model)
    return PromptTokenizer(model, 200), PromptTokenizer(converted, 200)


INSTRUCTIONS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["open", "the", "drawer", "  ", " ", "\n", "_", "ünïcode", "🫙", "<bos>", "<pad>", "▁"]
        ),
        max_size=12,
    ).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(INSTRUCTIONS, st.one_of(st.none(), st.lists(st.sampled_from(STATE_BINS), max_size=16)))
def test_both_files_give_the_ids_that_the_sentencepiece_library_gives(
    model, twins, instruction, bins
):
    library = sentencepiece.SentencePieceProcessor(model_file=str(model))
    text = prompt_text(instruction, bins)
    if bins is None:
        expected = library.encode(text[:-1], add_bos=True) + library.encode("\n")
    else:
        expected = library.encode(text, add_bos=True)
    for tokenizer in twins:
        tokens, mask = tokenizer.encode(instruction, bins)
        assert tokens[mask].tolist() == expected
        assert (tokens[~mask] == 0).all()


def test_a_prompt_without_state_ends_with_a_line_break_of_its_own(twins):
    for tokenizer in twins:
        tokens, mask = tokenizer.encode("open_the drawer\n", None)
        (line_break,) = tokenizer.ids("\n")[1:]
        assert tokens[mask].tolist() == [*tokenizer.ids("open the drawer"), line_break]


def test_that_line_break_never_merges_with_the_instruction(tmp_path):
    model = train_sentencepiece(tmp_path / "merging.model", user_defined_symbols=["<loc0000>"])
    library = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert ";\n" in library.encode("open;\n", out_type=str)
    tokens, mask = PromptTokenizer(model, 48).encode("open;", None)
    assert tokens[mask].tolist() == library.encode("open;", add_bos=True) + library.encode("\n")


@settings(max_examples=50, deadline=None)
@given(INSTRUCTIONS, st.lists(st.sampled_from(STATE_BINS), min_size=1, max_size=9))
def test_sentencepiece_never_cuts_the_state(model, instruction, bins):
    tokenizer = PromptTokenizer(model, 70)
    tokens, mask = tokenizer.encode(instruction * 20 + "x", bins)
    tail = tokenizer.ids(prompt_text("x", bins))[-4 - len(bins) :]
    assert tokens[mask][-len(tail) :].tolist() == tail


def test_text_that_spells_a_control_token_stays_text_in_both(twins):
    for tokenizer in twins:
        assert not {0, 1, 2} & set(tokenizer.ids("<bos><pad><eos> open")[1:])


def test_begin_of_sequence_is_read_from_the_file(tmp_path):
    model = train_sentencepiece(tmp_path / "other.model", bos_id=3, unk_id=2)
    for path in (model, as_tokenizer_json(model)):
        assert PromptTokenizer(path, 48).ids("open")[0] == 3


@pytest.mark.parametrize("ids", [{"pad_id": -1}, {"bos_id": -1}, {"pad_id": 3, "unk_id": 0}])
def test_a_tokenizer_of_other_conventions_is_refused(tmp_path, ids):
    model = train_sentencepiece(tmp_path / "other.model", **ids)
    for path in (model, as_tokenizer_json(model)):
        with pytest.raises(BundleError, match=r"not a tokenizer for π0\.5 prompts"):
            PromptTokenizer(path, 48)


def test_a_tokenizer_of_more_ids_than_the_network_embeds_is_refused(model, twins):
    size = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    for path in (model, model.with_suffix(".json")):
        assert PromptTokenizer(path, 48, vocab=size).vocab == size
        with pytest.raises(BundleError, match=f"up to {size - 1}, .* embeds only {size - 1}"):
            PromptTokenizer(path, 48, vocab=size - 1)


def test_a_special_token_that_no_text_can_give_does_not_count(model, twins, tmp_path):
    library = Tokenizer.from_file(str(model.with_suffix(".json")))
    size = library.get_vocab_size()
    library.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PromptTokenizer(tmp_path / "tokenizer.json", 48, vocab=size)
    assert max(tokenizer.ids("an <image> of it")) < size
    library.add_tokens(["drawer"])
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match="belongs to another network"):
        PromptTokenizer(tmp_path / "tokenizer.json", 48, vocab=size)


def test_truncation_and_padding_in_the_file_are_ignored(model, twins, tmp_path):
    library = Tokenizer.from_file(str(model.with_suffix(".json")))
    library.enable_truncation(4)
    library.enable_padding(length=200)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PromptTokenizer(tmp_path / "tokenizer.json", 200)
    expected, _ = twins[0].encode("open the drawer", BINS)
    assert np.array_equal(tokenizer.encode("open the drawer", BINS)[0], expected)


def test_without_sentencepiece_its_files_say_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(BackendUnavailable, match="pip install sentencepiece"):
        PromptTokenizer(model, 48)
