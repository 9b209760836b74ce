"""The torch networks of a bundle."""

import pytest
import torch
from support.tiny_bundle import TINY

from z1_ros.errors import BundleError, CheckpointError
from z1_ros.files import write_json
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle, write_manifest
from z1_ros.models.bundle.networks import load_bundle_network, with_expert
from z1_ros.models.bundle.random_bundle import write_random_bundle
from z1_ros.models.bundle.task_experts import EXPERT_PARTS, VLM_PARTS, weights_file
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors
from z1_ros.specs import PANDA


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks") / "two"
    return write_random_bundle(folder, TINY, PANDA, "float32", experts=("a", "b"))


def test_the_weights_are_those_of_the_file(bundle) -> None:
    own = read_tensors(bundle.file(WEIGHTS))
    network = load_bundle_network(bundle).state_dict()
    assert network.keys() == own.keys()
    assert all(torch.equal(network[name], tensor) for name, tensor in own.items())
    cast = load_bundle_network(bundle, dtype=torch.bfloat16)
    assert cast.vlm.last.k_proj.weight.dtype == torch.bfloat16


def test_experts_share_the_vlm_and_own_the_rest(bundle) -> None:
    base = load_bundle_network(bundle)
    expert = with_expert(base, bundle, "b")
    for part in VLM_PARTS:
        assert getattr(expert, part) is getattr(base, part)
    for part in EXPERT_PARTS:
        assert getattr(expert, part) is not getattr(base, part)
    own = read_tensors(bundle.file(weights_file("b")))
    assert all(torch.equal(expert.state_dict()[name], tensor) for name, tensor in own.items())
    with pytest.raises(BundleError, match=r"has no expert 'c'\. Known: a, b\."):
        load_bundle_network(bundle, "c")


def test_a_file_that_the_manifest_does_not_list_is_not_read(bundle, tmp_path) -> None:
    made = write_random_bundle(tmp_path / "one", TINY, PANDA, "float32")
    write_json(made.path / "config.json", {"type": "smolvla"})
    load_bundle_network(made)


def test_weights_changed_after_the_check_are_refused(tmp_path) -> None:
    made = write_random_bundle(tmp_path / "one", TINY, PANDA, "float32")
    weights = read_tensors(made.file(WEIGHTS))
    write_tensors(made.path / WEIGHTS, {name: t + 1 for name, t in weights.items()})
    with pytest.raises(BundleError, match="was written while it was loaded"):
        load_bundle_network(made)
    name = next(iter(weights))
    write_tensors(made.path / WEIGHTS, {n: t for n, t in weights.items() if n != name})
    write_manifest(made.path, made.manifest)
    with pytest.raises(CheckpointError, match="does not fit the network; tensors 1 missing"):
        load_bundle_network(load_bundle(made.path))
