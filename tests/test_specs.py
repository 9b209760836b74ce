"""Embodiments are named fields; contract and robot are compared before anything moves."""

from dataclasses import replace

import numpy as np
import pytest

from z1_ros.errors import ActionError, ConfigError, ContractMismatch, ObservationError, SeedError
from z1_ros.specs import (
    PANDA,
    PANDA_OMRON,
    TRAIN_SEED_END,
    Contract,
    Field,
    check_contract,
    embodiment,
    flatten_state,
    ordered_actions,
    require_seed,
)

CONTRACT = Contract(
    cameras=PANDA.cameras,
    state=PANDA.state[1:],
    action=tuple(Field(name=f.name, dims=f.dims, unit=f.unit) for f in PANDA.action),
    control_hz=20.0,
    horizon=16,
)


def test_a_model_that_uses_part_of_the_robot_fits() -> None:
    check_contract(replace(CONTRACT, cameras=PANDA.cameras[:1]), PANDA, "m")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cameras": ("wirst",)}, "camera 'wirst'"),
        ({"state": (Field(name="object_pos", dims=("x",), unit="m"),)}, "state field 'object_pos'"),
        ({"state": (Field(name="gripper_qpos", dims=("width",), unit="m"),)}, "gripper_qpos"),
        ({"action": CONTRACT.action[:2]}, "gripper_close.close"),
        ({"control_hz": 10.0}, "10.0 Hz"),
    ],
)
def test_a_mismatch_names_both_sides(change: dict, words: str) -> None:
    with pytest.raises(ContractMismatch) as error:
        check_contract(replace(CONTRACT, **change), PANDA, "my-model")
    message = str(error.value)
    assert words in message and "my-model" in message and "'panda'" in message


def test_the_arm_model_does_not_drive_the_mobile_robot() -> None:
    with pytest.raises(ContractMismatch, match=r"base_motion\.forward"):
        check_contract(CONTRACT, PANDA_OMRON, "m")


def test_hold_keeps_the_gripper_and_stops_the_rest() -> None:
    last = np.linspace(0.1, 1.2, PANDA_OMRON.action_dim, dtype=np.float32)
    hold = dict(zip(PANDA_OMRON.action_dims, PANDA_OMRON.hold_action(last), strict=True))
    assert hold.pop("gripper_close.close") == last[6]
    assert hold.pop("control_mode.base") == -1
    assert set(hold.values()) == {0}
    assert PANDA.hold_action(None).tolist() == [0] * 7


def test_action_field_is_found_by_name() -> None:
    actions = np.arange(24.0).reshape(2, 12)
    assert PANDA_OMRON.action_field(actions, "gripper_close").tolist() == [[6], [18]]
    with pytest.raises(ActionError, match="gripper_close"):
        PANDA.action_field(actions, "gripper_colse")


def test_flat_state_follows_the_given_order() -> None:
    a, b = Field(name="a", dims=("x", "y"), unit="m"), Field(name="b", dims=("z",), unit="m")
    state = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    assert flatten_state(state, (b, a)).tolist() == [3, 1, 2]


def test_the_mobile_robots_state_is_robocasas_16_numbers_after_its_joints() -> None:
    joints, *rest = PANDA_OMRON.state
    assert joints.name == "joint_position"
    assert [(field.name, field.size) for field in rest] == [
        ("end_effector_position_relative", 3),
        ("end_effector_rotation_relative", 4),
        ("base_position", 3),
        ("base_rotation", 4),
        ("gripper_qpos", 2),
    ]
    assert set(PANDA.state) < set(PANDA_OMRON.state)


@pytest.mark.parametrize("bad", [{}, {"a": np.zeros(3)}, {"a": np.array([np.nan, 0])}])
def test_bad_state_names_the_field(bad: dict) -> None:
    with pytest.raises(ObservationError, match="'a'"):
        flatten_state(bad, (Field(name="a", dims=("x", "y"), unit="m"),))


def test_training_and_evaluation_seeds_are_disjoint() -> None:
    assert require_seed(TRAIN_SEED_END - 1, "train") and require_seed(TRAIN_SEED_END, "eval")
    for seed, purpose in ((TRAIN_SEED_END, "train"), (TRAIN_SEED_END - 1, "eval"), (-1, "train")):
        with pytest.raises(SeedError):
            require_seed(seed, purpose)


def test_unknown_embodiment_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'panda'"):
        embodiment("pnada")


DIMS = ("a.x", "a.y", "b.z")


def test_actions_come_out_in_the_wanted_order_and_keep_their_type() -> None:
    one = np.array([1.0, 2.0, 3.0])
    assert ordered_actions(one, DIMS) is one
    assert ordered_actions(one, DIMS, DIMS) is one
    swapped = ordered_actions(one, DIMS, ("b.z", "a.x", "a.y"))
    assert swapped.tolist() == [2, 3, 1] and swapped.dtype == np.float64
    several = np.arange(6, dtype=np.float32).reshape(2, 3)
    swapped = ordered_actions(several, DIMS, DIMS[::-1], ndim=2)
    assert swapped.tolist() == [[2, 1, 0], [5, 4, 3]] and swapped.dtype == np.float32


@pytest.mark.parametrize(
    ("actions", "dims", "ndim", "says"),
    [
        (np.zeros(2), None, 1, r"shape is \(2,\), expected \(3,\)"),
        (np.zeros((1, 3)), None, 1, r"shape is \(1, 3\), expected \(3,\)"),
        (np.zeros(3), None, 2, r"shape is \(3,\), expected \(k, 3\)"),
        (np.zeros(()), None, 1, r"shape is \(\), expected"),
        (np.array([0, np.nan, 0]), None, 1, "a value is not a finite number"),
        (np.array([0, 0, -np.inf]), DIMS, 1, "a value is not a finite number"),
        (np.array(["1", "2", "3"]), None, 1, "a value is not a finite number"),
        (np.zeros(3), DIMS[:2], 1, r"dimensions are \['a.x', 'a.y'\], expected"),
        (np.zeros(3), ("a.x", "a.x", "b.z"), 1, "dimensions are"),
        (np.zeros(3), ("a.x", "a.y", "b.q"), 1, "'b.q'"),
    ],
)
def test_actions_that_cannot_be_trusted_are_one_sentence(actions, dims, ndim, says) -> None:
    with pytest.raises(ActionError, match=says):
        ordered_actions(actions, DIMS, dims, ndim=ndim)
