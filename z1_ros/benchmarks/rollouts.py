"""``z1-bench rl``: what a group of rollouts costs, the plain ways beside ours.

All ways run in one process in blocks that alternate, on the same scenes with the same weights, so
that whatever else the machine does meets all of them.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from z1_ros.benchmarks.simulator import summary
from z1_ros.errors import ConfigError, closest
from z1_ros.files import write_json
from z1_ros.learning.core.memory import Memory
from z1_ros.learning.rollout.collector import Collector, Counts, Group, GroupJob
from z1_ros.learning.rollout.env_pool import EnvPool, local_workers
from z1_ros.learning.rollout.env_worker import Begin, Request
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group, trainable
from z1_ros.learning.rollout.sampler import Actor
from z1_ros.models.bundle.manifest import WEIGHTS, Bundle, load_bundle
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.models.network.geometry import Geometry
from z1_ros.sim.env import Env
from z1_ros.sim.registry import DEFAULT_SIMULATOR, EnvMaker
from z1_ros.specs import embodiment
from z1_ros.types import Observation, Step

Opener = Callable[[Any, int], EnvPool]
"""Opens workers, as ``local_workers`` does."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to roll out a group."""

    sharing: str
    """What its rollouts share, as in a plan."""
    draws_every_step: bool = False
    """Cameras are drawn at every control step, as behind Gym's ``step``; else at re-planning."""
    one_by_one: bool = False
    """One environment, one episode after another; else all workers, answered in batches."""


VARIANTS = {
    "whole": Variant("none"),
    "prefix": Variant("prefix"),
    "tree": Variant("tree"),
    "every_step": Variant("none", draws_every_step=True),
    "one_by_one": Variant("none", draws_every_step=True, one_by_one=True),
}
"""``whole`` is naive GRPO on our workers: G resets to one seed, G whole episodes. ``every_step``
and ``one_by_one`` take away, one after the other, what our workers do for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RlBenchConfig:
    """Cost of rolling out groups: whole episodes, a shared prefix, a tree, and plainer ways."""

    bundle: str = "kitchen-sft"
    """Policy."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator."""
    task: str = "OpenDrawer"
    """Task."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Ways to measure; ratios are against the first."""
    through: tuple[str, ...] = ("inproc",)
    """``inproc``, ``ros`` or both; over ROS the cameras are drawn at re-planning only."""
    group_size: int = 8
    """Rollouts G of a group."""
    groups: int = 4
    """Groups of a block."""
    prefix: int = 4
    """Chunks P of the longest shared part."""
    max_chunks: int = 0
    """Chunks after which an episode ends; 0: the task's own horizon."""
    workers: int = 8
    """Environments at work side by side."""
    threads: int = 1
    """Threads of inference."""
    blocks: int = 3
    """Alternating blocks of each way."""
    seed: int = 0
    """Seeds scenes and noise."""
    json: Path | None = None
    """Write the figures here."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name in self.variants:
            if name not in VARIANTS:
                raise ConfigError(f"no variant {name!r}. {closest(name, VARIANTS)}")
        if not self.variants or not self.through:
            raise ConfigError("variants and through must name at least one each")
        if min(self.groups, self.workers, self.threads, self.blocks) < 1:
            raise ConfigError("groups, workers, threads and blocks must be at least 1")
        for name in self.variants:
            plan_group(self.group_size, VARIANTS[name].sharing, self.prefix)


class DrawsEveryStep:
    """An environment whose cameras are drawn at every control step, as behind Gym's ``step``."""

    def __init__(self, env: Env):
        """Wrap an environment."""
        self._env = env
        self.embodiment = env.embodiment

    def reset(self, seed: int) -> None:
        """Go to the start of a scene, and draw it."""
        self._env.reset(seed)
        self._seen = self._env.observe()

    def restore(self, data: bytes) -> None:
        """Go to a snapshot, and draw it."""
        self._env.restore(data)
        self._seen = self._env.observe()

    def step(self, actions: np.ndarray) -> Step:
        """Execute actions (k, action_dim), and draw after each."""
        consumed = 0
        for action in actions:
            step = self._env.step(action[None])
            consumed += step.consumed
            self._seen = self._env.observe()
            if step.done:
                break
        return replace(step, consumed=consumed)

    def observe(self) -> Observation:
        """Return what was drawn last."""
        return self._seen

    def snapshot(self) -> bytes:
        """Return the present state."""
        return self._env.snapshot()

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


@dataclass(frozen=True, slots=True)
class DrawsEveryStepMaker:
    """Makes an environment that draws at every control step; picklable if the other is."""

    make_env: EnvMaker
    """Makes the environment itself."""

    @property
    def image_bytes(self) -> int:
        """Size of the images of one observation [bytes]."""
        return self.make_env.image_bytes

    def __call__(self) -> DrawsEveryStep:
        """Return the environment."""
        return DrawsEveryStep(self.make_env())


class Side:
    """One way of rolling out groups, and what it cost so far."""

    def __init__(self, config: RlBenchConfig, name: str, through: str, pool: EnvPool, actor: Actor):
        """Connect.

        Args:
            config: Group size, prefix, scenes.
            name: One of ``VARIANTS``.
            through: What the workers are behind.
            pool: OpenPool.
            actor: Policy.
        """
        self.name, self.through = name, through
        self.seconds: list[float] = []
        self._costs: list[dict[str, float]] = []
        self._config, self._pool, self._actor = config, pool, actor
        self._plan = plan_group(config.group_size, VARIANTS[name].sharing, config.prefix)
        self._sde = FlowSde(steps=actor.manifest.denoise_steps)

    def run(self, block: int) -> None:
        """Roll out the groups of a block: the same scenes for every side."""
        config = self._config
        collector = Collector(
            self._pool, self._actor, self._actor.manifest.replan_steps, max_chunks=config.max_chunks
        )
        seeds = np.random.default_rng([config.seed, block]).permutation(9000)[: config.groups]
        jobs = [GroupJob((block, i), self._plan, int(seed)) for i, seed in enumerate(seeds)]
        memory = Memory(self._actor.network, joint=False)
        began = time.perf_counter()
        groups = collector.run(jobs, self._sde, memory)
        self.seconds.append(time.perf_counter() - began)
        self._costs.append(self._cost(groups, collector.counts))

    def _cost(self, groups: Sequence[Group], counts: Counts) -> dict[str, float]:
        renders = counts.renders
        if VARIANTS[self.name].draws_every_step:
            renders = counts.env_steps + sum(group.job.plan.size for group in groups)
        return {
            "env_steps": counts.env_steps,
            "chunks": counts.chunks,
            "renders": renders,
            "restores": counts.restores,
            "trained_chunks": sum(
                int(trainable(group.job.plan, group.lengths.tolist()).sum()) for group in groups
            ),
            "success": float(np.mean([group.success.mean() for group in groups])),
        }

    def figures(self) -> dict[str, Any]:
        """Return figures over the blocks; counts are of one block."""
        steps = [cost["env_steps"] for cost in self._costs]
        return {
            "variant": self.name,
            "through": self.through,
            "seconds": summary(self.seconds),
            "groups_per_min": summary([60 * self._config.groups / s for s in self.seconds]),
            "env_steps_per_s": summary([n / s for n, s in zip(steps, self.seconds, strict=True)]),
            **{name: summary([cost[name] for cost in self._costs]) for name in self._costs[0]},
        }


def main(config: RlBenchConfig, openers: Mapping[str, Opener] | None = None) -> dict[str, Any]:
    """Measure, print a table, return the figures.

    Args:
        config: What to measure.
        openers: By the names in ``through``, what opens workers there.
    """
    console = Console()
    openers = openers or {"inproc": local_workers}
    for name in config.through:
        if name not in openers:
            raise ConfigError(f"no way through {name!r} here. {closest(name, openers)}")
    bundle = load_bundle(config.bundle)
    torch.set_num_threads(config.threads)
    with ExitStack() as stack, console.status("starting environments") as status:
        sides, pools = _open(config, bundle, openers, stack)
        for block in range(config.blocks):
            # Each block begins with another side, so that none is always first.
            for i in range(len(sides)):
                side = sides[(block + i) % len(sides)]
                status.update(f"{side.name} {side.through}, block {block + 1}/{config.blocks}")
                side.run(block)
        status.update("snapshots")
        workers = {name: snapshot_rates(pool) for name, pool in pools.items()}
    rows = _rows(sides)
    report = {
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "bundle": bundle.sha256,
        "rows": rows,
        "workers": workers,
    }
    _print(console, report)
    if config.json is not None:
        write_json(config.json, report)
    return report


def _open(
    config: RlBenchConfig, bundle: Bundle, openers: Mapping[str, Opener], stack: ExitStack
) -> tuple[list[Side], dict[str, EnvPool]]:
    """Start the workers and load the policy; everything has drawn once when this returns."""
    manifest = bundle.manifest
    maker = EnvMaker(simulator=config.robot, task=config.task, embodiment=manifest.embodiment)
    network = load_network(bundle.file(WEIGHTS), Geometry(**manifest.geometry), torch.float32)
    network.eval().requires_grad_(False)
    actor = Actor(network, bundle, embodiment(manifest.embodiment), config.seed)
    sides: list[Side] = []
    pools: dict[tuple[str, bool, bool], EnvPool] = {}
    for through in config.through:
        for name in config.variants:
            variant = VARIANTS[name]
            if through != "inproc" and variant.draws_every_step:
                continue
            kind = (through, variant.draws_every_step, variant.one_by_one)
            if kind not in pools:
                make: Any = DrawsEveryStepMaker(maker) if variant.draws_every_step else maker
                count = 1 if variant.one_by_one else config.workers
                pools[kind] = stack.enter_context(openers[through](make, count))
                _ask_all(pools[kind], Request(begin=Begin(seed=config.seed), observe=True))
            sides.append(Side(config, name, through, pools[kind], actor))
    return sides, {through: pool for (through, drawing, _), pool in pools.items() if not drawing}


def _ask_all(pool: EnvPool, request: Request) -> list[Any]:
    for worker in range(len(pool)):
        pool.send(worker, request)
    return [pool.receive(worker) for worker in range(len(pool))]


def snapshot_rates(pool: EnvPool, rounds: int = 20) -> dict[str, float]:
    """Return how often a second all workers together reset a scene and restore a snapshot of it."""
    taken = _ask_all(pool, Request(begin=Begin(seed=0), snapshot=True))[0].snapshot
    rates: dict[str, float] = {"workers": len(pool), "snapshot_bytes": len(taken)}
    for name, begin in (("resets", Begin(seed=0)), ("restores", Begin(snapshot=taken))):
        began = time.perf_counter()
        for _ in range(rounds):
            _ask_all(pool, Request(begin=begin))
        rates[f"{name}_per_s"] = round(rounds * len(pool) / (time.perf_counter() - began), 1)
    return rates


def _rows(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """Return each side's figures, with ratios to the first side, and to itself inproc."""
    rows = []
    for side in sides:
        first = next(other for other in sides if other.through == side.through)
        row = side.figures() | {"times_first": _speedup(first, side)}
        for other in sides:
            if other.name == side.name and other.through == "inproc" != side.through:
                row["times_inproc"] = _speedup(other, side)
        rows.append(row)
    return rows


def _speedup(base: Side, side: Side) -> dict[str, float]:
    pairs = zip(base.seconds, side.seconds, strict=True)
    return summary([theirs / ours for theirs, ours in pairs])


def _print(console: Console, report: dict[str, Any]) -> None:
    config = report["config"]
    several = len(config["through"]) > 1
    rates = Table(
        title=f"{config['groups']} groups of {config['group_size']} on {config['task']}, "
        f"P = {config['prefix']}, {config['workers']} workers: "
        f"median (min-max) of {config['blocks']} alternating blocks"
    )
    counts = Table(title="Medians of the same blocks")
    shown = {
        rates: ["groups_per_min", "times_first", *(["times_inproc"] if several else [])],
        counts: ["env_steps", "env_steps_per_s", "chunks", "renders", "restores", "success"],
    }
    for table, keys in shown.items():
        for title in ("", *keys):
            table.add_column(title.replace("_per_", "/").replace("_", " "), justify="right")
        for row in report["rows"]:
            found = [row.get(key) for key in keys]
            table.add_row(
                row["variant"] + (f" {row['through']}" if several else ""),
                *(_cell(values, spread=table is rates) for values in found),
            )
        console.print(table)
    for through, workers in report["workers"].items():
        console.print(
            f"{through}, {workers['workers']} workers together: "
            f"{workers['resets_per_s']:.0f} resets/s, "
            f"{workers['restores_per_s']:.0f} restores/s of {workers['snapshot_bytes']} bytes"
        )


def _cell(values: dict[str, float] | None, *, spread: bool) -> str:
    if values is None:
        return "-"
    span = f" ({values['min']:.3g}-{values['max']:.3g})" if spread else ""
    return f"{values['median']:.4g}{span}"
