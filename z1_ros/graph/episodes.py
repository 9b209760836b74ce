"""Episodes through the node graph: called as ``InprocEpisodes`` is."""

from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.configs import Backend
from z1_ros.sim.episodes import EpisodeResult, delay_steps


class RosEpisodes:
    """Runs episodes in lockstep, in a graph and on a ROS domain of its own."""

    def __init__(
        self, bundle: str, *, simulator: str, backend: Backend, threads: int, delay_ms: float
    ):
        """Start the graph's processes and wait until the policy is active."""
        control_hz = load_bundle(bundle).manifest.contract.control_hz
        graph = PolicyGraphConfig(
            robot=simulator,
            model=bundle,
            mode="lockstep",
            backend=backend,
            threads=threads,
            delay_steps=delay_steps(delay_ms, control_hz),
            log_level="warn",
        )
        self._runner = GraphRunner(policy_graph(graph))
        self._runner.__enter__()

    def run(self, task: str, seed: int) -> EpisodeResult:
        """Run one episode."""
        return self._runner.client.run_episode(task, seed)

    def close(self) -> None:
        """End the processes."""
        self._runner.stop()
