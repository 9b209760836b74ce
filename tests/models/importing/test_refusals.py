"""What an import refuses, and that a refusal or an interruption leaves nothing behind."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.foreign import (
    BASE_FIRST,
    BASE_STATS,
    EE_FIRST,
    EE_STATS,
    edit_json,
    edit_normalizers,
    flat,
    import_config,
    import_quietly,
    modality,
    openpi_stats,
    pad_features,
    samples,
    stats_of,
    write_json,
    write_lerobot,
    write_openpi,
)

from z1_ros.command import run_command
from z1_ros.errors import BundleError, CheckpointError, ConfigError, ContractMismatch, Z1Error
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.models.importing import importer as module
from z1_ros.models.importing.config import ImportConfig
from z1_ros.specs import PANDA, PANDA_OMRON

LEFT, RIGHT, WRIST = PANDA_OMRON.cameras


@pytest.fixture
def openpi(tmp_path):
    return write_openpi(tmp_path / "pi05_robocasa", EE_STATS)


@pytest.fixture
def lerobot(tmp_path):
    return write_lerobot(tmp_path / "pi05_kitchen", BASE_STATS)


def test_the_wrong_order_of_columns_is_refused_and_the_right_one_named(lerobot, openpi):
    with pytest.raises(CheckpointError, match=r"column .* expected .*look like base-first\."):
        import_quietly(import_config(lerobot))
    with pytest.raises(CheckpointError, match=r"look like ee-first\."):
        import_quietly(import_config(openpi, modality="base-first"))
    bundle = import_quietly(import_config(lerobot, allow_suspicious_stats=True))
    assert bundle.manifest.contract.action_dims == PANDA_OMRON.action_dims


def test_a_modality_file_in_the_checkpoint_names_columns_and_cameras(lerobot):
    def rename(data):
        features = data["input_features"]
        features["observation.images.image"] = features.pop(f"observation.images.{LEFT}")

    edit_json(lerobot / "config.json", rename)
    data = modality(BASE_FIRST)
    write_json(lerobot / "meta" / "modality.json", data)
    with pytest.raises(ConfigError, match="image slots image: pass --cameras"):
        import_quietly(import_config(lerobot, modality=""))
    data["video"] = {LEFT: {"original_key": "observation.images.image"}}
    write_json(lerobot / "meta" / "modality.json", data)
    manifest = import_quietly(import_config(lerobot, modality="")).manifest
    assert manifest.made_by["slots"] == {WRIST: WRIST, RIGHT: RIGHT, "image": LEFT}
    assert manifest.made_by["order"] == "modality.json"
    assert manifest.contract.action_dims[0] == "base_motion.forward"


def test_sizes_that_do_not_add_up_are_refused(lerobot, openpi):
    with pytest.raises(
        ConfigError, match=r"state has 16 numbers, but the robot's own order \(joint_position \(7\)"
    ):
        import_quietly(import_config(lerobot, modality=""))
    with pytest.raises(ConfigError, match=r"has 12 numbers.* has 4\..*look like base-first"):
        import_quietly(import_config(lerobot, modality="base-first", action="base_motion"))
    with pytest.raises(CheckpointError, match=r"name only 14; number 14 is no padding"):
        import_quietly(import_config(openpi, state=",".join(EE_FIRST.state[:-1])))
    with pytest.raises(ConfigError, match=r"no state field 'base_pose'.*Did you mean"):
        import_quietly(import_config(openpi, state="base_pose"))


def test_a_policy_that_cannot_drive_the_robot_is_refused(openpi):
    some = ",".join(EE_FIRST.action[:3])
    stats = {
        "state": EE_STATS["state"],
        "action": {k: v[:7] for k, v in EE_STATS["action"].items()},
    }
    write_json(openpi / "assets" / "robot" / "norm_stats.json", openpi_stats(stats))
    with pytest.raises(ContractMismatch, match=r"needs action dimensions \['base_motion"):
        import_quietly(import_config(openpi, action=some))
    with pytest.raises(ConfigError, match="robot 'panda' has no state field 'base_position'"):
        import_quietly(import_config(openpi, embodiment="panda"))
    arm = import_config(
        openpi, embodiment="panda", modality="", state=EE_FIRST.state[0], discrete_state=False
    )
    assert import_quietly(arm).manifest.contract.action_dims == PANDA.action_dims


def test_the_own_order_is_taken_where_sizes_are_equal(tmp_path):
    values = samples()
    own = {
        kind: tuple(field.name for field in getattr(PANDA, kind)) for kind in ("state", "action")
    }
    assert flat(own["action"], values).shape[1] == 7
    order = replace(EE_FIRST, **own)
    checkpoint = write_openpi(tmp_path / "arm", stats_of(order))
    manifest = import_quietly(import_config(checkpoint, embodiment="panda", modality="")).manifest
    assert manifest.contract.state == PANDA.state
    assert manifest.made_by["order"] == "the robot's own order"


def test_base_weights_without_statistics_ask_for_them(lerobot, tmp_path):
    """As LeRobot publishes pi05_base: features padded to 32, no statistics."""
    edit_normalizers(lerobot, lambda step: step.pop("state_file"))
    pad_features(lerobot)
    with pytest.raises(CheckpointError, match=r"no statistics of the state .*pass --norm-stats"):
        import_quietly(import_config(lerobot))
    data = {"observation.state": EE_STATS["state"], "action": EE_STATS["action"]}
    stats = write_json(tmp_path / "data" / "meta" / "stats.json", data)
    manifest = import_quietly(import_config(lerobot, norm_stats=stats)).manifest
    assert manifest.normalization.form == "lerobot"
    assert manifest.made_by["source"]["statistics"] == "stats.json"


def test_nothing_is_written_where_something_is(openpi):
    bundle = import_quietly(import_config(openpi))
    before = bundle.sha256
    with pytest.raises(ConfigError, match="pass --overwrite to replace it"):
        import_quietly(import_config(openpi))
    assert import_quietly(import_config(openpi, overwrite=True, replan_steps=3)).sha256 != before
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        import_quietly(import_config(openpi, out=openpi, overwrite=True))
    with pytest.raises(CheckpointError, match="layout of a bundle already"):
        import_quietly(import_config(openpi.parent / "bundle", out=openpi.parent / "again"))
    (openpi.parent / "empty").mkdir()
    assert import_quietly(import_config(openpi, out=openpi.parent / "empty")).path.name == "empty"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), BundleError),
    ],
)
def test_an_interrupted_import_leaves_the_older_bundle_and_nothing_else(
    openpi, monkeypatch, error, raised
):
    before = import_quietly(import_config(openpi)).sha256

    def fail(path, tensors):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(module, "write_tensors", fail)
    with pytest.raises(raised):
        import_quietly(import_config(openpi, overwrite=True))
    assert load_bundle(openpi.parent / "bundle").sha256 == before
    with pytest.raises(raised):
        import_quietly(import_config(openpi, out=openpi.parent / "other"))
    assert sorted(p.name for p in openpi.parent.iterdir()) == ["bundle", "pi05_robocasa"]


def test_everything_is_checked_before_weights_are_copied(openpi, monkeypatch):
    monkeypatch.setattr(module, "write_tensors", None)
    for changed, words in (
        ({"tokenizer": str(openpi / "config.json")}, "is not a tokenizer"),
        ({"prompt_tokens": 40}, "need more than the 40 tokens"),
        ({"replan_steps": 11}, "replan_steps is 11, expected 1 to 10"),
        ({"replan_steps": 0}, "replan_steps is 0"),
        ({"denoise_steps": 0}, "denoise_steps is 0"),
        ({"cameras": "base_0_rgb=front"}, "no camera 'front'"),
        ({"embodiment": "pandaa"}, "Did you mean 'panda'"),
        ({"vision_heads": None}, "vision_heads"),
        ({"vision_heads": 0}, "vision_heads is 0, expected a whole number from 1"),
        ({"vision_heads": 5}, "vision_width 48 is not a multiple of vision_heads 5"),
        ({"norm_stats": openpi / "nope.json"}, "no such path"),
        ({"checkpoint": openpi / "nope"}, "no checkpoint at"),
    ):
        with pytest.raises(Z1Error, match=words):
            import_quietly(replace(import_config(openpi), **changed))
    assert [p.name for p in openpi.parent.iterdir()] == ["pi05_robocasa"]


def test_weights_that_are_not_finite_are_refused(openpi):
    tensors = load_file(openpi / "model.safetensors")
    tensors["action_in_proj.bias"][3] = np.nan
    save_file(tensors, openpi / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"action_in_proj\.bias is not finite"):
        import_quietly(import_config(openpi))


def test_statistics_inside_the_weights_are_recognised(lerobot):
    """LeRobot before 0.4 kept them in buffers of the policy."""
    tensors = load_file(lerobot / "model.safetensors")
    for name in ("normalize_inputs.buffer_observation_state", "unnormalize_outputs.buffer_action"):
        tensors[f"{name}.mean"] = np.zeros(12, np.float32)
    save_file(tensors, lerobot / "model.safetensors")
    with pytest.raises(CheckpointError, match="migrate_policy_normalization"):
        import_quietly(import_config(lerobot, modality="base-first"))


def test_the_command_prints_every_decision_and_errors_in_one_line(openpi, capsys):
    out = openpi.parent / "bundle"
    flags = [str(openpi), "--embodiment", "panda_omron", "--out", str(out), "--vision-heads", "4"]
    command = ("z1-import", module.main, ImportConfig)
    assert run_command(*command, flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("z1-import: the checkpoint's state has 16 numbers")
    assert said.endswith("The statistics look like ee-first.\n") and "Traceback" not in said
    assert run_command(*command, [*flags, "--modality", "ee-first"]) == 0
    said = capsys.readouterr().out
    for words in (
        f"slot left_wrist_0_rgb ← {WRIST}",
        "bilinear_antialias",
        "base_motion",
        "note: Nothing beside the weights says",
        "z1-export",
    ):
        assert words in said
