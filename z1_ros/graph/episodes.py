"""Episodes through the node graph, with the same interface as ``InprocEpisodes``."""

from z1_ros.graph.policy_graph import PolicyGraphConfig, policy_graph
from z1_ros.graph.runner import GraphRunner
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes.configs import Backend
from z1_ros.sim.episodes import EpisodeResult, delay_steps


class RosEpisodes:
    """Runs episodes in lockstep, in a separate graph on a separate ROS domain."""

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
        """Stop the graph's processes."""
        self._runner.stop()
