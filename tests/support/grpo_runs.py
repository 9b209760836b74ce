"""Short runs of z1-train's loop on a small world."""

from support.inline_worker import inline_pool

from z1_ros.learning.core.run_log import read_records
from z1_ros.learning.grpo.config import GrpoConfig, Z1Config
from z1_ros.learning.grpo.train import GrpoTraining

GRPO = GrpoConfig(group_size=4, groups=6, shared_chunks=1, learning_rate=1e-3)


def grpo_config(tmp_path, **changes):
    """Return settings of three iterations."""
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


def grpo_training(config, bundle, folder):
    """Return a run that has not begun."""
    folder.mkdir(exist_ok=True)
    return GrpoTraining(config, bundle, inline_pool(), folder)


def run_through(training):
    """Begin or continue, train until a budget is used up; return the new iterations' metrics."""
    before = len(read_records(training.run.folder))
    training.run.start("z1-train", "tiny")
    training.train()
    return read_records(training.run.folder)[before:]


def timeless(record):
    """Return what of a record does not depend on the machine's speed."""
    return {name: value for name, value in record.items() if not name.endswith("_s")}
