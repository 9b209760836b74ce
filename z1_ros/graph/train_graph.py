"""The graphs of training: a simulator and a guard for each worker, and one learner.

A worker's graph is the policy graph without ``policy_node``: the learner publishes the actions.
``z1-train --through ros`` starts the graph of each worker. ``train.launch.py`` starts all graphs
and a learner that connects to them.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from z1_ros.errors import ConfigError
from z1_ros.graph.dds import Discovery, dds_env
from z1_ros.graph.spec import Graph, LogLevel, NodeSpec, known_parameters
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.configs import GuardNodeConfig, SimBridgeConfig
from z1_ros.sim.registry import DEFAULT_SIMULATOR, EnvMaker

RESEND_S = 5.0
"""Period at which a waiting worker publishes its observation again [s].

It is long because workers wait during every update of the learner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainGraphConfig:
    """Launch arguments of training; all other settings are flags of ``z1-train``."""

    bundle: str = "kitchen-sft"
    """Bundle to start from: a directory, or the name of a shipped bundle."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    task: str = SimBridgeConfig().task
    """Task to improve."""
    out: str = ""
    """Bundle to write."""
    workers: int = 12
    """Environment workers: simulators that run at the same time."""
    options: str = ""
    """Further flags of z1-train, e.g. '--minutes 30 --group-size 4'."""
    namespace: str = "worker"
    """Namespace prefix of the workers' nodes; the worker's number follows."""
    params_file: str = ""
    """YAML file with parameter deviations (top key /**:) for the workers' nodes."""
    log_level: LogLevel = "warn"
    """Least severe message that is shown: debug, info, warn, error or fatal."""
    discovery: Discovery = "auto"
    """Which machines can discover the graphs: localhost (this machine), subnet (the network), or
    auto: the value of ROS_AUTOMATIC_DISCOVERY_RANGE, localhost if it is not set."""
    fastdds_profile: str = "auto"
    """Fast DDS profile: a file, empty for none, or auto: a profile of z1_ros if one is needed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}, expected at least 1")
        if not self.namespace.strip("/"):
            raise ConfigError("namespace is empty, and the workers' names begin with it")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainGraph:
    """Processes of a training run that ROS 2 launch starts."""

    workers: tuple[Graph, ...]
    """Graphs of the workers, each with a simulator and a guard."""
    learner: tuple[str, ...]
    """Command of the learner."""
    env: Mapping[str, str]
    """Environment variables of the learner."""


def train_graph(config: TrainGraphConfig) -> TrainGraph:
    """Return the workers' graphs and the learner.

    Raises:
        ConfigError: A setting is missing or out of range.
        BundleError: The bundle is missing or corrupted.
    """
    if not config.out:
        raise ConfigError("out is empty; name the bundle to write: out:=DIRECTORY")
    manifest = load_bundle(config.bundle).manifest
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=manifest.embodiment)
    workers = [
        replace(
            worker_graph(maker, manifest.replan_steps),
            namespace=worker_namespace(config.namespace, number),
            params_file=config.params_file,
            log_level=config.log_level,
            discovery=config.discovery,
            fastdds_profile=config.fastdds_profile,
        )
        for number in range(config.workers)
    ]
    # Not `python3 -m`: multiprocessing would then import the module, and torch, in every worker.
    start = "from z1_ros.commands.entry import train; raise SystemExit(train())"
    learner = ["python3", "-c", start]
    for name in ("bundle", "robot", "task", "out", "workers"):
        learner += [f"--{name}", str(getattr(config, name))]
    learner += ["--through", "ros", "--attach", config.namespace, *split(config.options)]
    return TrainGraph(
        workers=tuple(workers),
        learner=tuple(learner),
        env=dds_env(config.discovery, config.fastdds_profile),
    )


def worker_graph(maker: EnvMaker, replan_steps: int) -> Graph:
    """Return a worker's graph: a simulator in lockstep, and the guard.

    The simulator renders every ``replan_steps`` control steps.
    """
    shared = {"mode": "lockstep", "embodiment": maker.embodiment}
    bridge = {
        "robot": maker.simulator,
        "task": maker.task,
        "seed": 0,
        "image_every_steps": replan_steps,
        "resend_s": RESEND_S,
    }
    return Graph(
        nodes=(
            NodeSpec(
                name="sim_bridge_node",
                parameters=known_parameters(SimBridgeConfig(), bridge | shared),
                image_bytes=3 * SimBridgeConfig().image_size ** 2,
                # Several simulators in one domain must not publish to the same clock topic.
                remap={"/clock": "clock"},
            ),
            NodeSpec(name="guard_node", parameters=known_parameters(GuardNodeConfig(), shared)),
        ),
        log_level="warn",
        respawn=True,
    )


def worker_namespace(namespace: str, number: int) -> str:
    """Return the namespace of a worker's nodes."""
    return f"{namespace.strip('/')}{number}"


def split(options: str) -> list[str]:
    """Split a text into words as a shell does; raises ConfigError for an unclosed quote."""
    try:
        return shlex.split(options)
    except ValueError as error:
        raise ConfigError(f"launch argument options is {options!r}: {error}") from error
