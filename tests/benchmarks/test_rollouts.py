"""The rollout benchmark: equal scenes for all ways, honest counts, one sentence for a bad name."""

import json

import numpy as np
import pytest
from support.reach_env import ReachEnv
from support.tiny_bundle import write_tiny_bundle

from z1_ros.benchmarks.rollouts import (
    VARIANTS,
    DrawsEveryStep,
    DrawsEveryStepMaker,
    RlBenchConfig,
    main,
    snapshot_rates,
)
from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import EnvWorker


class InlineWorker:
    """A worker without a process."""

    def __init__(self, make_env):
        self._worker = EnvWorker(make_env)

    def send(self, request):
        self._reply = self._worker.handle(request)

    def receive(self, timeout_s):
        return self._reply

    def hang_up(self):
        pass

    def close(self):
        self._worker.close()


def inline_workers(made: list):
    """Return an opener of workers without processes that notes what it opens."""

    def open_pool(make_env, count, image_bytes):
        make = ReachEnv
        if isinstance(make_env, DrawsEveryStepMaker):
            make = DrawsEveryStepMaker(ReachEnv)
        made.append(EnvPool([InlineWorker(make) for _ in range(count)]))
        return made[-1]

    return open_pool


@pytest.fixture
def config(tmp_path):
    write_tiny_bundle(tmp_path / "tiny")
    return RlBenchConfig(
        bundle=str(tmp_path / "tiny"),
        group_size=4,
        groups=2,
        prefix=2,
        workers=4,
        blocks=2,
        json=tmp_path / "bench.json",
    )


def test_every_way_is_measured_and_counted(config, tmp_path):
    pools = []
    report = main(config, {"inproc": inline_workers(pools)})
    rows = {row["variant"]: row for row in report["rows"]}
    assert list(rows) == list(VARIANTS)
    assert [len(pool) for pool in pools] == [4, 4, 1]
    assert rows["whole"]["times_first"]["median"] == 1
    for name, row in rows.items():
        assert row["seconds"]["min"] > 0 and row["groups_per_min"]["min"] > 0
        shares = VARIANTS[name].sharing != "none"
        assert (row["restores"]["max"] > 0) == shares
        assert (row["trained_chunks"] == row["chunks"]) != shares
    # Whole episodes on as many workers are the same episodes, however often they are drawn.
    for what in ("env_steps", "chunks", "success"):
        assert rows["whole"][what] == rows["every_step"][what]
    assert rows["whole"]["renders"] == rows["whole"]["chunks"]
    for name in ("every_step", "one_by_one"):
        assert rows[name]["renders"]["median"] == rows[name]["env_steps"]["median"] + 8
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == report["rows"]


def test_another_way_through_is_set_against_inproc(config):
    openers = {"inproc": inline_workers([]), "ros": inline_workers([])}
    changed = RlBenchConfig(
        bundle=config.bundle,
        variants=("prefix", "every_step"),
        through=("inproc", "ros"),
        group_size=4,
        groups=1,
        prefix=2,
        blocks=1,
    )
    report = main(changed, openers)
    rows = {(row["variant"], row["through"]): row for row in report["rows"]}
    assert set(rows) == {("prefix", "inproc"), ("every_step", "inproc"), ("prefix", "ros")}
    assert rows["prefix", "ros"]["times_inproc"]["median"] > 0
    assert rows["prefix", "ros"]["env_steps"] == rows["prefix", "inproc"]["env_steps"]
    assert "times_inproc" not in rows["prefix", "inproc"]
    assert set(report["workers"]) == {"inproc", "ros"}


def test_drawing_at_every_step_changes_only_how_often_is_drawn():
    plain, drawing = ReachEnv(), DrawsEveryStep(ReachEnv())
    drawn = []
    observe = drawing._env.observe
    drawing._env.observe = lambda: drawn.append(1) or observe()
    actions = np.random.default_rng(0).uniform(-1, 1, (90, 7)).astype(np.float32)
    for env in (plain, drawing):
        env.reset(3)
    for part in actions.reshape(-1, 6, 7):
        one, two = plain.step(part), drawing.step(part)
        assert one == two
        seen, again = plain.observe(), drawing.observe()
        assert all(np.array_equal(seen.images[c], again.images[c]) for c in seen.images)
        if one.done:
            break
    assert len(drawn) == one.steps + 1


def test_resets_and_restores_are_counted_over_all_lanes():
    rates = snapshot_rates(inline_workers([])(ReachEnv, 3, 0), rounds=2)
    assert rates["workers"] == 3 and rates["snapshot_bytes"] > 0
    assert rates["resets_per_s"] > 0 and rates["restores_per_s"] > 0


def test_a_way_that_is_not_there_is_refused(config):
    with pytest.raises(ConfigError, match=r"no way through 'rso'.*Did you mean 'ros'"):
        main(
            RlBenchConfig(bundle=config.bundle, through=("rso",)),
            {"inproc": inline_workers([]), "ros": inline_workers([])},
        )


@pytest.mark.parametrize(
    "bad",
    [
        {"variants": ("perfix",)},
        {"variants": ()},
        {"workers": 0},
        {"group_size": 6},
        {"prefix": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        RlBenchConfig(**bad)
