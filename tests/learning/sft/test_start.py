"""What supervised training starts from: random weights, or a bundle."""

from dataclasses import replace

import pytest
import torch
from support.demonstrations import make_demos
from support.tiny_bundle import TINY

from z1_ros.errors import ConfigError, ContractMismatch
from z1_ros.learning.sft import demos
from z1_ros.learning.sft.dataset import split_seeds
from z1_ros.learning.sft.start import STATE_FIELDS, contract_of, from_bundle, from_nothing
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.network.geometry import PRESETS
from z1_ros.specs import PANDA


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A few demonstrations of the tiny policy's image size."""
    return make_demos(tmp_path_factory.mktemp("start") / "demos", 4, image_size=TINY.image_size)


@pytest.fixture
def header(directory):
    return demos.read_header(directory)


def test_a_new_policy_sees_all_cameras_and_the_state_that_goes_into_its_prompt(header, tmp_path):
    contract = contract_of(header, 8)
    assert contract.cameras == PANDA.cameras and contract.horizon == 8
    assert [field.name for field in contract.state] == list(STATE_FIELDS)
    assert contract.action_dims == PANDA.action_dims and contract.control_hz == PANDA.control_hz
    start = from_nothing(header, "small", tmp_path)
    assert start.geometry == replace(PRESETS["small"], image_size=32, cameras=3)
    assert start.described() == {} and start.bundle is None
    assert PromptTokenizer(start.tokenizer, 48).encode("open the left drawer", None)[0].any()


def test_random_weights_follow_from_the_seed(header, tmp_path):
    start = from_nothing(header, "small", tmp_path)
    one, two, other = (start.network(seed).vlm.embed_tokens.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_bundles_weights_and_settings_are_where_fine_tuning_starts(
    header, tiny_bundle, tiny_network
):
    start, manifest = from_bundle(tiny_bundle, header), tiny_bundle.manifest
    assert start.contract == manifest.contract and start.geometry == TINY
    assert (start.denoise_steps, start.replan_steps) == (3, 4)
    for ours, theirs in zip(start.network(0).parameters(), tiny_network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert start.described() == {"init": {"name": "tiny", "sha256": tiny_bundle.sha256}}


@pytest.mark.parametrize(
    "made_by", [{"source": {"name": "pi05"}}, {"init": {"source": {"name": "pi05"}}}]
)
def test_the_checkpoint_that_a_bundle_was_imported_from_is_not_forgotten(
    header, tiny_bundle, made_by
):
    imported = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, made_by=made_by))
    assert from_bundle(imported, header).described()["init"]["source"] == {"name": "pi05"}


def test_normalization_is_the_bundles_or_the_demonstrations(header, directory, tiny_bundle):
    start, own = from_bundle(tiny_bundle, header), tiny_bundle.manifest.normalization
    episodes, _ = split_seeds(directory, ["OpenDrawer"], 0.25)
    assert start.normalization(directory, episodes, keep=True) == own
    fitted = start.normalization(directory, episodes, keep=False)
    assert fitted.mode == own.mode and fitted.form == own.form
    assert fitted.state != own.state and fitted.action != own.action


def test_demonstrations_that_do_not_fit_a_bundle_are_refused(header, tiny_bundle):
    with pytest.raises(ConfigError, match="images have 96 px, model 'tiny' needs 32"):
        from_bundle(tiny_bundle, header | {"image_size": 96})
    contract = replace(tiny_bundle.manifest.contract, control_hz=50.0)
    fast = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, contract=contract))
    with pytest.raises(ContractMismatch, match=r"acts at 50\.0 Hz"):
        from_bundle(fast, header)
