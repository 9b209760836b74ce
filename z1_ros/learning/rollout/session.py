"""Steps that all reinforcement-learning runs share: load a bundle, train, and write a bundle."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from z1_ros.errors import Diverged
from z1_ros.learning.core.run import TrainingRun, open_tensorboard
from z1_ros.learning.core.run_config import RunConfig
from z1_ros.learning.core.run_log import run_folder
from z1_ros.learning.rollout.collector import Collector
from z1_ros.learning.rollout.env_pool import EnvPool, OpenPool
from z1_ros.learning.rollout.evaluate import evaluate_last
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.runtime.lock import locked
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import check_contract, embodiment


class Training(Protocol):
    """A training method: GRPO (``learning/grpo``) or distillation (``learning/distill``)."""

    run: TrainingRun
    collector: Collector
    sampler: Sampler

    def train(self) -> None:
        """Iterate until a budget is used up; raises Diverged if the policy became useless."""


def train_bundle(
    command: str,
    config: RunConfig,
    make: Callable[[Any, Bundle, EnvPool, Path], Training],
    open_pool: OpenPool,
    *,
    frozen_vlm: bool,
) -> dict[str, Any]:
    """Train a policy by the method that ``make`` makes, write the bundle; return final metrics.

    Raises Diverged if training made the policy useless; the bundle then has the best weights.
    """
    config = replace(config, task=config.task.strip())
    start = load_bundle(config.bundle)
    robot = start.manifest.embodiment
    check_contract(start.manifest.contract, embodiment(robot), start.manifest.name)
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=robot)
    folder = run_folder(config.out)
    with locked(folder):
        with ExitStack() as stack:
            pool = stack.enter_context(open_pool(maker, config.workers))
            training = make(config, start, pool, folder)
            run = training.run
            run.start(command, start.manifest.name)
            run.log.board = open_tensorboard(folder, stack)
            diverged = _train(training)
        return run.finish(command, start, diverged, frozen_vlm=frozen_vlm)


def _train(training: Training) -> Diverged | None:
    """Train and evaluate the policy; return the error if it diverged and there are best weights."""
    run = training.run
    try:
        training.train()
        if run.config.keep == "last":
            run.forget_best()
        evaluate_last(run, training.collector, training.sampler)
    except Diverged as error:
        if not run.best_path.exists():
            raise
        return error
    return None
