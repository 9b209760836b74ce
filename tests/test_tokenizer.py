"""Prompts: the published text form, and a tokenizer that takes any instruction."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from z1_ros.errors import BundleError, ConfigError
from z1_ros.models.geometry import KITCHEN
from z1_ros.models.tokenizer import (
    BOS_ID,
    PAD_ID,
    STATE_BINS,
    PromptTokenizer,
    kitchen_tokenizer,
    prompt_text,
)

GOLDEN = json.loads(
    (Path(__file__).parent / "data" / "processor" / "processor_golden.json").read_text("utf-8")
)
BINS = (-1, 0, 20, 255, 128, 7, 99, 200, 13)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(kitchen_tokenizer(), "utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return PromptTokenizer(path, KITCHEN.prompt_tokens)


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
    assert tokens.shape == mask.shape == (KITCHEN.prompt_tokens,)
    assert tokens[0] == BOS_ID
    assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert (tokens[~mask] == PAD_ID).all()


def test_ids_fit_the_kitchen_geometry(tokenizer):
    assert tokenizer.vocab <= KITCHEN.vocab


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_instruction_tokenises_and_the_state_is_never_cut(path, instruction):
    tokenizer = PromptTokenizer(path, KITCHEN.prompt_tokens)
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


def test_a_broken_tokenizer_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        PromptTokenizer(tmp_path / "tokenizer.json", 48)
