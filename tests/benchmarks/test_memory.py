"""Iterations do not add up in memory, and the tool that says so can tell."""

import json
import multiprocessing
import os
import time

import pytest
from support.reach_env import ReachEnv
from support.tiny_bundle import write_tiny_bundle

from z1_ros.benchmarks.memory import MemoryBenchConfig, Watch, by_tenths, descendants, main
from z1_ros.errors import ConfigError, TrainingError
from z1_ros.learning.rollout.env_pool import local_workers


def reach_lanes(make_env, count, image_bytes):
    return local_workers(ReachEnv, count, image_bytes)


def test_learner_and_environments_are_both_watched(tmp_path):
    write_tiny_bundle(tmp_path / "tiny")
    config = MemoryBenchConfig(
        bundle=str(tmp_path / "tiny"),
        iterations=12,
        eval_every=6,
        sample_s=0.01,
        json=tmp_path / "memory.json",
    )
    report = main(config, reach_lanes)
    assert report["iterations"] == 12 and report["updates"] > 0
    for side in ("learner_mib", "workers_mib"):
        assert len(report[side]["tenths"]) == 10
        assert report[side]["max"] >= max(report[side]["tenths"]) > 20
    assert (
        json.loads((tmp_path / "memory.json").read_text())["learner_mib"] == report["learner_mib"]
    )


def test_memory_that_is_held_is_seen(tmp_path):
    log = tmp_path / "log.jsonl"
    log.touch()
    with Watch(log, 0.01) as watch:
        while len(watch.samples) < 5:
            time.sleep(0.01)
        held = bytearray(os.urandom(2**20)) * 64
        count = len(watch.samples)
        while len(watch.samples) < count + 5:
            time.sleep(0.01)
    assert len(held) and watch.samples[-1].learner_mib - watch.samples[0].learner_mib > 50


def test_nothing_counts_before_the_first_iteration_is_done(tmp_path):
    with Watch(tmp_path / "log.jsonl", 0.001) as watch:
        watch.join(0.1)
    assert not watch.samples


def test_processes_of_processes_are_found():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    try:
        assert process.pid in set(descendants(os.getpid()))
    finally:
        process.kill()
        process.join()


def test_tenths_are_medians_in_order():
    assert by_tenths([float(i // 3) for i in range(30)]) == [float(i) for i in range(10)]
    with pytest.raises(TrainingError, match="only 9 looks"):
        by_tenths([1.0] * 9)


@pytest.mark.parametrize("bad", [{"iterations": 9}, {"sample_s": 0.0}], ids=str)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        MemoryBenchConfig(**bad)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_iterations_in_the_kitchen_need_no_more_memory_than_ten():
    """After a warm-up of ten: allocators fill their pools once."""
    report = main(MemoryBenchConfig(iterations=30, eval_every=10, sample_s=0.2))
    assert report["updates"] >= 10
    for side, bound_mib in (("learner_mib", 30), ("workers_mib", 10)):
        tenths = report[side]["tenths"]
        assert max(tenths[6:]) - max(tenths[3:6]) < bound_mib, tenths
