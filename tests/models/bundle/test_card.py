"""A bundle's README says what it is, from facts that the bundle itself holds."""

from dataclasses import replace

import pytest
from support.tiny_bundle import write_tiny_bundle

from z1_ros.errors import BundleError
from z1_ros.models.bundle.card import CARD, model_card
from z1_ros.models.bundle.manifest import (
    MANIFEST,
    NormStats,
    PromptSpec,
    file_sha256,
    load_bundle,
    write_manifest,
)
from z1_ros.specs import PANDA

IMPORTED = {
    "command": "z1-import pi05_base --embodiment panda",
    "source": {
        "name": "pi05_base",
        "kind": "lerobot",
        "layout": "openpi",
        "dtype": "BF16",
        "statistics": "stats.json",
        "modes": {"state": "QUANTILES", "action": "MEAN_STD"},
        "sha256": {"model.safetensors": "f" * 64},
    },
    "parameters": 3_350_000_000,
    "slots": {"base_0_rgb": PANDA.cameras[0], "left_wrist_0_rgb": None},
    "order": "ee-first | as stated",
    "notes": ["Something to know."],
    "versions": {"torch": "2.13.0"},
}
TRAINED = {
    "command": "z1-sft --bundle x",
    "seed": 7,
    "tasks": ["OpenDrawer", "TurnOnMicrowave"],
    "episodes": 90,
    "held_out_episodes": 10,
    "frames": 1234,
    "steps": 50,
    "train_minutes": 1.5,
    "held_out_loss": 0.25,
    "held_out_action_error": 0.125,
    "parameters": 2_620_000,
    "device": "2 CPU cores (x86_64)",
    "train": {"batch_size": 16, "draws": 4},
    "versions": {"torch": "2.13.0", "python": "3.11"},
}


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def card(bundle, **changed):
    return model_card(replace(bundle.manifest, **changed), bundle.path)


def test_a_card_lists_every_number_that_goes_in_and_out(bundle):
    text = card(bundle)
    assert text.startswith("# tiny\n")
    names = [name for f in bundle.manifest.contract.state for name in f.dim_names]
    for at, name in enumerate(names):
        assert f"| {at} | {name} | m | -1 … 1 |" in text
    assert "| 6 | gripper_close.close | sign | -1 … 1 |" in text
    for camera in PANDA.cameras:
        assert camera in text
    assert "| horizon | 8 |" in text and "| robot | panda, 20 Hz |" in text


def test_z_scores_are_shown_as_mean_and_deviation(bundle):
    scaling = replace(bundle.manifest.normalization, action_mode="mean_std", form="openpi")
    text = card(bundle, normalization=scaling)
    assert "| 6 | gripper_close.close | sign | 0 ± 1 |" in text
    assert "| 0 | end_effector_position_relative.x | m | -1 … 1 |" in text
    assert "| normalisation of the actions | z-score |" in text and "| openpi |" in text


def test_a_card_holds_the_hash_of_every_file_and_the_manifest_that_of_the_card(bundle):
    (bundle.path / CARD).write_text(card(bundle), "utf-8")
    write_manifest(bundle.path, bundle.manifest)
    text = (bundle.path / CARD).read_text("utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        assert f"| {name} | `{file_sha256(bundle.path / name)}` |" in text
    assert f"| {MANIFEST} |" not in text and f"| {CARD} |" not in text
    assert load_bundle(bundle.path).manifest.files[CARD] == file_sha256(bundle.path / CARD)
    assert text == card(load_bundle(bundle.path)), "a card does not depend on itself"


def test_parameters_and_types_are_those_of_the_file(bundle):
    assert "| dtype | F32 |" in card(bundle)
    (bundle.path / "model.safetensors").unlink()
    assert "| dtype |" not in card(bundle)


def test_an_imported_policy_says_where_it_comes_from(bundle):
    contract = replace(bundle.manifest.contract, cameras=PANDA.cameras[:1])
    text = card(bundle, made_by=IMPORTED, contract=contract)
    for fact in (
        "3,350.0 M parameters, imported",
        "`pi05_base`, lerobot checkpoint in the openpi layout, BF16",
        "stats.json: state QUANTILES, action MEAN_STD",
        "robot0_agentview_left (slot base_0_rgb); 2 masked slots",
        "f" * 64,
        "- Something to know.",
        "ee-first \\| as stated",
    ):
        assert fact in text, fact


def test_a_policy_without_state_says_so(bundle):
    text = card(
        bundle,
        prompt=PromptSpec(max_tokens=48, discrete_state=False),
        contract=replace(bundle.manifest.contract, state=()),
        normalization=replace(bundle.manifest.normalization, state=NormStats()),
    )
    assert "State: none." in text and "instruction and no state" in text


def test_a_trained_policy_keeps_its_training_table(bundle):
    text = card(bundle, made_by=TRAINED)
    for fact in (
        "A 2.62 M-parameter policy",
        "| tasks | OpenDrawer, TurnOnMicrowave |",
        "| seed | 7 |",
        "90 successful demonstrations",
        "50 steps of 16 observations × 4 draws, 1.5 min on 2 CPU cores",
        "| held-out loss | 0.2500 |",
        "torch 2.13.0, python 3.11",
    ):
        assert fact in text, fact
    assert "started from" not in text


def test_a_fine_tuned_policy_names_what_it_started_from(bundle):
    init = {"name": "pi05_base", "sha256": "a" * 64, "source": IMPORTED["source"]}
    text = card(bundle, made_by=TRAINED | {"init": init})
    assert f"| started from | pi05_base (sha256 `{'a' * 64}`) |" in text
    assert "| which came from | `pi05_base` (lerobot) |" in text


def test_a_malformed_origin_is_one_sentence(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "b")
    for origin in ({"train": 3}, {"z1": {}}, {"source": []}, {"train": {}, "init": {"name": 1}}):
        with pytest.raises(BundleError, match="made_by of b is malformed") as error:
            model_card(replace(bundle.manifest, made_by=origin), bundle.path)
        assert "\n" not in str(error.value)
