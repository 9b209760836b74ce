"""``z1-bench rl``: cost of a group of rollouts, for z1_ros and for simpler methods.

All methods run in one process in alternating blocks, in the same scenes and with the same weights.
``whole`` is naive GRPO on the workers of z1_ros: G resets to one seed and G whole episodes.
``prefix`` and ``tree`` add sharing. ``every_step`` is ``whole`` with rendering at every control
step, and ``one_by_one`` is ``every_step`` with a single environment.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from z1_ros.benchmarks.report import Row, publish
from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.collector import Collector, GroupJob, sampling
from z1_ros.learning.rollout.env_pool import EnvPool, OpenPool, local_workers
from z1_ros.learning.rollout.env_worker import Request
from z1_ros.learning.rollout.features import RolloutFeatures
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import Sharing, plan_group, trainable
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.models.network.geometry import Geometry
from z1_ros.progress import Progress
from z1_ros.sim.env import Env
from z1_ros.sim.registry import DEFAULT_SIMULATOR, EnvMaker
from z1_ros.specs import embodiment
from z1_ros.types import Observation, Step

Way = Literal["whole", "prefix", "tree", "every_step", "one_by_one"]
Through = Literal["inproc", "ros"]
Openers = Mapping[Through, OpenPool]
SCENES = 9000
"""End of the range of scene seeds; all of them are training scenes."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A method to run the rollouts of a group."""

    sharing: Sharing
    """Sharing between the rollouts of a group, as in ``plan_group``."""
    renders_every_step: bool = False
    """Whether to render at every control step, like Gym's ``step``; else only when replanning."""
    one_by_one: bool = False
    """Whether to run episodes in sequence in one environment; else in batches on all workers."""


VARIANTS: Mapping[Way, Variant] = {
    "whole": Variant("none"),
    "prefix": Variant("prefix"),
    "tree": Variant("tree"),
    "every_step": Variant("none", renders_every_step=True),
    "one_by_one": Variant("none", renders_every_step=True, one_by_one=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RlBenchConfig:
    """Cost of rollouts of groups: whole episodes, shared chunks, a tree, and simpler methods."""

    bundle: str = "kitchen-sft"
    """Bundle of the policy: a directory, or the name of a shipped one."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    task: str = "OpenDrawer"
    """Task of the rollouts."""
    variants: tuple[Way, ...] = tuple(VARIANTS)
    """Methods to measure; ratios are relative to the first one."""
    through: tuple[Through, ...] = ("inproc",)
    """Where environments run; over ``ros``, cameras are rendered only when the policy replans."""
    group_size: int = 8
    """Number of rollouts G in a group."""
    groups: int = 4
    """Number of groups in a block."""
    shared_chunks: int = 4
    """Number of chunks P in the longest shared part."""
    max_chunks: int = 0
    """Number of chunks after which an episode ends; 0: only the task's horizon ends it."""
    workers: int = 8
    """Number of environment workers that run in parallel."""
    threads: int = 1
    """Number of CPU threads for inference."""
    blocks: int = 3
    """Number of measured blocks for each method; the blocks of the methods alternate."""
    seed: int = 0
    """Seed of scenes and noise."""
    json: Path | None = None
    """File to which the report is written."""

    def __post_init__(self) -> None:
        if not self.variants or not self.through:
            raise ConfigError("variants and through must name at least one each")
        if min(self.groups, self.workers, self.threads, self.blocks) < 1:
            raise ConfigError("groups, workers, threads and blocks must be at least 1")
        if self.groups > SCENES:
            raise ConfigError(f"groups is {self.groups}, at most {SCENES} scenes are there")
        for name in self.variants:
            plan_group(self.group_size, VARIANTS[name].sharing, self.shared_chunks)
        if self.through == ("ros",) and all(VARIANTS[v].renders_every_step for v in self.variants):
            raise ConfigError("over ROS, cameras are rendered at re-planning only: add a variant")


class RendersEveryStep:
    """An environment that renders its cameras at every control step, like Gym's ``step``."""

    def __init__(self, env: Env):
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, seed: int) -> None:
        """Reset to the start of a scene, and render it."""
        self._env.reset(seed)
        self._seen = self._env.observe()

    def restore(self, data: bytes) -> None:
        """Restore a snapshot, and render it."""
        self._env.restore(data)
        self._seen = self._env.observe()

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), and render after each action."""
        consumed = 0
        for action in actions:
            step = self._env.step(action[None])
            consumed += step.consumed
            self._seen = self._env.observe()
            if step.done:
                break
        return replace(step, consumed=consumed)

    def observe(self) -> Observation:
        """Return the last rendered observation."""
        return self._seen


@dataclass(frozen=True, slots=True)
class RendersEveryStepMaker:
    """Maker of an environment that renders at every control step; it can be pickled."""

    make_env: EnvMaker
    """Maker of the wrapped environment."""

    @property
    def image_bytes(self) -> int:
        """Size of the images of one observation [bytes]."""
        return self.make_env.image_bytes

    def __call__(self) -> RendersEveryStep:
        """Make the environment."""
        return RendersEveryStep(self.make_env())


@dataclass(frozen=True, slots=True)
class Side:
    """One measured method and its costs so far."""

    way: Way
    through: Through
    pool: EnvPool
    """Workers of the method; other sides may use the same pool."""
    blocks: list[dict[tuple[str, str], float]] = field(default_factory=list)
    """Costs of each block, by quantity and unit."""

    @property
    def name(self) -> str:
        """Name of the method in the rows."""
        return self.way if self.through == "inproc" else f"{self.way} over {self.through}"

    def run(self, config: RlBenchConfig, sampler: Sampler, block: int) -> None:
        """Run the groups of a block; the scenes are the same for every side."""
        variant, collector = VARIANTS[self.way], Collector(self.pool)
        plan = plan_group(config.group_size, variant.sharing, config.shared_chunks)
        seeds = np.random.default_rng([config.seed, block]).permutation(SCENES)[: config.groups]
        jobs = [GroupJob((block, i), plan, int(seed)) for i, seed in enumerate(seeds)]
        sde = FlowSde(steps=sampler.manifest.denoise_steps)
        features = RolloutFeatures(sampler.network, joint=False)
        began = time.perf_counter()
        act = sampling(sampler, sde, features)
        groups = collector.run(jobs, act, max_chunks=config.max_chunks)
        seconds = time.perf_counter() - began
        counts = collector.counts
        trained = [int(trainable(plan, group.lengths.tolist()).sum()) for group in groups]
        every_step = counts.env_steps + len(groups) * plan.size
        self.blocks.append(
            {
                ("groups", "1/min"): 60 * len(groups) / seconds,
                ("control steps", "1/s"): counts.env_steps / seconds,
                ("control steps", ""): counts.env_steps,
                ("action chunks", ""): counts.chunks,
                ("trained chunks", ""): sum(trained),
                ("renders", ""): every_step if variant.renders_every_step else counts.renders,
                ("restores", ""): counts.restores,
                ("success rate", ""): float(np.mean([group.success.mean() for group in groups])),
            }
        )


def main(config: RlBenchConfig, openers: Openers | None = None) -> dict[str, Any]:
    """Measure, print a table, and return the report; ``openers`` open the pools of workers."""
    console, bundle = Console(), load_bundle(config.bundle)
    torch.set_num_threads(config.threads)
    console.print(
        f"{config.bundle} on {config.task}: {config.blocks} × {config.groups} groups of "
        f"{config.group_size} rollouts for each of {', '.join(config.variants)}"
    )
    manifest = bundle.manifest
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=manifest.embodiment)
    network = load_network(bundle.file(WEIGHTS), Geometry(**manifest.geometry), torch.float32)
    network.eval().requires_grad_(False)
    sampler = Sampler(network, bundle, embodiment(manifest.embodiment), config.seed)
    with ExitStack() as stack:
        sides = _open(config, maker, openers or {"inproc": local_workers}, stack)
        with Progress(console, {side.name: config.blocks for side in sides}) as progress:
            for block in range(config.blocks):
                # Each block begins with another side, so that no side is always first.
                first = block % len(sides)
                for side in sides[first:] + sides[:first]:
                    side.run(config, sampler, block)
                    progress.advance(side.name)
        plain = [side for side in sides if not VARIANTS[side.way].renders_every_step]
        pools = {side.through: side.pool for side in plain}
        extra = [row for through, pool in pools.items() for row in snapshot_rates(pool, through)]
    rows = [_row(side, key, sides) for key in sides[0].blocks[0] for side in sides]
    rows += sorted(extra, key=lambda row: row.quantity)
    facts = {"bundle": bundle.sha256, "task": config.task, "counts": "of one block"}
    return publish("z1-bench rl", config, rows, facts, console)


def _row(side: Side, key: tuple[str, str], sides: Sequence[Side]) -> Row:
    """Return the row of one quantity of a side.

    Speeds have a baseline: for a side over ROS, the same method inproc; else the first method.
    """
    twins = [s for s in sides if s.way == side.way and s.through == "inproc" != side.through]
    other = (twins + [s for s in sides if s.through == side.through])[0].name
    baseline = other if key[1] == "1/min" and other != side.name else ""
    return Row(side.name, *key, [block[key] for block in side.blocks], baseline)


def _open(config: RlBenchConfig, maker: EnvMaker, openers: Openers, stack: ExitStack) -> list[Side]:
    """Start the workers of all sides; each worker renders once, so that it is ready."""
    sides: list[Side] = []
    pools: dict[tuple[Through, bool, bool], EnvPool] = {}
    for through in config.through:
        for way in config.variants:
            variant = VARIANTS[way]
            if through != "inproc" and variant.renders_every_step:
                continue
            kind = (through, variant.renders_every_step, variant.one_by_one)
            if kind not in pools:
                make: Any = RendersEveryStepMaker(maker) if variant.renders_every_step else maker
                count = 1 if variant.one_by_one else config.workers
                pools[kind] = stack.enter_context(openers[through](make, count))
                pools[kind].map([Request(begin=config.seed, observe=True)] * count)
            sides.append(Side(way, through, pools[kind]))
    return sides


def snapshot_rates(pool: EnvPool, through: str, rounds: int = 20) -> list[Row]:
    """Measure the resets and restores per second of all workers, and the size of a snapshot."""
    count = len(pool)
    name = f"{count} workers" if through == "inproc" else f"{count} over {through}"
    request = Request(begin=0, snapshot=True)
    taken = pool.map([request] * count)[0].snapshot
    rows = []
    for quantity, begin in (("resets", 0), ("restores", taken)):
        began = time.perf_counter()
        for _ in range(rounds):
            pool.map([Request(begin=begin)] * count)
        rate = rounds * count / (time.perf_counter() - began)
        rows.append(Row(name, quantity, "1/s", [rate]))
    return [*rows, Row(name, "snapshot", "byte", [len(taken)])]
