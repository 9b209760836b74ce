"""The VLA policy around its graphs: noise, Euler steps, refusals. The graphs here are formulas."""

from dataclasses import replace

import numpy as np
import pytest
from support.manifests import stats as unit_stats
from support.tiny_bundle import TINY, observation, tiny_contract, write_tiny_bundle

from z1_ros.errors import ActionError, BundleError, ConfigError, ObservationError
from z1_ros.models.bundle.manifest import Normalization, NormStats, load_bundle, write_manifest
from z1_ros.policy.backends import load_policy
from z1_ros.policy.vla import VlaPolicy, flow_noise
from z1_ros.specs import PANDA

ACTIONS = len(tiny_contract().action_dims)


class Prefix:
    """Passes on the mean pixel of each camera and the tokens."""

    name = "formula"

    def run(self, inputs):
        self.inputs = inputs
        return {"k": inputs["images"].mean((2, 3, 4)), "v": inputs["tokens"]}


class Denoise:
    """A flow whose velocity points from ``goal`` to the noise: Euler ends at ``goal``."""

    name = "formula"

    def __init__(self, goal):
        self.goal, self.times = goal, []

    def run(self, inputs):
        assert inputs["time"].dtype == inputs["x_t"].dtype == np.float32
        self.times.append(float(inputs["time"][0]))
        return {"v_t": (inputs["x_t"] - self.goal) / inputs["time"][:, None, None]}


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def policy_to(bundle, goal):
    return VlaPolicy(bundle, {"prefix": Prefix(), "denoise": Denoise(np.float32(goal))})


def test_euler_runs_from_time_one_to_the_goal_of_the_flow(bundle):
    policy = policy_to(bundle, 0.25)
    chunk = policy.infer(observation())
    assert policy.backends["denoise"].times == pytest.approx([1, 2 / 3, 1 / 3])
    assert chunk.actions.shape == (TINY.horizon, ACTIONS)
    assert chunk.actions.dtype == np.float32
    np.testing.assert_allclose(chunk.actions, 0.25, atol=1e-6)
    assert chunk.stamp_ns == 5 and chunk.dims == PANDA.action_dims


def test_actions_come_back_in_the_robots_units(bundle):
    stats = replace(unit_stats(ACTIONS), q01=(-2.0,) * ACTIONS, q99=(4.0,) * ACTIONS)
    normalization = Normalization(state=unit_stats(5), action=stats)
    bundle = write_manifest(bundle.path, replace(bundle.manifest, normalization=normalization))
    np.testing.assert_allclose(policy_to(bundle, 0.5).infer(observation()).actions, 2.5, atol=1e-5)


def test_actions_may_be_normalised_otherwise_than_the_state(bundle):
    stats = NormStats(mean=(0.0,) * ACTIONS, std=(3e-6,) * ACTIONS)
    normalization = Normalization(
        state=unit_stats(5), action=stats, action_mode="mean_std", form="openpi"
    )
    bundle = write_manifest(bundle.path, replace(bundle.manifest, normalization=normalization))
    actions = policy_to(bundle, 0.5).infer(observation()).actions
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, 0.5 * 4e-6, rtol=1e-5)  # openpi adds 1e-6


def test_a_tokenizer_of_more_ids_than_the_network_embeds_is_refused(bundle):
    geometry = {**bundle.manifest.geometry, "vocab": 500}
    bundle = write_manifest(bundle.path, replace(bundle.manifest, geometry=geometry))
    with pytest.raises(BundleError, match=r"tokenizer\.json gives ids up to .* only 500"):
        policy_to(bundle, 0)


def test_noise_depends_on_seed_and_stamp_alone():
    base = flow_noise(3, 10**18, (4, 5))
    assert np.array_equal(base, flow_noise(3, 10**18, (4, 5)))
    assert not np.array_equal(base, flow_noise(4, 10**18, (4, 5)))
    assert not np.array_equal(base, flow_noise(3, 10**18 + 1, (4, 5)))
    many = flow_noise(0, 0, (400, 50))
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03


def test_chunks_do_not_depend_on_what_was_asked_before(bundle):
    class Passing(Denoise):
        def run(self, inputs):
            return {"v_t": np.zeros_like(inputs["x_t"])}

    def policy():
        made = VlaPolicy(bundle, {"prefix": Prefix(), "denoise": Passing(0)})
        made.reset(11)
        return made

    busy = policy()
    for stamp in (1, 2, 3):
        busy.infer(observation(stamp))
    alone = policy().infer(observation(9)).actions
    assert np.array_equal(busy.infer(observation(9)).actions, alone)
    together = policy().infer_batch([observation(1), observation(9)], [4, 11])
    assert np.array_equal(together[1].actions, alone)


def test_unused_cameras_are_allowed_and_missing_ones_are_named(bundle):
    extra = observation().images | {"ceiling": np.zeros((4, 4, 3), np.uint8)}
    policy_to(bundle, 0).infer(observation(images=extra))
    one = PANDA.cameras[0]
    with pytest.raises(ObservationError, match=f"no image of camera '{PANDA.cameras[1]}'"):
        policy_to(bundle, 0).infer(observation(images={one: extra[one]}))


def test_slots_beyond_the_cameras_are_masked_out(bundle):
    contract = replace(bundle.manifest.contract, cameras=PANDA.cameras[:2])
    bundle = write_manifest(bundle.path, replace(bundle.manifest, contract=contract))
    policy = policy_to(bundle, 0)
    policy.infer(observation())
    inputs = policy.backends["prefix"].inputs
    assert inputs["image_mask"].tolist() == [[True, True, False]]
    assert (inputs["images"][0, 2] == -1).all()
    assert inputs["images"].shape == (1, 3, 3, 32, 32)


def test_state_reaches_the_prompt_by_name(bundle):
    policy = policy_to(bundle, 0)
    policy.infer(observation())
    first = policy.backends["prefix"].inputs["tokens"]
    state = observation().state
    policy.infer(observation(state=dict(reversed(state.items()))))
    assert np.array_equal(first, policy.backends["prefix"].inputs["tokens"])
    policy.infer(observation(state=state | {"gripper_qpos": np.array([1, -1], np.float32)}))
    assert not np.array_equal(first, policy.backends["prefix"].inputs["tokens"])
    with pytest.raises(ObservationError, match="no state field 'gripper_qpos'"):
        policy.infer(observation(state={k: v for k, v in state.items() if k != "gripper_qpos"}))


def test_actions_that_are_not_finite_are_refused(bundle):
    with pytest.raises(ActionError, match="not finite"):
        policy_to(bundle, np.nan).infer(observation())


def test_a_velocity_of_another_shape_is_refused(bundle):
    class Narrow(Denoise):
        def run(self, inputs):
            return {"v_t": inputs["x_t"][:, :1]}  # would be broadcast

    policy = VlaPolicy(bundle, {"prefix": Prefix(), "denoise": Narrow(0)})
    with pytest.raises(ActionError, match=r"gave v_t \(1, 1, 9\), expected \(1, 8, 9\)"):
        policy.infer(observation())


def test_a_bundle_without_graphs_and_an_unknown_backend_are_named(bundle):
    with pytest.raises(BundleError, match=r"has no 'prefix\.onnx'"):
        load_policy(bundle.path, backend="onnxruntime")
    with pytest.raises(ConfigError, match=r"no backend 'onnxruntim'.*Did you mean 'onnxruntime'"):
        load_policy(bundle.path, backend="onnxruntim")


def test_a_damaged_graph_is_named(bundle):
    for graph in ("prefix", "denoise"):
        (bundle.path / f"{graph}.onnx").write_bytes(b"not a graph")
    write_manifest(bundle.path, load_bundle(bundle.path).manifest)
    with pytest.raises(BundleError, match=r"prefix\.onnx is no ONNX graph"):
        load_policy(bundle.path)
