"""Environment workers whose simulator runs in a node graph.

``learning/rollout/env_pool.py`` implements the workers without ROS. Here, too, each worker is one
process. Its environment is a ``RosEnv``. If a node of its graph dies or hangs, a new process starts
a new graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

from z1_ros.errors import ConfigError, GraphError
from z1_ros.graph.client import BRIDGE, GUARD, GraphClient
from z1_ros.graph.domains import environment_domain_id
from z1_ros.graph.ros_env import RosEnv
from z1_ros.graph.runner import STOP_S, GraphRunner
from z1_ros.graph.train_graph import worker_graph, worker_namespace
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerProcess
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.sim.env import Env
from z1_ros.sim.registry import EnvMaker

WORKER_TIMEOUT_S = 240.0
"""Longest wait for a worker's reply [s]; the first reply includes starting its nodes."""
ATTACH_S = 120.0
"""Longest wait for a graph that another process starts [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnGraph:
    """Starts a graph on a separate ROS domain and makes the environment that connects to it."""

    maker: EnvMaker
    """Simulator, robot and task of the environment."""
    cameras: tuple[str, ...]
    """Cameras that the policy uses."""
    replan_steps: int
    """Control steps between two sets of images."""
    reply_timeout_s: float
    """Longest wait for the next observation after an action [s]."""

    def __call__(self) -> Env:
        """Start the graph; raises GraphError if it does not come up."""
        runner = GraphRunner(worker_graph(self.maker, self.replan_steps))
        runner.__enter__()
        return RosEnv(
            runner.client,
            self.maker.task,
            self.maker.robot,
            cameras=self.cameras,
            reply_timeout_s=self.reply_timeout_s,
            close=runner.stop,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningGraph:
    """Makes an environment that connects to a graph that another process started."""

    maker: EnvMaker
    """Simulator, robot and task of the environment."""
    cameras: tuple[str, ...]
    """Cameras that the policy uses."""
    namespace: str
    """Namespace of the graph."""
    reply_timeout_s: float
    """Longest wait for the next observation after an action [s]."""

    def __call__(self) -> Env:
        """Connect to the graph; raises ConfigError if no graph is running."""
        client = GraphClient(environment_domain_id(), self.namespace)
        try:
            client.wait(lambda: self._there(client), ATTACH_S, "its nodes")
        except GraphError as error:
            client.close()
            raise ConfigError(
                f"no {BRIDGE} and {GUARD} in namespace /{self.namespace} of ROS domain "
                f"{environment_domain_id()}; `ros2 launch z1_ros train.launch.py` starts them"
            ) from error
        return RosEnv(
            client,
            self.maker.task,
            self.maker.robot,
            cameras=self.cameras,
            reply_timeout_s=self.reply_timeout_s,
            close=client.close,
        )

    def _there(self, client: GraphClient) -> bool:
        return all(client.status(name)[0] for name in (BRIDGE, GUARD))


@dataclass(frozen=True, kw_only=True, slots=True)
class RosWorkers:
    """Opens a pool of workers with node graphs; same interface as ``env_pool.local_workers``."""

    cameras: tuple[str, ...]
    """Cameras that the policy uses; other cameras of the robot may be absent."""
    replan_steps: int
    """Actions executed of each chunk; the simulator renders once per chunk."""
    attach: str = ""
    """Namespace prefix (without the worker's number) of running graphs; empty starts new ones."""
    reply_timeout_s: float = 60.0
    """Longest wait for the next observation after an action [s]; then the worker counts as lost."""

    def __call__(self, maker: EnvMaker, count: int) -> EnvPool:
        """Return a pool of ``count`` workers, each with its own process and graph."""
        workers = [
            WorkerProcess(
                self._make_env(maker, number), maker.image_bytes, guard=False, end_s=STOP_S + 2
            )
            for number in range(count)
        ]
        return EnvPool(workers, WORKER_TIMEOUT_S)

    def _make_env(self, maker: EnvMaker, number: int) -> Callable[[], Env]:
        if self.attach:
            return RunningGraph(
                maker=maker,
                cameras=self.cameras,
                namespace=worker_namespace(self.attach, number),
                reply_timeout_s=self.reply_timeout_s,
            )
        return OwnGraph(
            maker=maker,
            cameras=self.cameras,
            replan_steps=self.replan_steps,
            reply_timeout_s=self.reply_timeout_s,
        )


def ros_workers(bundle: str, attach: str = "") -> RosWorkers:
    """Return the ``RosWorkers`` for the policy of a bundle; see there for ``attach``."""
    manifest = load_bundle(bundle).manifest
    return RosWorkers(
        cameras=manifest.contract.cameras, replan_steps=manifest.replan_steps, attach=attach
    )
