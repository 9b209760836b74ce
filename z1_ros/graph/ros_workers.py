"""Environment workers whose simulator runs in a node graph.

``learning/rollout/env_pool.py`` implements the workers without ROS. Here, too, each worker is one
process. Its environment is a ``RosEnv``. If a node of its graph dies or hangs, a new process starts
a new graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
            return partial(self._join_graph, maker, worker_namespace(self.attach, number))
        return partial(self._start_graph, maker)

    def _start_graph(self, maker: EnvMaker) -> Env:
        """Start a graph on a separate ROS domain; raises GraphError if it does not come up."""
        runner = GraphRunner(worker_graph(maker, self.replan_steps))
        runner.__enter__()
        return self._connect(maker, runner.client, runner.stop)

    def _join_graph(self, maker: EnvMaker, namespace: str) -> Env:
        """Connect to a graph of another process; raises ConfigError if no graph is running."""
        client = GraphClient(environment_domain_id(), namespace)
        try:
            client.wait(
                lambda: all(client.status(name)[0] for name in (BRIDGE, GUARD)),
                ATTACH_S,
                "its nodes",
            )
        except GraphError as error:
            client.close()
            raise ConfigError(
                f"no {BRIDGE} and {GUARD} in namespace /{namespace} of ROS domain "
                f"{environment_domain_id()}; `ros2 launch z1_ros train.launch.py` starts them"
            ) from error
        return self._connect(maker, client, client.close)

    def _connect(self, maker: EnvMaker, client: GraphClient, close: Callable[[], object]) -> Env:
        return RosEnv(
            client,
            maker.task,
            maker.robot,
            cameras=self.cameras,
            reply_timeout_s=self.reply_timeout_s,
            close=close,
        )


def ros_workers(bundle: str, attach: str = "") -> RosWorkers:
    """Return the ``RosWorkers`` for the policy of a bundle; see there for ``attach``."""
    manifest = load_bundle(bundle).manifest
    return RosWorkers(
        cameras=manifest.contract.cameras, replan_steps=manifest.replan_steps, attach=attach
    )
