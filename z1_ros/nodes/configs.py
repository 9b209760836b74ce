"""The parameters of the three nodes: defaults, units, ranges, invariants. No ROS in here.

A field's ``range`` is shown by ``ros2 param describe``; ``read_only`` fields are fixed when the
process starts, all others are read again when the node is configured or reset.
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
"""Whether physics goes on during inference, or waits for it."""
Qos = Literal["auto", "reliable", "best_effort"]
"""Reliability of subscriptions; auto follows the publishers."""

FIXED = {"read_only": True}


def _check_ranges(config: Any) -> None:
    """Raise ConfigError for a field outside the range that it declares."""
    for spec in fields(config):
        if "range" in spec.metadata:
            value, (low, high) = getattr(config, spec.name), spec.metadata["range"]
            if not low <= value <= high:
                raise ConfigError(f"{spec.name} is {value}, expected {low} to {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyNodeConfig:
    """Parameters of ``policy_node``."""

    model: str = "kitchen-z1"
    """Model bundle: a directory, or the name of one shipped with the package."""
    backend: Backend = "auto"
    """Inference library: auto, onnxruntime or torch."""
    threads: int = field(default=2, metadata={"range": (1, 256)})
    """CPU threads that an inference may use."""
    embodiment: str = "panda"
    """Robot the model has to fit."""
    mode: Mode = field(default="realtime", metadata=FIXED)
    """``realtime``: acts at the control rate; ``lockstep``: once per observation stamp."""
    instruction: str = ""
    """What to do until the ``instruction`` topic says otherwise; empty waits for the topic."""
    noise_seed: int = field(default=0, metadata={"range": (0, 2**31 - 1)})
    """Seed of the policy's noise, taken at configure, at ``~/reset`` and at a new episode."""
    replan_steps: int = field(default=0, metadata={"range": (0, 1000)})
    """Actions executed before the next inference; 0 takes the bundle's own number."""
    delay_steps: int = field(default=0, metadata={"range": (0, 1000)})
    """Lockstep: control steps that an inference takes, to see what a slow computer would do."""
    camera_max_age_s: float = field(default=0.4, metadata={"range": (0.01, 10.0)})
    """Hold when a camera's latest image arrived longer ago [s]."""
    state_max_age_s: float = field(default=0.2, metadata={"range": (0.01, 10.0)})
    """Hold when joint states or a pose arrived longer ago [s]."""
    camera_max_skew_s: float = field(default=0.2, metadata={"range": (0.0, 10.0)})
    """Hold when the stamps of two cameras differ by more [s]."""
    max_chunk_age_s: float = field(default=10.0, metadata={"range": (0.1, 600.0)})
    """Planned actions are dropped when their observation is older [s]."""
    input_timeout_s: float = field(default=2.0, metadata={"range": (0.1, 60.0)})
    """Lockstep: time without a complete observation after which the status names the missing
    input [s]."""
    qos: Qos = "auto"
    """Reliability of image and state subscriptions: auto follows the publishers; reliable,
    best_effort."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        embodiment(self.embodiment)
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardNodeConfig:
    """Parameters of ``guard_node``."""

    embodiment: str = field(default="panda", metadata=FIXED)
    """Robot whose limits apply."""
    mode: Mode = field(default="realtime", metadata=FIXED)
    """``lockstep`` has no stale-action rule: there, physics waits for the action."""
    guard: GuardConfig = field(default_factory=GuardConfig, metadata=FIXED)

    def __post_init__(self) -> None:
        """Check the robot's name."""
        embodiment(self.embodiment)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimBridgeConfig:
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
    """Scene seed; from 10000 on they are for evaluation."""
    instruction: str = ""
    """What the robot is told instead of the scene's own instruction; empty keeps that one."""
    image_size: int = field(default=128, metadata=FIXED | {"range": (8, 2048)})
    """Side of the camera images [px]."""
    image_every_steps: int = field(default=1, metadata=FIXED | {"range": (1, 1000)})
    """Lockstep: control steps from one set of images to the next (the policy's replan_steps)."""
    camera_hz: float = field(default=20.0, metadata=FIXED | {"range": (0.1, 1000.0)})
    """Realtime: sets of images per second."""
    video_camera: str = field(default="video", metadata=FIXED)
    """The simulator's camera for ``camera/video/image``, a video for people, not for the policy."""
    video_size: int = field(default=0, metadata=FIXED | {"range": (0, 2048)})
    """Height of the video [px], 4:3; 0 publishes none."""
    video_hz: float = field(default=10.0, metadata=FIXED | {"range": (0.1, 1000.0)})
    """Frames of the video per second of simulated time."""
    start_paused: bool = field(default=False, metadata=FIXED)
    """Wait for ``~/pause`` false before the first step."""
    repeat: bool = False
    """Begin the next seed by itself when an episode is over."""
    resend_s: float = field(default=1.0, metadata=FIXED | {"range": (0.05, 60.0)})
    """Lockstep: publish the observation again when no action came for this long [s]."""
    snapshot: str = ""
    """What ``~/restore`` restores: the text that ``~/snapshot`` returned."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        find_simulator(self.robot)
        embodiment(self.embodiment)
        _check_ranges(self)
