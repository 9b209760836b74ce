"""What ``policy_node`` loads, and which model may take over from which."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.fakes import HashPolicy, contract_of

from z1_ros.errors import ActionError, BundleError, ContractMismatch
from z1_ros.models.bundle.manifest import MANIFEST, MODELS, load_bundle
from z1_ros.models.bundle.task_experts import denoise_graph
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.nodes.loading import LoadedPolicy, check_takes_over, load_bundle_policy, ready_policy
from z1_ros.policy import backends
from z1_ros.policy.backends import load_policy

OLD = LoadedPolicy(
    policy=HashPolicy(), name="old", replan_steps=4, embodiment="panda", sha256="a" * 64
)


def test_a_bundle_is_loaded_with_all_that_a_successor_is_compared_by():
    loaded = load_bundle_policy(PolicyNodeConfig(model="kitchen-sft", threads=1))
    bundle = load_bundle("kitchen-sft")
    assert (loaded.name, loaded.embodiment, loaded.sha256) == (
        "kitchen-sft",
        "panda",
        bundle.sha256,
    )
    assert loaded.replan_steps == bundle.manifest.replan_steps
    check_takes_over(loaded, loaded, 0)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"embodiment": "panda_omron"}, r"embodiment \('panda_omron' and 'panda'\)"),
        ({"replan_steps": 8}, r"replan_steps \(8 and 4\)"),
        ({"policy": HashPolicy(contract_of(control_hz=10.0))}, r"contract\.control_hz"),
        ({"policy": HashPolicy(contract_of(horizon=16))}, r"contract\.horizon \(16 and 8\)"),
    ],
)
def test_a_model_for_another_robot_or_rhythm_cannot_take_over(new, words):
    with pytest.raises(ContractMismatch, match=f"'new' cannot take over from 'old': .*{words}"):
        check_takes_over(replace(OLD, name="new", **new), OLD, 0)


def test_weights_may_differ_and_so_may_replan_steps_where_a_parameter_overrides_them():
    check_takes_over(replace(OLD, name="new", sha256="b" * 64), OLD, 0)
    check_takes_over(replace(OLD, name="new", replan_steps=8), OLD, 4)


def test_a_policy_is_ready_once_it_fits_the_robot_and_has_inferred_once():
    loaded = ready_policy(lambda config: OLD, PolicyNodeConfig())
    assert loaded.policy.seen[-1].instruction == "warm up"
    with pytest.raises(ContractMismatch, match="robot 'panda_omron' needs action dimensions"):
        ready_policy(lambda config: OLD, PolicyNodeConfig(embodiment="panda_omron"))


class Constant(HashPolicy):
    """Gives one number."""

    def __init__(self, shape: tuple[int, ...], value: float):
        super().__init__()
        self.actions = np.full(shape, value, np.float32)

    def infer(self, observation):
        return replace(super().infer(observation), actions=self.actions)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (
            Constant((8, 7), np.nan),
            "model 'old' gives actions that cannot be used: a value is not a finite",
        ),
        (Constant((4, 7), 0.0), r"gives actions that cannot be used: there are 4, expected 8"),
    ],
)
def test_a_policy_whose_chunk_cannot_be_used_is_not_ready(policy, says):
    with pytest.raises(ActionError, match=says):
        ready_policy(lambda config: replace(OLD, policy=policy), PolicyNodeConfig())


def test_every_task_expert_of_a_bundle_has_inferred_before_it_is_ready():
    config = PolicyNodeConfig(model="kitchen-z1", threads=1)
    loaded = load_bundle_policy(config)
    expert = next(iter(loaded.policy.manifest.experts))
    assert ready_policy(lambda config: loaded, config) is loaded

    class Broken:
        def run(self, inputs):
            return {"v_t": np.full_like(inputs["x_t"], np.nan)}

    loaded.policy.backends = {**loaded.policy.backends, denoise_graph(expert): Broken()}
    with pytest.raises(ActionError, match=f"expert '{expert}' of bundle 'kitchen-z1' gave actions"):
        ready_policy(lambda config: loaded, config)


def test_a_bundle_that_is_written_while_it_is_loaded_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mine"
    shutil.copytree(MODELS / "kitchen-sft", path)
    make = backends._backends

    def make_while_somebody_exports(*args):
        made = make(*args)
        text = (path / MANIFEST).read_text()
        (path / f"{MANIFEST}.tmp").write_text(json.dumps(json.loads(text)))
        (path / f"{MANIFEST}.tmp").replace(path / MANIFEST)
        return made

    monkeypatch.setattr(backends, "_backends", make_while_somebody_exports)
    with pytest.raises(BundleError, match="was written while it was loaded"):
        load_policy(path, threads=1)
    monkeypatch.undo()
    (path / "denoise.onnx.tmp").write_bytes(b"an export has begun")
    load_policy(path, threads=1)
