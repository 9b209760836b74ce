"""The rollout benchmark: equal scenes for all ways, honest counts, one sentence for a bad name."""

import json

import numpy as np
import pytest
from support.inline_worker import InlineWorker
from support.reach_env import ReachEnv
from support.tiny_bundle import write_tiny_bundle

from z1_ros.benchmarks.rollouts import (
    VARIANTS,
    RendersEveryStep,
    RendersEveryStepMaker,
    RlBenchConfig,
    main,
    snapshot_rates,
)
from z1_ros.errors import ConfigError
from z1_ros.learning.rollout.env_pool import EnvPool


def inline_workers(made: list):
    """Return an opener of workers without processes that notes what it opens."""

    def open_pool(make_env, count):
        make = ReachEnv
        if isinstance(make_env, RendersEveryStepMaker):
            make = RendersEveryStepMaker(ReachEnv)
        made.append(EnvPool([InlineWorker(make_env=make) for _ in range(count)]))
        return made[-1]

    return open_pool


@pytest.fixture
def config(tmp_path):
    write_tiny_bundle(tmp_path / "tiny")
    return RlBenchConfig(
        bundle=str(tmp_path / "tiny"),
        group_size=4,
        groups=2,
        shared_chunks=2,
        workers=4,
        blocks=2,
        json=tmp_path / "bench.json",
    )


def values_of(report: dict) -> dict[tuple[str, str, str], list[float]]:
    """Return the values of each (subject, quantity, unit)."""
    return {(r["name"], r["quantity"], r["unit"]): r["values"] for r in report["rows"]}


def test_every_way_is_measured_and_counted(config, tmp_path):
    pools = []
    report = main(config, {"inproc": inline_workers(pools)})
    assert [len(pool) for pool in pools] == [4, 4, 1]
    found = values_of(report)

    def of(way: str, quantity: str) -> list[float]:
        return found[way, quantity, ""]

    for way, variant in VARIANTS.items():
        assert min(found[way, "groups", "1/min"]) > 0
        shares = variant.sharing != "none"
        assert (max(of(way, "restores")) > 0) == shares
        assert (of(way, "trained chunks") == of(way, "action chunks")) != shares
    # Whole episodes on as many workers are the same episodes, however often they are rendered.
    for quantity in ("control steps", "action chunks", "success rate"):
        assert of("whole", quantity) == of("every_step", quantity)
    assert of("whole", "renders") == of("whole", "action chunks")
    for way in ("every_step", "one_by_one"):
        assert of(way, "renders") == [steps + 8 for steps in of(way, "control steps")]
    ratios = {r["name"]: r["ratio"] for r in report["rows"] if r["unit"] == "1/min"}
    assert ratios.pop("whole") is None and all(ratios.values())
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == report["rows"]


def test_another_way_through_is_set_against_inproc(config):
    openers = {"inproc": inline_workers([]), "ros": inline_workers([])}
    changed = RlBenchConfig(
        bundle=config.bundle,
        variants=("prefix", "every_step"),
        through=("inproc", "ros"),
        group_size=4,
        groups=1,
        shared_chunks=2,
        blocks=1,
    )
    report = main(changed, openers)
    speeds = {r["name"]: r["baseline"] for r in report["rows"] if r["unit"] == "1/min"}
    assert speeds == {
        "prefix": None,
        "every_step": "prefix",
        "prefix over ros": "prefix",
    }
    found = values_of(report)
    steps = "control steps", ""
    assert found["prefix over ros", *steps] == found["prefix", *steps]
    assert ("8 over ros", "resets", "1/s") in found


def test_rendering_at_every_step_changes_only_how_often_is_rendered():
    plain, busy = ReachEnv(), RendersEveryStep(ReachEnv())
    renders = []
    observe = busy._env.observe
    busy._env.observe = lambda: renders.append(1) or observe()
    actions = np.random.default_rng(0).uniform(-1, 1, (90, 7)).astype(np.float32)
    for env in (plain, busy):
        env.reset(3)
    for part in actions.reshape(-1, 6, 7):
        one, two = plain.step(part), busy.step(part)
        assert one == two
        seen, again = plain.observe(), busy.observe()
        assert all(np.array_equal(seen.images[c], again.images[c]) for c in seen.images)
        if one.done:
            break
    assert len(renders) == one.steps + 1


def test_resets_and_restores_are_counted_over_all_workers():
    rows = snapshot_rates(inline_workers([])(ReachEnv, 3), "inproc", rounds=2)
    assert [(r.name, r.quantity) for r in rows] == [
        ("3 workers", "resets"),
        ("3 workers", "restores"),
        ("3 workers", "snapshot"),
    ]
    assert all(row.values[0] > 0 for row in rows)


@pytest.mark.parametrize(
    "bad",
    [
        {"variants": ()},
        {"through": ()},
        {"variants": ("every_step",), "through": ("ros",)},
        {"workers": 0},
        {"group_size": 6},
        {"shared_chunks": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        RlBenchConfig(**bad)
