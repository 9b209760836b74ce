"""The parameters of the three nodes: defaults, units, ranges, invariants. Does not import ROS.

``ros2 param describe`` shows a field's ``range``. ``read_only`` fields are fixed when the process
starts. Limits on inputs and the instruction apply at once. All other fields are read when the node
is configured, reset or reloaded; ``policy_node`` refuses a change that would wait for *configure*.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from z1_ros.errors import ConfigError
from z1_ros.runtime.guard import GuardConfig
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator
from z1_ros.specs import embodiment

Backend = Literal["auto", "onnxruntime", "torch"]
"""Inference library."""
Mode = Literal["realtime", "lockstep"]
"""Whether physics continues during inference (realtime) or waits for it (lockstep)."""
Qos = Literal["auto", "reliable", "best_effort"]
"""Reliability of subscriptions; auto follows the publishers."""

FIXED = {"read_only": True}


class _Checked:
    """Base of the three configs: a known robot, and every number within its range."""

    __slots__ = ()
    embodiment: str

    def __post_init__(self: Any) -> None:
        """Raise ConfigError for an unknown robot, or a field outside its declared range."""
        embodiment(self.embodiment)
        for spec in fields(self):
            if "range" in spec.metadata:
                value, (low, high) = getattr(self, spec.name), spec.metadata["range"]
                if not low <= value <= high:
                    raise ConfigError(f"{spec.name} is {value}, expected {low} to {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyNodeConfig(_Checked):
    """Parameters of ``policy_node``."""

    model: str = "kitchen-z1"
    """Model bundle: a directory, or the name of a bundle shipped with the package."""
    backend: Backend = "auto"
    """Inference library: auto, onnxruntime or torch."""
    threads: int = field(default=2, metadata={"range": (1, 256)})
    """CPU threads that an inference may use."""
    embodiment: str = "panda"
    """Robot that the model must fit."""
    mode: Mode = field(default="realtime", metadata=FIXED)
    """``realtime``: one action per control period; ``lockstep``: one per observation stamp."""
    instruction: str = ""
    """Instruction until another one is published on the ``instruction`` topic, or set here; empty
    waits for the topic."""
    noise_seed: int = field(default=0, metadata={"range": (0, 2**31 - 1)})
    """Seed of the policy's noise, read at configure, at ``~/reset`` and at a new episode."""
    replan_steps: int = field(default=0, metadata={"range": (0, 1000)})
    """Actions executed before the next inference; 0 uses the number in the bundle."""
    delay_steps: int = field(default=0, metadata={"range": (0, 1000)})
    """Lockstep: control steps that an inference takes, to simulate a slow computer."""
    camera_max_age_s: float = field(default=0.4, metadata={"range": (0.01, 10.0)})
    """Longest age of a camera's latest image, by its arrival and by its stamp [s]; then the robot
    holds."""
    state_max_age_s: float = field(default=0.2, metadata={"range": (0.01, 10.0)})
    """Longest age of joint states and poses, by arrival and by stamp [s]; then the robot holds."""
    max_ahead_s: float = field(default=0.1, metadata={"range": (0.0, 10.0)})
    """How far a stamp may lie in the future [s], because two machines' clocks differ."""
    camera_max_skew_s: float = field(default=0.2, metadata={"range": (0.0, 10.0)})
    """Largest difference between the stamps of two cameras [s]; beyond it the robot holds."""
    max_chunk_age_s: float = field(default=3.0, metadata={"range": (0.1, 600.0)})
    """Longest age of an action's observation [s]; older planned actions are dropped. A policy that
    infers for longer needs more, and the guard a larger ``guard.max_lag_s``."""
    input_timeout_s: float = field(default=2.0, metadata={"range": (0.1, 60.0)})
    """Lockstep: time without a complete observation [s] after which the status names the missing
    input."""
    qos: Qos = "auto"
    """Reliability of image and state subscriptions: reliable, best_effort, or auto, which follows
    the publishers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardNodeConfig(_Checked):
    """Parameters of ``guard_node``."""

    embodiment: str = field(default="panda", metadata=FIXED)
    """Robot whose limits apply."""
    mode: Mode = field(default="realtime", metadata=FIXED)
    """``realtime`` or ``lockstep``. In lockstep, physics waits for each action, so the guard does
    not hold when actions are stale."""
    guard: GuardConfig = field(default_factory=GuardConfig, metadata=FIXED)
    start_held: bool = field(default=True, metadata=FIXED)
    """Realtime: start with a latched stop, until the emergency stop's state is heard or
    ``~/reset`` is called. A guard that was started again would otherwise forget a pressed button.
    Launch files set it to false for simulators."""
    estop_timeout_s: float = field(default=0.0, metadata=FIXED | {"range": (0.0, 60.0)})
    """Longest time between two messages on ``estop`` [s]; then a stop is latched. 0 if the button
    sends only changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimBridgeConfig(_Checked):
    """Parameters of ``sim_bridge_node``; task, seed and instruction take effect at ``~/reset``."""

    robot: str = field(default=DEFAULT_SIMULATOR, metadata=FIXED)
    """Simulator."""
    embodiment: str = field(default="panda", metadata=FIXED)
    """Robot in the simulator."""
    mode: Mode = field(default="realtime", metadata=FIXED)
    """``realtime``: physics follows the wall clock; ``lockstep``: one step per ``safe_action``."""
    task: str = "OpenDrawer"
    """Task name."""
    seed: int = field(default=10_000, metadata={"range": (0, 2**31 - 1)})
    """Scene seed; seeds from 10000 are for evaluation."""
    instruction: str = ""
    """Instruction to publish instead of the scene's own instruction; empty keeps the scene's."""
    image_size: int = field(default=128, metadata=FIXED | {"range": (8, 2048)})
    """Side of the camera images [px]."""
    image_every_steps: int = field(default=1, metadata=FIXED | {"range": (1, 1000)})
    """Lockstep: control steps between two sets of images (the policy's replan_steps)."""
    camera_hz: float = field(default=20.0, metadata=FIXED | {"range": (0.1, 1000.0)})
    """Realtime: how often per second the camera images are rendered."""
    video_camera: str = field(default="video", metadata=FIXED)
    """Simulator camera of ``camera/video/image``, a video for people, not for the policy."""
    video_size: int = field(default=0, metadata=FIXED | {"range": (0, 2048)})
    """Height of the video [px], 4:3; 0 publishes none."""
    video_hz: float = field(default=10.0, metadata=FIXED | {"range": (0.1, 1000.0)})
    """Frames of the video per second of simulated time."""
    start_paused: bool = field(default=False, metadata=FIXED)
    """Wait for a call of ``~/pause`` with false before the first step."""
    repeat: bool = False
    """Start the next seed automatically when an episode is over."""
    resend_s: float = field(default=1.0, metadata=FIXED | {"range": (0.05, 60.0)})
    """Lockstep: time without an action after which the observation is published again [s]."""
    snapshot: str = ""
    """Snapshot that ``~/restore`` restores: the text that ``~/snapshot`` returned."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        find_simulator(self.robot)
        _Checked.__post_init__(self)
