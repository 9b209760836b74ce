"""A run of teaching: its phases, its environments, its numbers when it is resumed."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reach_env import PX, ReachEnv
from support.teaching import (
    CLONE,
    HOLD,
    LESSON,
    PRACTICE,
    inline,
    jobs,
    practice,
    straight_teacher,
    told,
)
from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import CheckpointError, ConfigError, Diverged, TrainingError
from z1_ros.learning.core.learner import train
from z1_ros.learning.distill.config import DistillConfig
from z1_ros.learning.distill.dataset import Replay
from z1_ros.learning.distill.numpy_teacher import Advice
from z1_ros.learning.distill.train import Teaching, main
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerProcess
from z1_ros.models.bundle.manifest import load_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_environment_that_is_lost_changes_no_number(bundle, tmp_path, how):
    teacher = straight_teacher()
    advice = Advice(teacher=teacher.plain, horizon=TINY.horizon, hold=HOLD)
    tasks = [practice(teacher, i) for i in range(6)]
    config = settings(tmp_path)
    quiet = Teaching(config, bundle, inline(2), tmp_path)
    wanted, lessons = quiet.watcher.run(jobs(), advice)
    rehearsed = quiet.run_practice(tasks)
    workers = [WorkerProcess(ReachEnv, 3 * PX * PX * 3) for _ in range(2)]
    with EnvPool(workers, timeout_s=3.0) as pool:
        made = Teaching(config, bundle, pool, tmp_path)
        calls, answer = [], made.actor.see_and_follow

        def strike(*args):
            calls.append(1)
            if len(calls) == 5:
                os.kill(workers[1].pid, how)
            return answer(*args)

        made.actor.see_and_follow = strike
        found, again = made.watcher.run(jobs(), advice)
        assert told(found) == told(wanted) and pool.replaced == 1
        assert torch.equal(again.tensors["chunk"], lessons.tensors["chunk"])
        os.kill(workers[0].pid, how)
        for one, two in zip(made.run_practice(tasks), rehearsed, strict=True):
            assert np.array_equal(one.truth, two.truth)
        assert pool.replaced == 2


def settings(tmp_path, **changes):
    given = {
        "bundle": "tiny",
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "minutes": 0.0,
        "iterations": 9,
        "eval_every": 2,
        "eval_episodes": 4,
        "clone": CLONE,
        "practice": replace(PRACTICE, enough=2.0),
        "lesson": LESSON,
    }
    return DistillConfig(**(given | changes))


def training(config, bundle, run):
    run.mkdir(exist_ok=True)
    return Teaching(config, bundle, inline(), run)


def run_through(made):
    records = []
    train(made, records.append)
    return records


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_it_watches_then_practises_then_teaches(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    before = weights(made.network)
    records = run_through(made)
    kinds = {"clone_loss": 0, "practice_success": 1, "flow_loss": 2}
    assert [next(k for n, k in kinds.items() if n in r) for r in records] == [0, *[1] * 4, *[2] * 4]
    assert ["teacher_success" in r for r in records[:5]] == [True, False, True, False, True]
    assert ["eval_success" in r for r in records] == [True, *[False] * 6, True, False]
    changed = {n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("expert.", "time.", "action_")) for n in changed)
    steps = [r["env_steps"] for r in records]
    assert steps == sorted(set(steps))
    assert json.dumps(records)


def test_it_practises_where_the_policy_got_too(tmp_path, bundle, monkeypatch):
    made = training(settings(tmp_path, iterations=2), bundle, tmp_path / "run")
    asked, run = [], made.run_practice
    monkeypatch.setattr(made, "run_practice", lambda tasks: asked.append(tasks) or run(tasks))
    records = run_through(made)
    fresh, rescues, practice = asked
    assert all(task.seed >= 9000 and not task.start for task in fresh)
    exams, starts = made.state.exams, made.state.starts
    assert exams and starts and not {data for _, data in exams} & {data for _, data in starts}
    assert all((task.begun, task.start) in exams for task in rescues)
    assert [bool(task.start) for task in practice] == [True, True, False, False]
    assert all((task.begun, task.start) in starts for task in practice[:2])
    assert all(task.seed < 9000 for task in practice[2:])
    assert {"teacher_success", "teacher_rescues"} <= records[0].keys()


def test_a_good_teacher_practises_no_more(tmp_path, bundle):
    config = settings(tmp_path, practice=replace(PRACTICE, enough=0.0), iterations=3)
    records = run_through(training(config, bundle, tmp_path / "run"))
    assert ["flow_loss" in r for r in records] == [False, True, True]


def test_the_teacher_that_did_best_teaches(tmp_path, bundle):
    made = training(settings(tmp_path, iterations=1), bundle, tmp_path / "run")
    run_through(made)
    best = made.state.best_teacher["last.bias"].clone()
    with torch.no_grad():
        made.state.mentor.teacher.last.bias += 1
    made.state.note_teacher(made.state.teacher_success - 0.1)
    assert np.array_equal(made.best_teacher.weights["last.bias"], best.numpy())
    made.state.note_teacher(made.state.teacher_success)
    assert np.array_equal(made.best_teacher.weights["last.bias"], best.numpy() + 1)


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path, bundle, stop):
    whole = training(settings(tmp_path), bundle, tmp_path / "whole")
    records = run_through(whole)
    run_through(training(settings(tmp_path, iterations=stop), bundle, tmp_path / "parts"))
    second = training(settings(tmp_path), bundle, tmp_path / "parts")
    assert second.state.resume()
    rest = run_through(second)
    for one, two in zip(rest, records[stop:], strict=True):
        timeless = [k for k in one if not k.endswith("_s")]
        assert {k: one[k] for k in timeless} == {k: two[k] for k in timeless}
    for name, value in weights(whole.network).items():
        assert torch.equal(value, dict(second.network.named_parameters())[name]), name
    for name, value in whole.state.average.tensors.items():
        assert torch.equal(value, second.state.average.tensors[name]), name


def test_only_the_windows_rounds_are_kept(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    run_through(made)
    names = sorted(path.name for path in (tmp_path / "run/replay").iterdir())
    assert names == [f"round-{i:05d}.safetensors" for i in (7, 8)]
    again = Replay(tmp_path / "run/replay", 2)
    again.load(5, 9)
    assert len(again) == len(made.replay)


def test_a_missing_round_is_named(tmp_path, bundle):
    run_through(training(settings(tmp_path, iterations=7), bundle, tmp_path / "run"))
    (tmp_path / "run/replay/round-00006.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"round-00006\.safetensors is missing"):
        training(settings(tmp_path), bundle, tmp_path / "run").state.resume()


def test_a_checkpoint_of_other_settings_is_refused_and_a_new_run_starts_clean(tmp_path, bundle):
    run_through(training(settings(tmp_path, iterations=6), bundle, tmp_path / "run"))
    other = settings(tmp_path, lesson=replace(LESSON, steps=4))
    made = training(other, bundle, tmp_path / "run")
    with pytest.raises(TrainingError, match="made with lesson"):
        made.state.resume()
    made.state.begin()
    assert not list((tmp_path / "run/replay").iterdir())


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path, bundle, monkeypatch):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    draw = made.replay.draw

    def spoilt(*given):
        prefix, chunks, valid = draw(*given)
        return prefix, chunks * float("nan"), valid

    monkeypatch.setattr(made.replay, "draw", spoilt)
    with pytest.raises(Diverged, match="iteration 5: its gradient is not finite"):
        run_through(made)


def test_a_policy_that_never_succeeds_has_nothing_to_show(tmp_path, bundle, monkeypatch):
    reset = ReachEnv.reset

    def apart(self, seed):
        reset(self, seed)
        self.target = -np.sign(self.position) * 0.9

    monkeypatch.setattr(ReachEnv, "reset", apart)
    monkeypatch.setattr(ReachEnv, "horizon", 1)
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"never succeeded in 12 episodes of OpenDrawer"):
        run_through(made)


def test_the_result_is_a_bundle_that_says_how_it_was_made(tmp_path, bundle):
    config = settings(tmp_path, bundle=str(bundle.path), iterations=6, export=False)
    main(config, lambda maker, count, size: inline(count))
    made = load_bundle(tmp_path / "out").manifest.made_by
    assert made["command"].startswith("z1-teach")
    assert made["z1"]["lesson"]["steps"] == LESSON.steps and made["z1"]["task"] == "OpenDrawer"
    assert "taught by a teacher" in (tmp_path / "out/README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (CLONE, {"dropout": 1.0}, "dropout is 1.0, expected less than 1"),
        (CLONE, {"watch_episodes": 0}, "watch_episodes is 0, expected at least 1"),
        (PRACTICE, {"gamma": 1.5}, "gamma is 1.5, expected at most 1"),
        (PRACTICE, {"sigma": float("nan")}, "sigma is nan"),
        (LESSON, {"ema": 1.0}, "ema is 1.0, expected less than 1"),
    ],
)
def test_settings_out_of_range_are_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **changes)


def test_a_run_needs_a_budget(tmp_path):
    with pytest.raises(ConfigError, match="never end"):
        settings(tmp_path, iterations=0)
