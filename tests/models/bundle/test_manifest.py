"""A bundle loads whole and unchanged, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.manifests import MANIFEST_VALUE

from z1_ros.errors import BundleError
from z1_ros.models.bundle.manifest import (
    MANIFEST,
    Bundle,
    Normalization,
    NormStats,
    load_bundle,
    write_manifest,
)


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return write_manifest(tmp_path, MANIFEST_VALUE)


def test_what_was_written_is_read_back(bundle) -> None:
    loaded = load_bundle(bundle.path)
    assert loaded.manifest == bundle.manifest
    assert loaded.manifest.contract == MANIFEST_VALUE.contract
    assert loaded.file("model.safetensors").read_bytes() == b"weights"


def test_the_identity_changes_with_any_file(bundle) -> None:
    before = bundle.sha256
    (bundle.path / "model.safetensors").write_bytes(b"other")
    assert write_manifest(bundle.path, bundle.manifest).sha256 != before


def test_a_changed_file_is_refused(bundle) -> None:
    (bundle.path / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(BundleError, match=r"model\.safetensors is corrupted"):
        load_bundle(bundle.path)


def test_a_missing_file_is_refused(bundle) -> None:
    (bundle.path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"incomplete: model\.safetensors"):
        load_bundle(bundle.path)


def test_a_file_outside_the_directory_is_refused(bundle) -> None:
    data = json.loads((bundle.path / MANIFEST).read_text())
    data["files"]["../x"] = "0" * 64
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match="not a plain file name"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nmae": "x"}, "Did you mean 'name'"),
        ({"format": "z1_ros.bundle/99"}, "expected 'z1_ros.bundle/1'"),
        ({"contract": 3}, "Contract must be an object"),
        ({"image": {"sizee": 3}}, "ImageSpec has no key"),
        ({"image": {"size": 96, "resize": "nearest"}}, "image.resize is 'nearest'"),
        ({"image": {"size": 96, "resize": "bilinear_antialiased"}}, "Did you mean 'bilinear_anti"),
        ({"image": {"size": 112}}, "geometry.image_size is 96"),
        ({"prompt": {"max_tokens": 48, "discrete_state": "no"}}, "must be true or false"),
        ({"replan_steps": "8"}, "replan_steps is '8'"),
        ({"replan_steps": 17}, "expected 1 to 16"),
        ({"denoise_steps": 0}, "denoise_steps is 0"),
        ({"geometry": {}}, "geometry lacks or does not know: action_dim"),
        ({"files": ["a"]}, "files must be an object"),
        ({"name": 3}, "name must be text"),
    ],
)
def test_a_malformed_manifest_is_one_clear_error(bundle, change: dict, words: str) -> None:
    data = json.loads((bundle.path / MANIFEST).read_text()) | change
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=words) as error:
        load_bundle(bundle.path)
    assert MANIFEST in str(error.value)


def rewrite(bundle: Bundle, **normalization: Any) -> Path:
    """Change parts of the manifest's normalisation, ``state`` and ``action`` part by part."""
    data = json.loads((bundle.path / MANIFEST).read_text())
    for name, value in normalization.items():
        if isinstance(value, dict):
            data["normalization"][name] |= value
        else:
            data["normalization"][name] = value
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    return bundle.path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": {"q01": [0.0]}}, "state.q01 must be 9 finite numbers"),
        ({"state": {"q01": []}}, "state.q01 must be 9 finite numbers"),
        ({"state": {"q01": None}}, "state.q01 must be 9 finite numbers"),
        ({"state": {"q01": 0.5}}, "state.q01 must be 9 finite numbers"),
        ({"action": {"mean": [0.0] * 6 + [float("nan")]}}, "action.mean must be 7 finite numbers"),
        ({"action": {"q99": [1.0] * 6 + [10**400]}}, "action.q99 must be 7 finite numbers"),
        ({"action": {"q99": [1.0] * 6 + ["1"]}}, "action.q99 must be 7 finite numbers"),
        ({"action": {"q99": [1.0] * 6 + [True]}}, "action.q99 must be 7 finite numbers"),
        (
            {"action": {"q99": [1.0] * 6 + [-2.0]}},
            "action.q99 of gripper_close.close is -2.0, below its q01 -1.0",
        ),
        (
            {"state": {"std": [-0.5] + [1.0] * 8}},
            "state.std of end_effector_position_relative.x is -0.5, below 0",
        ),
        ({"mode": "quantiles"}, "normalization.mode is 'quantiles'. .* Did you mean 'quantile'"),
        ({"action_mode": "min_max"}, "normalization.action_mode is 'min_max'"),
        ({"form": "open-pi"}, "normalization.form is 'open-pi'. .* Did you mean 'openpi'"),
        ({"form": ["openpi"]}, "normalization.form is"),
        ({"action_mode": "mean_std", "action": {"std": []}}, "action.std must be 7"),
    ],
)
def test_a_wrong_normalisation_is_one_clear_error(bundle, change: dict, words: str) -> None:
    with pytest.raises(BundleError, match=words) as error:
        load_bundle(rewrite(bundle, **change))
    assert MANIFEST in str(error.value)


def test_statistics_that_the_mode_does_not_need_may_be_absent(bundle) -> None:
    quantiles = NormStats(q01=(-1.0,) * 9, q99=(1.0,) * 9)
    moments = NormStats(mean=(0.0,) * 7, std=(1.0,) * 7)
    scaling = Normalization(
        mode="quantile", action_mode="mean_std", form="openpi", state=quantiles, action=moments
    )
    write_manifest(bundle.path, replace(bundle.manifest, normalization=scaling))
    assert load_bundle(bundle.path).manifest.normalization == scaling
    data = json.loads((bundle.path / MANIFEST).read_text())
    for part in ("mean", "std"):
        del data["normalization"]["state"][part]
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    assert load_bundle(bundle.path).manifest.normalization == scaling


def test_bundles_written_before_forms_and_action_modes_are_lerobots(bundle) -> None:
    data = json.loads((bundle.path / MANIFEST).read_text())
    for key in ("form", "action_mode"):
        del data["normalization"][key]
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    assert load_bundle(bundle.path).manifest == bundle.manifest
    assert bundle.manifest.normalization.form == "lerobot"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_bundle_names_its_tokenizer_file(bundle, name: str) -> None:
    (bundle.path / name).write_text("x")
    assert write_manifest(bundle.path, bundle.manifest).tokenizer == bundle.path / name


def test_a_bundle_without_a_tokenizer_says_what_it_lacks(bundle) -> None:
    with pytest.raises(BundleError, match=r"no tokenizer: tokenizer\.json or tokenizer\.model"):
        _ = bundle.tokenizer


def test_missing_keys_and_broken_json_are_named(bundle) -> None:
    (bundle.path / MANIFEST).write_text('{"name": "x"}')
    with pytest.raises(BundleError, match="missing"):
        load_bundle(bundle.path)
    (bundle.path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="malformed"):
        load_bundle(bundle.path)


def test_a_wrong_path_says_what_a_bundle_is(tmp_path) -> None:
    with pytest.raises(BundleError, match="no model bundle at"):
        load_bundle(tmp_path / "nope")
    with pytest.raises(BundleError, match="not a model bundle"):
        load_bundle(tmp_path)
