"""Short runs of z1-train's loop on a small world."""

from support.inline_worker import InlineWorker

from z1_ros.learning.core.learner import train
from z1_ros.learning.grpo.config import GrpoConfig, Z1Config
from z1_ros.learning.grpo.train import Training
from z1_ros.learning.rollout.env_pool import EnvPool

GRPO = GrpoConfig(group_size=4, groups=6, prefix=1, learning_rate=1e-3)


def settings(tmp_path, **changes):
    given = {
        "bundle": "tiny",
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "minutes": 0.0,
        "iterations": 3,
        "eval_every": 2,
        "eval_episodes": 4,
        "grpo": GRPO,
    }
    return Z1Config(**(given | changes))


def training(config, bundle, run):
    run.mkdir(exist_ok=True)
    return Training(config, bundle, EnvPool([InlineWorker() for _ in range(4)]), run)


def run_through(made):
    """Train until the budget is used up; return each iteration's figures."""
    records = []
    train(made, records.append)
    return records


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}
