"""The node graph, declared once. ROS 2's launch and the plain runner both read this file.

No ROS is imported here: a graph can be drawn up, and its mistakes named, on any machine.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from z1_ros.config import flatten
from z1_ros.errors import ConfigError, closest
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.configs import (
    BACKENDS,
    MODES,
    ROBOTS,
    GuardNodeConfig,
    PolicyNodeConfig,
    SimBridgeConfig,
)
from z1_ros.sim.registry import DEFAULT_SIMULATOR, SIMULATORS
from z1_ros.specs import embodiment

BIG_IMAGE_BYTES = 150_000
"""Above this, images are lost without the Fast DDS profile (measured: 224 x 224 x 3 is safe)."""

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSpec:
    """One process."""

    name: str
    """Name of the node, of its executable and of its module in ``z1_ros.nodes``."""
    parameters: Mapping[str, object]
    """Its parameters."""
    lifecycle: bool = False
    """Whether it has to be configured and activated."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its process."""
    remap: Mapping[str, str] = field(default_factory=dict)
    """Other names for its topics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The processes of a graph."""

    nodes: tuple[NodeSpec, ...]
    """The processes."""
    namespace: str = ""
    """Namespace of every node."""
    log_level: str = "info"
    """Least severe message that is shown."""
    params_file: str = ""
    """YAML file with parameter deviations for all nodes; empty for none."""
    autostart: bool = True
    """Configure and activate the lifecycle nodes at once."""
    respawn: bool = False
    """ROS 2's launch starts a node again that ended; otherwise each is required: if one ends,
    all end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyGraphConfig:
    """Launch arguments of the policy graph."""

    robot: str = DEFAULT_SIMULATOR
    """Robot or simulator."""
    model: str = PolicyNodeConfig().model
    """Model bundle: a directory, or the name of one shipped with the package."""
    task: str = SimBridgeConfig().task
    """Task of a simulated robot."""
    seed: int = SimBridgeConfig().seed
    """Scene of a simulated robot; from 10000 on they are for evaluation."""
    mode: str = "realtime"
    """realtime, or lockstep: a simulator waits for each action, deterministic."""
    instruction: str = ""
    """What to do until the instruction topic says otherwise; a simulated robot then says this
    instead of its scene's own words."""
    params_file: str = ""
    """YAML file with parameter deviations (top key /**:, then the node's name)."""
    namespace: str = ""
    """Namespace of every node."""
    use_sim_time: bool = False
    """Follow /clock; watchdogs stay on the steady clock."""
    log_level: str = "info"
    """debug, info, warn, error or fatal."""
    autostart: bool = True
    """Configure and activate the policy at once."""
    fastdds_profile: str = "auto"
    """Fast DDS profile for large images: a file, empty for none, auto for ours where it helps."""
    backend: str = PolicyNodeConfig().backend
    """Inference library: auto, onnxruntime or torch."""
    threads: int = PolicyNodeConfig().threads
    """CPU threads that an inference may use."""
    replan_steps: int = 0
    """Actions executed before the next inference; 0 takes the bundle's own number."""
    delay_steps: int = 0
    """Lockstep: control steps that an answer of the policy takes."""
    image_size: int = SimBridgeConfig().image_size
    """Side of a simulated robot's camera images [px]."""
    camera_hz: float = SimBridgeConfig().camera_hz
    """Realtime: sets of simulated images per second."""
    film_size: int = 0
    """Height of the picture for people on camera/film/image [px]; 0 for none."""
    film_hz: float = SimBridgeConfig().film_hz
    """Those pictures per second of simulated time."""
    start_paused: bool = False
    """A simulated robot waits for its pause service before the first step."""
    repeat: bool = False
    """A simulated robot begins the next seed by itself when an episode is over."""

    def __post_init__(self) -> None:
        """Check choices."""
        for name, known in (
            ("robot", ROBOTS),
            ("mode", MODES),
            ("backend", BACKENDS),
            ("log_level", LOG_LEVELS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{name} is {value!r}. {closest(value, known)}")


def policy_graph(config: PolicyGraphConfig) -> Graph:
    """Return the graph: robot, guard, policy. The guard is always part of it.

    Raises:
        ConfigError: A setting is out of range, or the robot is not available.
        BundleError: The model is missing or corrupted.
    """
    if config.robot not in SIMULATORS:
        raise ConfigError(
            f"robot {config.robot!r} is not part of this version of z1_ros. "
            f"{closest(config.robot, SIMULATORS)}"
        )
    check_params_file(config.params_file)
    manifest = load_bundle(config.model).manifest
    shared = {"mode": config.mode, "embodiment": embodiment(manifest.embodiment).name}
    if config.use_sim_time:
        shared["use_sim_time"] = True
    policy = {
        "model": config.model,
        "backend": config.backend,
        "threads": config.threads,
        "instruction": config.instruction,
        "replan_steps": config.replan_steps,
        "delay_steps": config.delay_steps,
    }
    bridge = {
        "robot": config.robot,
        "task": config.task,
        "seed": config.seed,
        "instruction": config.instruction,
        "image_size": config.image_size,
        "image_every_steps": config.replan_steps or manifest.replan_steps,
        "camera_hz": config.camera_hz,
        "film_size": config.film_size,
        "film_hz": config.film_hz,
        "start_paused": config.start_paused,
        "repeat": config.repeat,
    }
    return Graph(
        nodes=(
            NodeSpec(
                name="sim_bridge_node",
                parameters=known_parameters(SimBridgeConfig(), bridge | shared),
                env=profile_env(config.fastdds_profile, _largest_image_bytes(config)),
            ),
            NodeSpec(
                name="guard_node",
                parameters=known_parameters(GuardNodeConfig(), shared),
                env=profile_env(config.fastdds_profile, 0),
            ),
            NodeSpec(
                name="policy_node",
                parameters=known_parameters(PolicyNodeConfig(), policy | shared),
                lifecycle=True,
                env=profile_env(config.fastdds_profile, 0),
            ),
        ),
        namespace=config.namespace.strip("/"),
        log_level=config.log_level,
        params_file=config.params_file,
        autostart=config.autostart,
    )


def check_params_file(path: str) -> None:
    """Raise ConfigError if a params_file is given that does not exist."""
    if path and not Path(path).is_file():
        raise ConfigError(f"no params_file at {path}")


def profile_env(profile: str, image_bytes: int) -> dict[str, str]:
    """Return the variables that make Fast DDS use ``profile``; both spellings.

    Args:
        profile: A file, ``auto`` (ours, where ``image_bytes`` needs it) or empty for none.
        image_bytes: Largest image that the process publishes.

    Raises:
        ConfigError: The file does not exist.
    """
    if profile == "auto":
        # An unused 16 MB segment per process is no gift: a container's /dev/shm has 64 MB.
        profile = str(shared_file("config/fastdds.xml")) if image_bytes > BIG_IMAGE_BYTES else ""
    if not profile:
        return {}
    if not Path(profile).is_file():
        raise ConfigError(f"no fastdds_profile at {profile}")
    path = str(Path(profile).resolve())
    return {"FASTRTPS_DEFAULT_PROFILES_FILE": path, "FASTDDS_DEFAULT_PROFILES_FILE": path}


def shared_file(name: str) -> Path:
    """Return a file of the package's share folder, or of the checkout it runs from.

    Raises:
        ConfigError: It is in none of the places that the kinds of installation use.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(":"), sys.prefix]
    places = [Path(__file__).resolve().parents[2] / name]
    places += [Path(prefix) / "share" / "z1_ros" / name for prefix in prefixes if prefix]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{name} of z1_ros is at none of: {', '.join(map(str, places))}")


def _largest_image_bytes(config: PolicyGraphConfig) -> int:
    return 3 * max(config.image_size**2, config.film_size**2 * 4 // 3)


def known_parameters(defaults: object, parameters: dict[str, object]) -> dict[str, object]:
    """Return ``parameters``; each must be a parameter of its node, or rclpy's use_sim_time."""
    for name in parameters:
        if name not in flatten(defaults) and name != "use_sim_time":
            raise ConfigError(f"{type(defaults).__name__} has no {name!r}")
    return parameters
