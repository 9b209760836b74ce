"""The graph that runs a policy; both ROS 2 launch and ``GraphRunner`` start it."""

from collections.abc import Mapping
from dataclasses import dataclass

from z1_ros.config import flatten
from z1_ros.errors import ConfigError, closest
from z1_ros.graph.dds import Discovery
from z1_ros.graph.spec import Graph, LogLevel, NodeSpec, known_parameters
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.configs import (
    Backend,
    GuardNodeConfig,
    Mode,
    PolicyNodeConfig,
    SimBridgeConfig,
)
from z1_ros.sim.registry import DEFAULT_SIMULATOR, PLANNED_ROBOTS, SIMULATORS
from z1_ros.specs import embodiment

ROBOTS = (*SIMULATORS, *PLANNED_ROBOTS)
"""Allowed values of ``robot:=``; planned robots are refused by name."""


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
    """Scene seed of a simulated robot; seeds from 10000 are for evaluation."""
    mode: Mode = "realtime"
    """realtime, or lockstep: the simulator waits for each action, and equal runs give exactly
    equal results."""
    instruction: str = ""
    """Instruction until another one is published on the instruction topic; a simulated robot
    publishes it instead of the instruction of its scene."""
    params_file: str = ""
    """YAML file with parameter deviations (top key /**:, then the node's name)."""
    namespace: str = ""
    """Namespace of every node."""
    use_sim_time: bool = False
    """Use the time of /clock; watchdogs always use the steady clock."""
    log_level: LogLevel = "info"
    """Least severe message that is shown: debug, info, warn, error or fatal."""
    autostart: bool = True
    """Configure and activate the policy at once."""
    discovery: Discovery = "auto"
    """Which machines can discover the graph: localhost (this machine), subnet (the network), or
    auto: the value of ROS_AUTOMATIC_DISCOVERY_RANGE, localhost if it is not set."""
    fastdds_profile: str = "auto"
    """Fast DDS profile: a file, empty for none, or auto: a profile of z1_ros if one is needed
    (large images; localhost)."""
    backend: Backend = PolicyNodeConfig().backend
    """Inference library: auto, onnxruntime or torch."""
    threads: int = PolicyNodeConfig().threads
    """CPU threads that an inference may use."""
    replan_steps: int = 0
    """Actions executed before the next inference; 0 uses the number in the bundle."""
    delay_steps: int = 0
    """Lockstep: control steps that an inference takes."""
    image_size: int = SimBridgeConfig().image_size
    """Side of a simulated robot's camera images [px]."""
    camera_hz: float = SimBridgeConfig().camera_hz
    """Realtime mode: how often per second a simulated robot renders its camera images."""
    video_size: int = 0
    """Height of the video for people on camera/video/image [px]; 0 for none."""
    video_hz: float = SimBridgeConfig().video_hz
    """Frames of the video per second of simulated time."""
    start_paused: bool = False
    """A simulated robot waits for its pause service before the first step."""
    repeat: bool = False
    """A simulated robot starts the next seed automatically when an episode is over."""

    def __post_init__(self) -> None:
        """Check the robot's name."""
        if self.robot not in ROBOTS:
            raise ConfigError(f"robot is {self.robot!r}. {closest(self.robot, ROBOTS)}")


def policy_graph(config: PolicyGraphConfig) -> Graph:
    """Return the graph: robot, guard and policy. The guard cannot be left out.

    Raises:
        ConfigError: A setting is out of range, or the robot is not available.
        BundleError: The model is missing or corrupted.
    """
    if config.robot not in SIMULATORS:
        raise ConfigError(
            f"robot {config.robot!r} is not part of this version of z1_ros. "
            f"{closest(config.robot, SIMULATORS)}"
        )
    manifest = load_bundle(config.model).manifest
    shared: dict[str, object] = {"embodiment": embodiment(manifest.embodiment).name}
    if config.use_sim_time:
        shared["use_sim_time"] = True
    # Simulators in two namespaces must not publish to one clock.
    remap = {"/clock": "clock"} if config.namespace.strip("/") else {}
    images = {"image_every_steps": config.replan_steps or manifest.replan_steps}
    return Graph(
        nodes=(
            NodeSpec(
                name="sim_bridge_node",
                parameters=_parameters(SimBridgeConfig(), config, shared | images),
                image_bytes=3 * max(config.image_size**2, config.video_size**2 * 4 // 3),
                remap=remap,
            ),
            NodeSpec(
                name="guard_node",
                parameters=_parameters(GuardNodeConfig(), config, shared | {"start_held": False}),
                remap=remap,
            ),
            NodeSpec(
                name="policy_node",
                parameters=_parameters(PolicyNodeConfig(), config, shared),
                remap=remap,
                lifecycle=True,
            ),
        ),
        namespace=config.namespace.strip("/"),
        log_level=config.log_level,
        params_file=config.params_file,
        autostart=config.autostart,
        discovery=config.discovery,
        fastdds_profile=config.fastdds_profile,
    )


def _parameters(
    node: object, config: PolicyGraphConfig, others: dict[str, object]
) -> Mapping[str, object]:
    """Return ``others`` and every launch argument that has the name of a parameter of ``node``."""
    arguments, names = flatten(config), flatten(node)
    return known_parameters(node, {n: arguments[n] for n in names if n in arguments} | others)
