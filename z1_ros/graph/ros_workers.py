"""Environment workers behind the node graph; ``learning/rollout/env_pool.py`` has those in-process.

A lane is a process of its own here too. It hosts the same worker, whose environment is a
``RosEnv``; if a node of its graph dies or hangs, a new process starts a new graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

from z1_ros.errors import ConfigError, GraphError
from z1_ros.graph.client import BRIDGE, GUARD, GraphClient
from z1_ros.graph.ros_env import RosEnv
from z1_ros.graph.runner import STOP_S, GraphRunner, environment_domain_id
from z1_ros.graph.train_graph import lane_graph, lane_namespace
from z1_ros.learning.rollout.env_pool import KitchenMaker, LanePool, LocalLane
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.sim.env import Env
from z1_ros.specs import embodiment

LANE_TIMEOUT_S = 240.0
"""Time that an answer of a lane may take; the first one includes starting its nodes [s]."""
ATTACH_S = 120.0
"""Longest wait for a graph that somebody else starts [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnGraph:
    """Makes an environment behind a graph that it starts, on a ROS domain of its own."""

    task: str
    """Task name."""
    embodiment: str
    """Robot."""
    cameras: tuple[str, ...]
    """Cameras that are looked through."""
    replan_steps: int
    """Control steps from one set of images to the next."""
    answer_s: float
    """Longest wait for what follows an action [s]."""

    def __call__(self) -> Env:
        """Start the graph; raises GraphError if it does not come up."""
        runner = GraphRunner(lane_graph(self.task, self.embodiment, self.replan_steps))
        runner.__enter__()
        return RosEnv(
            runner.client,
            self.task,
            embodiment(self.embodiment),
            cameras=self.cameras,
            answer_s=self.answer_s,
            close=runner.stop,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningGraph:
    """Makes an environment behind a graph that somebody else started."""

    task: str
    """Task name."""
    embodiment: str
    """Robot."""
    cameras: tuple[str, ...]
    """Cameras that are looked through."""
    namespace: str
    """Namespace of the graph."""
    answer_s: float
    """Longest wait for what follows an action [s]."""

    def __call__(self) -> Env:
        """Join the graph; raises ConfigError if there is none."""
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
            self.task,
            embodiment(self.embodiment),
            cameras=self.cameras,
            answer_s=self.answer_s,
            close=client.close,
        )

    def _there(self, client: GraphClient) -> bool:
        return all(client.status(name)[0] for name in (BRIDGE, GUARD))


@dataclass(frozen=True, kw_only=True, slots=True)
class RosLanes:
    """Opens lanes behind the node graph; called as ``env_pool.local_lanes`` is."""

    cameras: tuple[str, ...]
    """Cameras that the policy looks through; those of the robot's that it does not use may be
    absent."""
    replan_steps: int
    """Actions that the learner executes of each chunk: how often the simulator draws."""
    attach: str = ""
    """Namespace, before the lane's number, of graphs that run already; empty starts them."""
    answer_s: float = 60.0
    """Longest wait for what follows an action [s]; then the lane is lost."""

    def __call__(self, maker: KitchenMaker, count: int, image_bytes: int) -> LanePool:
        """Return a pool of ``count`` lanes, each with its own process and its own graph."""
        lanes = [
            LocalLane(self._make_env(maker, number), image_bytes, guard=False, end_s=STOP_S + 2)
            for number in range(count)
        ]
        return LanePool(lanes, LANE_TIMEOUT_S)

    def _make_env(self, maker: KitchenMaker, number: int) -> Callable[[], Env]:
        if self.attach:
            return RunningGraph(
                task=maker.task,
                embodiment=maker.embodiment,
                cameras=self.cameras,
                namespace=lane_namespace(self.attach, number),
                answer_s=self.answer_s,
            )
        return OwnGraph(
            task=maker.task,
            embodiment=maker.embodiment,
            cameras=self.cameras,
            replan_steps=self.replan_steps,
            answer_s=self.answer_s,
        )


def ros_lanes(bundle: str, attach: str = "") -> RosLanes:
    """Return what opens lanes for the policy of a bundle; ``attach`` as for ``RosLanes``."""
    manifest = load_bundle(bundle).manifest
    return RosLanes(
        cameras=manifest.contract.cameras, replan_steps=manifest.replan_steps, attach=attach
    )
