"""Stand-alone policy and simulator nodes around the fakes: ``python fake_nodes.py NODE [args]``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes import FakeEnv, HashPolicy

from z1_ros.nodes import policy_node, sim_bridge_node
from z1_ros.nodes.policy_node import LoadedPolicy
from z1_ros.specs import embodiment


def load(config) -> LoadedPolicy:
    """A policy whose answers depend on every bit it sees; ``model`` may be a delay in seconds."""
    delay_s = float(os.environ.get("FAKE_DELAY_S", "0"))
    return LoadedPolicy(policy=HashPolicy(delay_s=delay_s), name="hash", replan_steps=4)


def make(config) -> FakeEnv:
    """A fake environment."""
    horizon = int(os.environ.get("FAKE_HORIZON", "40"))
    return FakeEnv(config.task, embodiment(config.embodiment), config.image_size, horizon)


if __name__ == "__main__":
    name, args = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
    if name == "policy_node":
        raise SystemExit(policy_node.main(args, load))
    raise SystemExit(sim_bridge_node.main(args, make))
