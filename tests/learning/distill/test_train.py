"""A distillation: its three kinds of iteration, its numbers when it is resumed, what ends it."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.grpo_runs import grpo_config, grpo_training, run_through, timeless
from support.reach_env import ReachEnv
from support.teaching import (
    CLONE,
    DAGGER,
    TEACHER,
    distill_config,
    distillation,
    jobs,
    open_privileged_inline,
    privileged_pool,
    relabel_by,
    rollout_request,
    straight_teacher,
)
from support.tiny_bundle import TINY
from support.tiny_training import assert_equal, parameters_of

from z1_ros.errors import CheckpointError, Diverged, TrainingError
from z1_ros.learning.distill.dagger import DaggerDataset, relabel_episodes
from z1_ros.learning.distill.train import SAMPLES, Distillation, main
from z1_ros.learning.distill.worker import PrivilegedWorker
from z1_ros.learning.rollout.env_pool import EnvPool, WorkerProcess
from z1_ros.models.bundle.manifest import load_bundle


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bundle):
    """A run that was not interrupted: the weights before it, the run, its records."""
    folder = tmp_path_factory.mktemp("whole")
    made = distillation(distill_config(folder), tiny_bundle, folder / "run")
    return parameters_of(made.network), made, run_through(made)


# The three kinds of iteration


def test_it_collects_then_trains_the_teacher_then_lets_it_teach(whole):
    before, made, records = whole
    kinds = {"clone_loss": 0, "teacher_train_success": 1, "flow_loss": 2}
    assert [next(k for n, k in kinds.items() if n in r) for r in records] == [0, *[1] * 4, *[2] * 4]
    evaluated = ["teacher_success" in r for r in records[:5]]
    assert evaluated == [True, False, True, False, True]
    assert ["eval_success" in r for r in records] == [True, *[False] * 6, True, False]
    changed = {n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("expert.", "time.", "action_")) for n in changed)
    steps = [r["env_steps"] for r in records]
    assert steps == sorted(set(steps))


def test_the_teacher_is_trained_where_the_policy_got_to(tmp_path, tiny_bundle, monkeypatch):
    config = distill_config(tmp_path, iterations=2)
    made = distillation(config, tiny_bundle, tmp_path / "run")
    asked, roll_out = [], made.roll_out_teacher
    monkeypatch.setattr(
        made, "roll_out_teacher", lambda requests: asked.append(requests) or roll_out(requests)
    )
    records = run_through(made)
    fresh, recoveries, training = asked
    assert all(request.begin >= 9000 for request in fresh)
    held_out, starts = made.state.eval_starts, made.state.train_starts
    assert held_out and starts and not {data for _, data in held_out} & {d for _, d in starts}
    assert all((r.steps_before, r.begin) in held_out for r in recoveries)
    assert [type(request.begin) for request in training] == [bytes, bytes, int, int]
    assert all((r.steps_before, r.begin) in starts for r in training[:2])
    assert all(request.begin < 9000 for request in training[2:])
    assert not any(request.noise for request in (*fresh, *recoveries))
    assert all(request.noise and len(request.keys) == 2 for request in training)
    assert {"teacher_success", "teacher_recovery_success"} <= records[0].keys()


def test_a_good_teacher_is_trained_no_more(tmp_path, tiny_bundle):
    config = distill_config(tmp_path, teacher=replace(TEACHER, teacher_target=0.0), iterations=3)
    records = run_through(distillation(config, tiny_bundle, tmp_path / "run"))
    assert ["flow_loss" in r for r in records] == [False, True, True]


def test_the_teacher_that_did_best_teaches(whole):
    _, made, _ = whole
    for name, tensor in made.state.best_teacher.items():
        assert np.array_equal(made.best_teacher.weights[name], tensor.numpy())


def test_samples_of_the_windows_rounds_are_kept(whole):
    _, made, records = whole
    folder = made.run.folder / SAMPLES
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"round-{i:05d}.safetensors" for i in (7, 8)]
    again = DaggerDataset(folder, 2)
    again.load(5, 9)
    assert len(again) == len(made.state.dataset) == records[-1]["dagger_samples"]


# Going on


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(
    tmp_path, tiny_bundle, whole, stop
):
    _, unbroken, records = whole
    first = distill_config(tmp_path, iterations=stop)
    run_through(distillation(first, tiny_bundle, tmp_path / "run"))
    second = distillation(distill_config(tmp_path), tiny_bundle, tmp_path / "run")
    rest = run_through(second)
    assert [timeless(record) for record in rest] == [timeless(r) for r in records[stop:]]
    assert_equal(parameters_of(unbroken.network), parameters_of(second.network))
    assert_equal(unbroken.run.average.tensors, second.run.average.tensors)


def test_a_missing_round_is_named(tmp_path, tiny_bundle):
    config = distill_config(tmp_path, iterations=3, teacher=replace(TEACHER, teacher_iterations=0))
    run_through(distillation(config, tiny_bundle, tmp_path / "run"))
    (tmp_path / "run" / SAMPLES / "round-00002.safetensors").unlink()
    again = distillation(replace(config, iterations=4), tiny_bundle, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"round-00002\.safetensors is missing"):
        again.run.start("z1-teach", "tiny")


def test_a_checkpoint_of_other_settings_is_refused_and_a_new_run_starts_clean(
    tmp_path, tiny_bundle
):
    brief = replace(TEACHER, teacher_iterations=0)
    config = distill_config(tmp_path, iterations=2, teacher=brief)
    run_through(distillation(config, tiny_bundle, tmp_path / "run"))
    assert list((tmp_path / "run" / SAMPLES).iterdir())
    other = replace(config, dagger=replace(DAGGER, dagger_steps=4))
    made = distillation(other, tiny_bundle, tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"made with dagger\.dagger_steps = 3, now it is 4; choose"
    ):
        made.run.start("z1-teach", "tiny")
    fresh = distillation(replace(other, resume=False), tiny_bundle, tmp_path / "run")
    fresh.run.start("z1-teach", "tiny")
    assert not list((tmp_path / "run" / SAMPLES).iterdir())


def test_a_checkpoint_of_z1_train_is_no_checkpoint_of_z1_teach(tmp_path, tiny_bundle):
    training = grpo_training(grpo_config(tmp_path), tiny_bundle, tmp_path / "run")
    training.run.save()
    made = distillation(distill_config(tmp_path), tiny_bundle, tmp_path / "run")
    refused = "made with method = 'GRPO', now it is 'privileged distillation';"
    with pytest.raises(TrainingError, match=refused):
        made.run.start("z1-teach", "tiny")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_environment_that_is_lost_changes_no_number(tmp_path, tiny_bundle, how):
    teacher = straight_teacher()
    wanted_labels = relabel_by(teacher, TINY.horizon)
    requests = [rollout_request(teacher, i) for i in range(6)]
    config = distill_config(tmp_path)

    def relabelled(made):
        groups, samples = relabel_episodes(made.collector, made.sampler, jobs(), wanted_labels)
        return [(g.success.tolist(), g.lengths.tolist()) for g in groups], samples

    quiet = Distillation(config, tiny_bundle, privileged_pool(2), tmp_path)
    groups, samples = relabelled(quiet)
    rollouts = quiet.roll_out_teacher(requests)
    workers = [
        WorkerProcess(ReachEnv, ReachEnv.image_bytes, kind=PrivilegedWorker) for _ in range(2)
    ]
    with EnvPool(workers, timeout_s=3.0) as pool:
        made = Distillation(config, tiny_bundle, pool, tmp_path)
        calls, follow = [], made.sampler.follow

        def strike(*args):
            calls.append(1)
            if len(calls) == 5:
                os.kill(workers[1].pid, how)
            return follow(*args)

        made.sampler.follow = strike
        found, again = relabelled(made)
        assert found == groups and pool.replaced == 1
        for one, two in zip(again, samples, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        os.kill(workers[0].pid, how)
        for one, two in zip(made.roll_out_teacher(requests), rollouts, strict=True):
            assert np.array_equal(one.privileged, two.privileged)
        assert pool.replaced == 2


# What ends it


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path, tiny_bundle, monkeypatch):
    brief = replace(TEACHER, teacher_iterations=0)
    config = distill_config(tmp_path, teacher=brief)
    made = distillation(config, tiny_bundle, tmp_path / "run")
    draw = made.state.dataset.draw

    def spoilt(*given):
        prefix, chunks, valid = draw(*given)
        return prefix, chunks * float("nan"), valid

    monkeypatch.setattr(made.state.dataset, "draw", spoilt)
    with pytest.raises(Diverged, match="iteration 1: its gradient is not finite"):
        run_through(made)


def test_a_policy_that_never_succeeds_gives_a_teacher_nothing_to_begin_from(
    tmp_path, tiny_bundle, monkeypatch
):
    reset = ReachEnv.reset

    def apart(self, seed):
        reset(self, seed)
        self.target = -np.sign(self.position) * 0.9

    monkeypatch.setattr(ReachEnv, "reset", apart)
    monkeypatch.setattr(ReachEnv, "horizon", 1)
    made = distillation(distill_config(tmp_path), tiny_bundle, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"never succeeded in 12 episodes of OpenDrawer"):
        run_through(made)


# What it leaves


def test_the_result_is_a_bundle_that_says_how_it_was_made(tmp_path, tiny_bundle, capsys):
    config = distill_config(
        tmp_path,
        bundle=str(tiny_bundle.path),
        iterations=2,
        export=False,
        clone=replace(CLONE, clone_steps=5),
        teacher=replace(TEACHER, teacher_iterations=0),
    )
    main(config, open_privileged_inline)
    made = load_bundle(tmp_path / "out").manifest.made_by
    assert "privileged distillation" in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert made["command"].startswith("z1-teach")
    assert made["z1"]["dagger"]["dagger_steps"] == 3 and made["z1"]["task"] == "OpenDrawer"
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("z1-teach: OpenDrawer in kitchen, from tiny to ")
    assert said[-1].startswith("success ") and "written to" in said[-1]
