"""Which expert an instruction goes to, and which bundles of experts are refused."""

import json
from dataclasses import replace

import pytest
from support.manifests import MANIFEST_VALUE

from z1_ros.errors import BundleError, first_difference
from z1_ros.models.bundle.manifest import MANIFEST, load_bundle, write_manifest
from z1_ros.models.bundle.task_experts import (
    TaskExpert,
    choose_expert,
    denoise_graph,
    is_expert_tensor,
    weights_file,
)
from z1_ros.sim.kitchen.tasks import TASKS

DRAWER = TaskExpert(instructions=("open the * drawer",), made_by={"seed": 1})
FAUCET = TaskExpert(instructions=("turn on the sink faucet", "turn on the water"))


@pytest.fixture
def bundle(tmp_path):
    for name in ("model.safetensors", weights_file("Drawer"), weights_file("Faucet")):
        (tmp_path / name).write_bytes(b"weights")
    experts = {"Drawer": DRAWER, "Faucet": FAUCET}
    return write_manifest(tmp_path, replace(MANIFEST_VALUE, experts=experts))


@pytest.mark.parametrize(
    ("instruction", "expert"),
    [
        ("open the left drawer", "Drawer"),
        ("  Open the\n RIGHT  drawer. ", "Drawer"),
        ("open_the_left_drawer", "Drawer"),
        ("turn on the water", "Faucet"),
        ("open the drawer", ""),
        ("please open the left drawer", ""),
        ("open the left drawer and turn on the water", ""),
        ("", ""),
    ],
)
def test_an_instruction_goes_to_the_expert_whose_pattern_it_matches_as_a_whole(
    bundle, instruction, expert
):
    assert bundle.manifest.expert_for(instruction) == expert


def test_an_instruction_that_two_experts_follow_names_both():
    experts = {"B": TaskExpert(instructions=("* drawer",)), "A": DRAWER}
    with pytest.raises(BundleError, match=r"experts A and B both follow 'open the left drawer'"):
        choose_expert(experts, "open the left drawer")
    assert choose_expert(experts, "close the left drawer") == "B"


def test_experts_survive_writing_and_reading(bundle):
    loaded = load_bundle(bundle.path)
    assert loaded.manifest == bundle.manifest
    assert loaded.manifest.experts["Drawer"] == DRAWER
    assert loaded.manifest.graphs == ("prefix", "denoise", "denoise_Drawer", "denoise_Faucet")


def test_a_manifest_written_before_there_were_experts_has_none(bundle):
    data = json.loads((bundle.path / MANIFEST).read_text())
    del data["experts"]
    data["files"] = {}
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    manifest = load_bundle(bundle.path).manifest
    assert manifest.experts == {} and manifest.expert_for("open the left drawer") == ""


@pytest.mark.parametrize(
    ("experts", "words"),
    [
        ({"A": DRAWER, "B": TaskExpert(instructions=("open *",))}, "experts A and B both follow"),
        ({"A": FAUCET, "B": FAUCET}, "experts A and B both follow 'turn on the sink faucet'"),
        ({"../A": DRAWER}, "expert '../A' must be named with letters"),
    ],
)
def test_overlapping_patterns_and_unusable_names_are_refused(experts, words):
    with pytest.raises(ValueError, match=words):
        replace(MANIFEST_VALUE, experts=experts)


@pytest.mark.parametrize(
    ("experts", "words"),
    [
        ([], "experts must be an object"),
        ({"A": []}, "experts.A must be an object"),
        ({"A": {}}, "instructions"),
        ({"A": {"instructions": []}}, "instructions must be a list"),
        ({"A": {"instructions": "open *"}}, "instructions must be a list"),
        ({"A": {"instructions": [" "]}}, "instructions must be a list"),
        ({"A": {"instructions": ["x"], "made_by": 3}}, "experts.A.made_by must be an object"),
        ({"A": {"instruction": ["x"]}}, "Did you mean 'instructions'"),
    ],
)
def test_a_malformed_list_of_experts_is_one_clear_error(bundle, experts, words):
    data = json.loads((bundle.path / MANIFEST).read_text()) | {"experts": experts}
    (bundle.path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=words) as error:
        load_bundle(bundle.path)
    assert MANIFEST in str(error.value) and "\n" not in str(error.value)


def test_missing_changed_and_foreign_files_of_experts_are_refused(bundle):
    path = bundle.path / weights_file("Drawer")
    path.write_bytes(b"others")
    with pytest.raises(BundleError, match=r"expert_Drawer\.safetensors is corrupted"):
        load_bundle(bundle.path)
    path.unlink()
    with pytest.raises(BundleError, match=r"incomplete: expert_Drawer\.safetensors is missing"):
        load_bundle(bundle.path)
    write_manifest(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match=r"incomplete: expert_Drawer\.safetensors is missing"):
        load_bundle(bundle.path)
    write_manifest(bundle.path, replace(bundle.manifest, experts={}))
    with pytest.raises(BundleError, match=r"holds expert_Faucet\.safetensors but its manifest"):
        load_bundle(bundle.path)


def test_names_of_graphs_and_tensors():
    assert denoise_graph("") == "denoise"
    assert is_expert_tensor("expert.layers.0.x") and is_expert_tensor("action_in_proj.bias")
    assert not is_expert_tensor("vlm.layers.0.x") and not is_expert_tensor("vision.expert.x")


def test_every_kitchen_instruction_matches_its_own_tasks_patterns_and_no_others():
    from z1_ros.sim.kitchen import KitchenEnv

    experts = {
        name: TaskExpert(instructions=task.instruction_patterns) for name, task in TASKS.items()
    }
    replace(MANIFEST_VALUE, experts=experts)
    for name in TASKS:
        env = KitchenEnv(name)
        for seed in range(6):
            env.reset(seed)
            assert choose_expert(experts, env.instruction) == name
        env.close()


def test_the_first_difference_is_named_with_both_values():
    one = MANIFEST_VALUE.contract
    assert first_difference("contract", one, one) == ""
    other = replace(one, control_hz=10.0)
    assert first_difference("contract", one, other) == "contract.control_hz (20.0 and 10.0)"
    other = replace(one, state=(replace(one.state[0], unit="mm"), *one.state[1:]))
    assert first_difference("contract", one, other) == "contract.state[0].unit ('m' and 'mm')"
    assert first_difference("x", (1,), (1, 2)) == "x ((1,) and (1, 2))"
