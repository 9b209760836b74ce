"""A bundle loads whole and unchanged, or not at all."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.manifests import MANIFEST_VALUE

from z1_ros.errors import BundleError
from z1_ros.models.bundle.manifest import (
    MANIFEST,
    MODELS,
    Bundle,
    Normalization,
    NormStats,
    file_sha256,
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


def edit(bundle: Bundle, place: str, value: Any = ...) -> Path:
    """Set the value at a dotted place of the manifest, or remove its key."""
    data = json.loads((bundle.path / MANIFEST).read_text())
    *parents, last = place.split(".")
    node = data
    for name in parents:
        node = node[int(name) if isinstance(node, list) else name]
    if value is ...:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    return bundle.path


def refusal(path: Path) -> str:
    """Return the one sentence with which a bundle is refused."""
    with pytest.raises(BundleError) as error:
        load_bundle(path)
    text = str(error.value)
    assert MANIFEST in text and "\n" not in text and len(text) < 600
    return text


FIELD = {"name": "more", "dims": ["a"], "unit": "m"}
Z = "end_effector_position.z"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("nmae", "x", "Did you mean 'name'"),
        ("format", "z1_ros.bundle/99", "expected 'z1_ros.bundle/1'"),
        ("format", 3, "format is 3"),
        ("name", 3, "name must be text"),
        ("name", "two\nlines", "name must be text in one line of 1 to 500 characters"),
        ("embodiment", None, "embodiment must be text in one line"),
        ("contract", 3, "contract must be an object, got 3"),
        ("contract.cameras", [], "contract.cameras must name at least one"),
        ("contract.cameras", "robot0_eye_in_hand", "contract.cameras must be a list"),
        ("contract.cameras", ["a", "b", "a"], "contract.cameras names a twice"),
        ("contract.cameras", list("abcd"), "the contract has 4 cameras, the network 3"),
        ("contract.cameras.0", ["a"], "contract.cameras[0] must be text"),
        ("contract.state.0", FIELD | {"name": "gripper_qpos"}, "state names gripper_qpos twice"),
        ("contract.action.0.dims", ["x", "x", "z"], "end_effector_position names x twice"),
        ("contract.action.0.dims", [], "end_effector_position must name at least one"),
        ("contract.action.0.unit", 1, "contract.action[0].unit must be text"),
        ("contract.action.0", FIELD | {"low": 0}, "contract.action[0] has no key 'low'"),
        ("contract.action", [], "contract.action must name at least one"),
        ("contract.control_hz", 0, "contract.control_hz is 0, expected up to 1000"),
        ("contract.control_hz", float("nan"), "contract.control_hz must be a finite number"),
        ("contract.control_hz", 10**400, "contract.control_hz must be a finite number"),
        ("contract.control_hz", True, "contract.control_hz must be a finite number, got True"),
        ("contract.horizon", 15, "contract.horizon is 15, the geometry says 16"),
        ("image", {"sizee": 3}, "image has no key 'sizee'"),
        ("image.resize", "nearest", "image.resize is 'nearest'"),
        ("image.resize", "bilinear_antialiased", "Did you mean 'bilinear_anti"),
        ("image.size", 112, "image.size is 112, the geometry says 96"),
        ("image.size", 96.0, "image.size must be a whole number, got 96.0"),
        ("prompt.discrete_state", "no", "must be true or false"),
        ("replan_steps", "8", "replan_steps must be a whole number, got '8'"),
        ("replan_steps", 17, "replan_steps is 17, expected 1 to 16"),
        ("denoise_steps", 0, "denoise_steps is 0"),
        ("denoise_steps", True, "denoise_steps must be a whole number"),
        ("geometry", {}, "geometry lacks or does not know: action_dim"),
        ("geometry.depth", 10**9, "depth is 1000000000, expected a whole number from 1 to 128"),
        ("geometry.vlm_width", "128", "geometry.vlm_width must be a whole number, got '128'"),
        ("geometry.cameras", 10**8, "cameras is 100000000, expected"),
        ("files", ["a"], "files must be an object"),
        ("files", {"model.safetensors": "0"}, "must be a SHA-256"),
        ("files", {"../x": "0" * 64}, "'../x', which is not a plain file name"),
        ("files", {MANIFEST: "0" * 64}, "not a plain file name"),
        ("made_by", [], "made_by must be an object"),
    ],
)
def test_a_value_of_a_wrong_type_range_or_number_is_one_clear_error(
    bundle, place: str, value: Any, words: str
) -> None:
    assert words in refusal(edit(bundle, place, value))


OPTIONAL = {"experts", "mean", "std"}


def keys(data: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted place of every key of the manifest."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(data, dict):
            yield f"{place}{key}"
        if isinstance(value, (dict, list)) and key not in ("made_by", "files"):
            yield from keys(value, f"{place}{key}.")


def test_no_key_is_silently_replaced_by_a_default(bundle) -> None:
    text = (bundle.path / MANIFEST).read_text()
    places = list(keys(json.loads(text)))
    assert len(places) > 60
    for place in places:
        key = place.rpartition(".")[2]
        path = edit(bundle, place)
        if key in OPTIONAL:
            load_bundle(path)
        else:
            assert key in refusal(path), place
        (bundle.path / MANIFEST).write_text(text)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("state.q01", [0.0], "state.q01 must be 9 numbers"),
        ("state.q01", [], "state.q01 must be 9 numbers"),
        ("state.q01", None, "state.q01 must be a list, got null"),
        ("state.q01", 0.5, "state.q01 must be a list, got 0.5"),
        ("state.q99.3", 2e6, "state.q99 must be 9 numbers within ±1,000,000"),
        ("action.mean.6", float("nan"), "action.mean[6] must be a finite number"),
        ("action.q99.6", 10**400, "action.q99[6] must be a finite number, got a long one"),
        ("action.q99.6", "1", "action.q99[6] must be a finite number"),
        ("action.q99.6", True, "action.q99[6] must be a finite number"),
        ("action.q99.2", 9e18, "action.q99 must be 7 numbers within ±1,000,000"),
        ("action.q99.2", 900, f"action.q99 of {Z} is 900, but robot 'panda' takes commands within"),
        ("action.q99.6", -2.0, "action.q99 of gripper_close.close is -2.0, below its q01 -1.0"),
        ("state.std.0", -0.5, "state.std of end_effector_position_relative.x is -0.5, below 0"),
        ("action.q99", [-1.0] * 7, "action: q99 is q01 in every dimension"),
        ("state.q01", [1.0] * 9, "state: q99 is q01 in every dimension"),
        ("mode", "quantiles", "normalization.mode is 'quantiles'"),
        ("action_mode", "min_max", "normalization.action_mode is 'min_max'"),
        ("form", "open-pi", "Did you mean 'openpi'"),
        ("form", ["openpi"], "normalization.form is"),
    ],
)
def test_a_wrong_normalisation_is_one_clear_error(
    bundle, place: str, value: Any, words: str
) -> None:
    assert words in refusal(edit(bundle, f"normalization.{place}", value))


def test_the_statistics_of_the_actions_own_mode_are_needed(bundle) -> None:
    edit(bundle, "normalization.action.std", [])
    load_bundle(bundle.path)
    path = edit(bundle, "normalization.action_mode", "mean_std")
    assert "action.std must be 7 numbers" in refusal(path)


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


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_bundle_names_its_tokenizer_file(bundle, name: str) -> None:
    (bundle.path / name).write_text("x")
    assert write_manifest(bundle.path, bundle.manifest).tokenizer == bundle.path / name


def test_a_bundle_without_a_tokenizer_says_what_it_lacks(bundle) -> None:
    with pytest.raises(BundleError, match=r"no tokenizer: tokenizer\.json or tokenizer\.model"):
        _ = bundle.tokenizer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x"}', "embodiment is missing"),
        ("{", "is malformed"),
        ("[]", "must be an object, got list of 0"),
        ("[" * 100_000, "is malformed"),
        ('{"name": "x", "name": "y"}', "key 'name' stands twice"),
        ('{"name": "\\ud800"}', "surrogates not allowed"),
        ("9" * 5000, "is malformed"),
        ('{"name": ' + "[" * 70 + "]" * 70 + "}", "nested more than 64 levels deep"),
    ],
)
def test_broken_json_is_one_clear_error(bundle, text: str, words: str) -> None:
    (bundle.path / MANIFEST).write_text(text)
    assert words in refusal(bundle.path)


def test_a_huge_manifest_is_not_read(bundle) -> None:
    with (bundle.path / MANIFEST).open("r+b") as stream:
        stream.truncate(1 << 40)
    assert "expected at most" in refusal(bundle.path)


def test_a_file_that_was_changed_since_it_was_hashed_is_not_given_out(bundle) -> None:
    loaded = load_bundle(bundle.path)
    file = loaded.file("model.safetensors")
    file.write_bytes(b"weights")  # the same again
    loaded.require_unchanged()
    assert loaded.read("model.safetensors") == b"weights"
    file.write_bytes(b"others")
    for read in (loaded.file, loaded.read):
        with pytest.raises(BundleError, match=r"written while it was loaded .model\.safetensors"):
            read("model.safetensors")
    with pytest.raises(BundleError, match="was written while it was loaded"):
        loaded.require_unchanged()
    file.unlink()
    with pytest.raises(BundleError, match="was written while it was loaded"):
        loaded.require_unchanged()


def test_bundles_of_the_package_load_unchanged() -> None:
    for name in ("kitchen-sft", "kitchen-z1"):
        loaded = load_bundle(name)
        assert loaded.sha256 == file_sha256(MODELS / name / MANIFEST)
        assert loaded.manifest.denoise_steps == 5


def test_a_wrong_path_says_what_a_bundle_is(tmp_path) -> None:
    with pytest.raises(BundleError, match="no model bundle at"):
        load_bundle(tmp_path / "nope")
    with pytest.raises(BundleError, match="not a model bundle"):
        load_bundle(tmp_path)
