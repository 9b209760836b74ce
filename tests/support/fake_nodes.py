"""Stand-alone policy and simulator nodes around the fakes: ``python fake_nodes.py NODE [args]``."""

import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fakes import FakeEnv, HashPolicy, contract_of

from z1_ros.errors import ConfigError
from z1_ros.models.bundle.manifest import load_bundle
from z1_ros.nodes import policy_node, sim_bridge_node
from z1_ros.nodes.loading import LoadedPolicy, load_bundle_policy
from z1_ros.specs import embodiment

DEFAULT = "kitchen-z1"
"""The model of a graph that names none."""


def load(config) -> LoadedPolicy:
    """A policy whose actions depend on every bit it sees, or one of several ways to fail.

    ``FAKE_LOAD`` or the model's name says which; other names give other actions. The model
    ``slow`` is loaded as soon as the file ``FAKE_GATE`` is gone.
    """
    how = os.environ.get("FAKE_LOAD", "") or config.model
    if how == "real" or Path(how).is_dir():
        return load_bundle_policy(config)
    while how == "slow" and Path(os.environ["FAKE_GATE"]).exists():
        time.sleep(0.01)
    if how == "bundle":
        load_bundle("no/such/model")
    if how == "crash":
        raise RuntimeError("the library is broken")
    robot = embodiment(config.embodiment)
    changes = {"misfit": {"cameras": ("wrist",)}, "longer": {"horizon": 9}}
    contract = contract_of(robot, **changes.get(how, {}))
    delay_s = float(os.environ.get("FAKE_DELAY_S", "0"))
    policy = HashPolicy(contract, delay_s)
    if how == "flaky":
        policy.infer = flaky(policy.infer)
    if config.model != DEFAULT:
        policy = Salted(contract, config.model)
    return LoadedPolicy(
        policy=policy,
        name=config.model,
        replan_steps=2 if how == "oftener" else load_bundle(DEFAULT).manifest.replan_steps,
        sha256=f"sha256-of-{config.model}",
    )


class Salted(HashPolicy):
    """Acts as if told something else."""

    def __init__(self, contract, salt: str):
        super().__init__(contract)
        self.salt = salt

    def infer(self, observation):
        """Hash the salt too."""
        return super().infer(replace(observation, instruction=self.salt + observation.instruction))


def flaky(infer):
    """Fail in two ways, ``FAKE_FAILURES`` times each, after the warm-up and one inference."""
    failures = (RuntimeError("out of memory"), ConfigError("no such camera"))
    each = int(os.environ.get("FAKE_FAILURES", "1"))
    asked = itertools.count(-2)

    def infer_or_fail(observation):
        number = next(asked)
        if 0 <= number < 2 * each:
            raise failures[number // each]
        return infer(observation)

    return infer_or_fail


class SceneEnv(FakeEnv):
    """As a real simulator: a scene takes time to build; before and after, there is none."""

    has_scene = False

    def reset(self, seed: int) -> None:
        """Take the time."""
        time.sleep(float(os.environ.get("FAKE_RESET_S", "0")))
        super().reset(seed)
        self.has_scene = True

    def step(self, actions):
        """Take the time."""
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
        return super().step(actions)

    def close(self) -> None:
        """Lose the scene."""
        self.has_scene = False

    @property
    def scene_id(self) -> str:
        """Task and seed, if there is a scene."""
        if not self.has_scene:
            raise ConfigError("no scene")
        return super().scene_id


def make(config) -> FakeEnv:
    """A fake environment."""
    if config.task not in os.environ.get("FAKE_TASKS", config.task):
        raise ConfigError(f"no task {config.task!r}")
    horizon = int(os.environ.get("FAKE_HORIZON", "40"))
    env = SceneEnv(config.task, embodiment(config.embodiment), config.image_size, horizon)
    env.has_scene = False
    return env


if __name__ == "__main__":
    name, args = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
    if name == "policy_node":
        raise SystemExit(policy_node.main(args, load))
    raise SystemExit(sim_bridge_node.main(args, make))
