"""Embodiments: which cameras, state fields and actions a robot has, by name.

Every flat order is defined here. Public data uses two incompatible flat orders of RoboCasa, so
vectors are always built from, and split into, named fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from z1_ros.errors import (
    ActionError,
    ConfigError,
    ContractMismatch,
    ObservationError,
    SeedError,
    closest,
)

TRAIN_SEED_END = 10_000
"""Scene seeds below this are for demonstrations and training, the others for evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A named group of numbers, e.g. the end effector's position."""

    name: str
    """Field name as in RoboCasa's gym keys, without the ``state.`` or ``action.`` prefix."""
    dims: tuple[str, ...]
    """Name of each number; a field of one number has one dim."""
    unit: str
    """Unit of every number."""

    @property
    def size(self) -> int:
        """Number of dimensions."""
        return len(self.dims)

    @property
    def dim_names(self) -> tuple[str, ...]:
        """Full names, ``field.dim``."""
        return tuple(f"{self.name}.{dim}" for dim in self.dims)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionField(Field):
    """A field that a policy commands."""

    low: float
    """Lower limit of each number."""
    high: float
    """Upper limit of each number."""
    hold: float | None
    """Value that keeps the robot's position; ``None`` repeats the last command (a gripper)."""
    max_step: float | None = None
    """Largest change between two control steps; ``None`` means unlimited (a gripper's sign)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embodiment:
    """Description of a robot: cameras, state and action fields, rate and joints."""

    name: str
    """Name that bundles and launch files use."""
    cameras: tuple[str, ...]
    """Camera names."""
    state: tuple[Field, ...]
    """State fields; their order is the flat order."""
    action: tuple[ActionField, ...]
    """Action fields; their order is the flat order."""
    control_hz: float
    """Control steps per second."""
    joint_names: tuple[str, ...]
    """Arm joints, in the order of the ``joint_position`` field."""
    gripper_joint_names: tuple[str, ...]
    """Finger joints, in the order of the ``gripper_qpos`` field."""

    @property
    def action_dims(self) -> tuple[str, ...]:
        """Full name of each action dimension, in flat order."""
        return tuple(name for field in self.action for name in field.dim_names)

    @property
    def action_dim(self) -> int:
        """Number of action dimensions."""
        return sum(field.size for field in self.action)

    def action_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper limits, each (action_dim,) float32."""
        low = [f.low for f in self.action for _ in f.dims]
        high = [f.high for f in self.action for _ in f.dims]
        return np.asarray(low, np.float32), np.asarray(high, np.float32)

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """Return the action (action_dim,) that keeps the robot where it is.

        ``last`` is the last commanded action (action_dim,), or None before the first command; then
        fields that repeat the last command are 0, which commands no change.
        """
        before = np.zeros(self.action_dim) if last is None else last
        fixed = [np.nan if f.hold is None else f.hold for f in self.action for _ in f.dims]
        return np.where(np.isnan(fixed), before, fixed).astype(np.float32)

    def action_field(self, actions: np.ndarray, name: str) -> np.ndarray:
        """Return the columns (..., size) of one named field of actions (..., action_dim)."""
        at = 0
        for field in self.action:
            if field.name == name:
                return actions[..., at : at + field.size]
            at += field.size
        raise ActionError(
            f"{self.name} has no action field {name!r}. "
            f"{closest(name, (f.name for f in self.action))}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Inputs and outputs that a model was trained on; part of a bundle's manifest."""

    cameras: tuple[str, ...]
    """Cameras in the order of the model's image slots."""
    state: tuple[Field, ...]
    """State fields in the order of the prompt's numbers."""
    action: tuple[Field, ...]
    """Action fields in the order of the model's outputs."""
    control_hz: float
    """Control steps per second; one action is one control step."""
    horizon: int
    """Actions per chunk."""

    @property
    def action_dims(self) -> tuple[str, ...]:
        """Full name of each action dimension of the model, in the order of its outputs."""
        return tuple(name for field in self.action for name in field.dim_names)

    @property
    def state_size(self) -> int:
        """Numbers in the flat state."""
        return sum(field.size for field in self.state)


def check_contract(contract: Contract, embodiment: Embodiment, model: str) -> None:
    """Raise ContractMismatch with the difference if the model does not fit the robot.

    The robot may have more cameras and state fields than the model uses; actions and rate must be
    equal.
    """
    robot = f"robot {embodiment.name!r}"
    for camera in contract.cameras:
        if camera not in embodiment.cameras:
            raise ContractMismatch(
                f"model {model!r} needs camera {camera!r}, which {robot} does not have. "
                f"{closest(camera, embodiment.cameras)}"
            )
    for kind, wanted, present in (
        ("state", contract.state, embodiment.state),
        ("action", contract.action, embodiment.action),
    ):
        by_name = {field.name: field for field in present}
        for field in wanted:
            have = by_name.get(field.name)
            if have is None:
                raise ContractMismatch(
                    f"model {model!r} uses {kind} field {field.name!r}, which {robot} does not "
                    f"have. {closest(field.name, by_name)}"
                )
            if (have.dims, have.unit) != (field.dims, field.unit):
                raise ContractMismatch(
                    f"{kind} field {field.name!r} is {list(field.dims)} [{field.unit}] in model "
                    f"{model!r} but {list(have.dims)} [{have.unit}] on {robot}"
                )
    missing = set(embodiment.action_dims) - set(contract.action_dims)
    if missing:
        raise ContractMismatch(
            f"{robot} needs action dimensions {sorted(missing)} that model {model!r} does not give"
        )
    if contract.control_hz != embodiment.control_hz:
        raise ContractMismatch(
            f"model {model!r} acts at {contract.control_hz} Hz but {robot} runs at "
            f"{embodiment.control_hz} Hz"
        )


def ordered_actions(
    actions: np.ndarray,
    wanted: tuple[str, ...],
    dims: tuple[str, ...] | None = None,
    *,
    ndim: int = 1,
) -> np.ndarray:
    """Return actions with their dimensions in the order of ``wanted``; the dtype is kept.

    All modules that forward actions call it: chunk queue, guard, simulator, bridge. ``actions`` is
    one action (dim,), or several (k, dim) if ``ndim`` is 2. ``dims`` names their dimensions in any
    order; None means the wanted order.

    Raises:
        ActionError: The shape is wrong, a dimension is missing, unknown or duplicate, or a value
            is not a finite number.
    """
    actions = np.asarray(actions)
    if dims is not None and sorted(dims) != sorted(wanted):
        raise ActionError(f"dimensions are {list(dims)}, expected {list(wanted)}")
    if actions.ndim != ndim or actions.shape[-1] != len(wanted):
        expected = f"({len(wanted)},)" if ndim == 1 else f"(k, {len(wanted)})"
        raise ActionError(f"shape is {actions.shape}, expected {expected}")
    if actions.dtype.kind not in "fiu" or not np.isfinite(actions).all():
        raise ActionError("a value is not a finite number")
    if dims is None or dims == wanted:
        return actions
    return actions[..., [dims.index(name) for name in wanted]]


def flatten_state(state: Mapping[str, np.ndarray], fields: tuple[Field, ...]) -> np.ndarray:
    """Return the flat state (sum of sizes,) float32 in the order of ``fields``.

    Raises:
        ObservationError: A field is missing, has another size, or is not finite.
    """
    parts = []
    for field in fields:
        if field.name not in state:
            raise ObservationError(f"no state field {field.name!r}. {closest(field.name, state)}")
        value = np.asarray(state[field.name], np.float32)
        if value.shape != (field.size,):
            raise ObservationError(
                f"state field {field.name!r} has shape {value.shape}, expected ({field.size},)"
            )
        if not np.isfinite(value).all():
            raise ObservationError(f"state field {field.name!r} is not finite: {value.tolist()}")
        parts.append(value)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def require_seed(seed: int, purpose: str) -> int:
    """Return ``seed`` if it may be used for ``purpose``, ``train`` or ``eval``.

    Raises:
        SeedError: The seed belongs to the other purpose; their scenes must not overlap.
    """
    if seed < 0:
        raise SeedError(f"seed {seed} is negative; seeds are 0, 1, 2, …")
    if purpose == "train" and seed >= TRAIN_SEED_END:
        raise SeedError(
            f"seed {seed} is for evaluation; training uses seeds below {TRAIN_SEED_END}"
        )
    if purpose == "eval" and seed < TRAIN_SEED_END:
        raise SeedError(f"seed {seed} is for training; evaluation uses seeds >= {TRAIN_SEED_END}")
    return seed


_XYZ = ("x", "y", "z")
_XYZW = (*_XYZ, "w")
_ARM_STATE = (
    Field(name="joint_position", dims=tuple(f"joint{i}" for i in range(1, 8)), unit="rad"),
    Field(name="end_effector_position_relative", dims=_XYZ, unit="m"),
    Field(name="end_effector_rotation_relative", dims=_XYZW, unit="quaternion"),
)
_BASE_STATE = (
    Field(name="base_position", dims=_XYZ, unit="m"),
    Field(name="base_rotation", dims=_XYZW, unit="quaternion"),
)
_GRIPPER_STATE = (Field(name="gripper_qpos", dims=("finger1", "finger2"), unit="m"),)
_ARM_ACTION = (
    ActionField(
        name="end_effector_position", dims=_XYZ, unit="0.05 m", low=-1, high=1, hold=0, max_step=1
    ),
    ActionField(
        name="end_effector_rotation", dims=_XYZ, unit="0.5 rad", low=-1, high=1, hold=0, max_step=1
    ),
    ActionField(name="gripper_close", dims=("close",), unit="sign", low=-1, high=1, hold=None),
)
_panda = partial(
    Embodiment,
    cameras=("robot0_agentview_left", "robot0_agentview_right", "robot0_eye_in_hand"),
    control_hz=20.0,
    joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)),
    gripper_joint_names=("panda_finger_joint1", "panda_finger_joint2"),
)

PANDA = _panda(name="panda", state=(*_ARM_STATE, *_GRIPPER_STATE), action=_ARM_ACTION)
"""Fixed-base Panda: RoboCasa's arm part, 7 action dimensions."""

PANDA_OMRON = _panda(
    name="panda_omron",
    state=(*_ARM_STATE, *_BASE_STATE, *_GRIPPER_STATE),
    action=(
        *_ARM_ACTION,
        ActionField(
            name="base_motion",
            dims=("forward", "side", "yaw", "torso"),
            unit="fraction of full speed",
            low=-1,
            high=1,
            hold=0,
            max_step=0.5,
        ),
        ActionField(name="control_mode", dims=("base",), unit="sign", low=-1, high=1, hold=-1),
    ),
)
"""RoboCasa's mobile Panda, in the order of its HDF5 demonstrations and openpi fork.

12 action dimensions, end effector first. The state's fields after ``joint_position`` are
RoboCasa's 16 numbers: end effector, base, gripper. The base's pose is that of the arm's mount
in the world (robosuite's ``robot0_base_pos`` and ``robot0_base_quat``: the site ``center`` on
the torso lift); the end effector's is relative to it.
"""

EMBODIMENTS = {e.name: e for e in (PANDA, PANDA_OMRON)}


def embodiment(name: str) -> Embodiment:
    """Return the embodiment called ``name``; raises ConfigError listing the known ones."""
    if name not in EMBODIMENTS:
        raise ConfigError(f"no embodiment {name!r}. {closest(name, EMBODIMENTS)}")
    return EMBODIMENTS[name]
