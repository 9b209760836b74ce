"""A run on disk: budget, checkpoint, best weights, and what it says while it goes on."""

import json
import math
import sys

import pytest
import torch
from support.tiny_bundle import TINY
from support.tiny_training import assert_equal, parameters_of

from z1_ros.benchmarks.load import random_observation
from z1_ros.errors import CheckpointError, Diverged, TrainingError
from z1_ros.learning.core.run import BEST, TrainingRun, made_by, start_expert
from z1_ros.learning.core.run_config import RunConfig
from z1_ros.learning.core.run_log import CHECKPOINT, LOG, read_records
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.checkpoint.loading import write_tensors
from z1_ros.models.network.pi05 import Pi05
from z1_ros.policy.backends import load_policy

FINGERPRINT = {"task": "OpenDrawer", "grpo": {"clip": 0.2}, "eval": [2, 200], "seed": 0}


class Counted:
    """What a method keeps beside the policy: here, a number."""

    def __init__(self):
        self.events, self.number = [], 0

    def facts(self):
        return {"number": self.number}

    def tensors(self):
        return {"extra": {"number": torch.tensor(self.number)}}

    def load(self, facts, groups, iteration):
        self.number = facts["number"]
        self.events.append(("load", iteration, int(groups["extra"]["number"])))

    def forget_files(self, before=math.inf):
        self.events.append(("forget", before))


def made_run(tmp_path, extra=None, decay=0.0, fingerprint=None, **changes):
    """Return a run of a tiny network whose action expert is trained, and its optimiser."""
    given = {"bundle": "tiny", "task": "OpenDrawer", "out": tmp_path / "out", "iterations": 4}
    config = RunConfig(**(given | {"minutes": 0.0} | changes))
    network = Pi05(TINY).init_weights(0).requires_grad_(False)
    network.action_out_proj.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.action_out_proj.parameters(), lr=0.1)
    folder = tmp_path / "out-run"
    folder.mkdir(exist_ok=True)
    run = TrainingRun(
        folder,
        config,
        network,
        optimizer,
        fingerprint or FINGERPRINT,
        average_decay=decay,
        extra=extra,
    )
    return run, network, optimizer


def go_on(run, network, optimizer, iterations=1):
    """Train for some iterations of a second and 100 control steps each."""
    for _ in range(iterations):
        with run.one_iteration() as metrics:
            network.action_out_proj.bias.square().sum().backward()
            torch.nn.init.ones_(network.action_out_proj.bias.grad)
            optimizer.step()
            run.counters.env_steps += 100
            run.average.update(run.counters.iteration + 1)
            metrics["loss"] = 0.5


# Budgets


def test_the_first_budget_that_is_used_up_ends_training(tmp_path):
    def finished(**budgets):
        run, *_ = made_run(tmp_path, **({"iterations": 0} | budgets))
        run.counters.iteration, run.counters.elapsed_s, run.counters.env_steps = 5, 120.0, 900
        return run.finished

    assert not finished(minutes=3.0) and not finished(iterations=6, env_steps=1000)
    assert finished(minutes=2.0, iterations=6)
    assert finished(minutes=3.0, iterations=5) and finished(env_steps=900)


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"minutes": 10.0}, "8 min left"),
        ({"iterations": 10}, "2 min left"),
        ({"env_steps": 1200}, "40 s left"),
        ({"minutes": 60.0, "env_steps": 1200}, "40 s left"),
        ({"minutes": 1.0}, "0 s left"),
    ],
)
def test_the_remaining_time_follows_from_the_budget_that_ends_first(tmp_path, budgets, said):
    run, *_ = made_run(tmp_path, **({"iterations": 0} | budgets))
    run.counters.iteration, run.counters.elapsed_s, run.counters.env_steps = 5, 120.0, 900
    assert run.remaining() == said


def test_before_its_first_iteration_a_run_does_not_guess(tmp_path):
    run, *_ = made_run(tmp_path, iterations=4, env_steps=100)
    assert run.remaining() == ""


# What it says


def test_a_run_says_at_once_what_it_will_do(tmp_path, capsys):
    run, *_ = made_run(tmp_path, minutes=30.0, iterations=4, workers=3, eval_episodes=7)
    run.start("z1-train", "kitchen-sft")
    said = capsys.readouterr().out
    first, second, third = said.splitlines()
    assert first == f"z1-train: OpenDrawer in kitchen, from kitchen-sft to {tmp_path / 'out'}"
    assert second.endswith(f"{tmp_path / 'out-run'}; budget: 30 min or 4 iterations")
    assert third.startswith("3 environment workers are starting; the first evaluation, of 7 ")


def test_each_iteration_says_how_long_is_left(tmp_path, capsys):
    run, *parts = made_run(tmp_path, iterations=2)
    go_on(run, *parts, iterations=2)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("iteration 0") and first.endswith("s left")
    assert second.endswith("  0 s left")


def test_a_resumed_run_says_where_it_goes_on(tmp_path, capsys):
    run, *parts = made_run(tmp_path)
    go_on(run, *parts, iterations=2)
    made_run(tmp_path)[0].start("z1-train", "tiny")
    assert capsys.readouterr().out.splitlines()[-1] == "continues after iteration 2"


# Going on


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_resumed_run_goes_on_as_if_it_had_not_been_interrupted(tmp_path, decay):
    (tmp_path / "whole").mkdir()
    whole, *parts = made_run(tmp_path / "whole", decay=decay)
    go_on(whole, *parts, iterations=4)
    first, *first_parts = made_run(tmp_path, decay=decay)
    go_on(first, *first_parts, iterations=1)
    second, *second_parts = made_run(tmp_path, decay=decay)
    second.start("z1-train", "tiny")
    assert second.counters.iteration == 1 and second.counters.env_steps == 100
    go_on(second, *second_parts, iterations=3)
    assert_equal(parameters_of(parts[0]), parameters_of(second_parts[0]))
    assert_equal(whole.average.tensors, second.average.tensors)
    assert second.finished
    assert [r["env_steps"] for r in read_records(second.folder)] == [100, 200, 300, 400]


def test_what_a_method_keeps_is_kept_and_comes_back(tmp_path):
    kept = Counted()
    run, *parts = made_run(tmp_path, extra=kept)
    run.start("z1-teach", "tiny")
    kept.number = 3
    go_on(run, *parts)
    assert kept.events == [("forget", math.inf), ("forget", 1)]
    again = Counted()
    second, *_ = made_run(tmp_path, extra=again)
    second.start("z1-teach", "tiny")
    assert again.number == 3 and again.events == [("load", 1, 3)]


def test_a_checkpoint_of_another_command_is_refused(tmp_path):
    run, *parts = made_run(tmp_path)
    go_on(run, *parts)
    with pytest.raises(CheckpointError, match="no checkpoint of this command: it lacks 'number'"):
        made_run(tmp_path, extra=Counted())[0].start("z1-teach", "tiny")


def test_a_checkpoint_of_other_settings_is_refused_naming_the_difference(tmp_path):
    run, *parts = made_run(tmp_path)
    go_on(run, *parts)
    other = FINGERPRINT | {"grpo": {"clip": 0.1}}
    with pytest.raises(TrainingError, match=r"made with grpo\.clip = 0\.2, now it is 0\.1; "):
        made_run(tmp_path, fingerprint=other)[0].start("z1-train", "tiny")
    assert (run.folder / CHECKPOINT).exists() and read_records(run.folder)


def test_a_run_that_does_not_resume_removes_what_an_earlier_one_left_and_nothing_else(tmp_path):
    run, *parts = made_run(tmp_path)
    run.note_success(0.5)
    go_on(run, *parts)
    (run.folder / "tensorboard").mkdir()
    (run.folder / "notes.txt").touch()
    assert {p.name for p in run.folder.iterdir()} >= {CHECKPOINT, BEST, LOG}
    fresh, *_ = made_run(tmp_path, resume=False)
    fresh.start("z1-train", "tiny")
    assert [p.name for p in run.folder.iterdir()] == ["notes.txt"]
    assert fresh.counters.iteration == 0


# The best weights


def test_the_best_weights_that_were_evaluated_are_kept_and_come_back(tmp_path):
    run, network, optimizer = made_run(tmp_path)
    best = parameters_of(network)
    run.note_success(0.5)
    go_on(run, network, optimizer)
    run.note_success(0.4)
    assert run.counters.best_success == 0.5 and run.counters.best_iteration == 0
    run.load_best()
    assert_equal(parameters_of(network), best)
    run.forget_best()
    run.note_success(0.1)
    assert run.counters.best_success == 0.1 and run.counters.best_iteration == 1


def test_what_a_run_evaluated_last_is_known_when_it_goes_on(tmp_path):
    """Also if it was killed between an evaluation and the checkpoint."""
    run, *parts = made_run(tmp_path)
    go_on(run, *parts)
    run.note_success(0.75)
    again, *_ = made_run(tmp_path)
    again.start("z1-train", "tiny")
    assert again.counters.best_success == 0.75 and again.counters.best_iteration == 1


def test_a_policy_that_diverges_is_logged_and_never_saved(tmp_path):
    run, *parts = made_run(tmp_path)
    go_on(run, *parts)
    saved = (run.folder / CHECKPOINT).read_bytes()
    with (
        pytest.raises(Diverged, match="diverged at iteration 1: too far"),
        run.one_iteration() as m,
    ):
        m["kl"] = 7.0
        raise Diverged("too far")
    assert read_records(run.folder)[-1]["kl"] == 7.0
    assert (run.folder / CHECKPOINT).read_bytes() == saved
    assert run.counters.iteration == 1


# The bundle


def test_the_result_is_a_bundle_that_runs_and_says_how_it_was_made(tmp_path, tiny_bundle, capsys):
    given = {"bundle": "tiny", "task": "OpenDrawer", "out": tmp_path / "out", "iterations": 4}
    config = RunConfig(**given, minutes=0.0, json=tmp_path / "metrics.json")
    network = Pi05(TINY).init_weights(1)
    optimizer = torch.optim.AdamW(network.parameters())
    (tmp_path / "run").mkdir()
    run = TrainingRun(tmp_path / "run", config, network, optimizer, FINGERPRINT)
    run.counters.iteration = 1
    for iteration, success in ((0, 0.79), (1, 0.96)):
        run.note_success(success)
        run.write({"iteration": iteration, "eval_success": success, "eval_n": 200})
    metrics = run.finish("z1-train", tiny_bundle, None, frozen_vlm=False)
    made = load_bundle(tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"success 79 → 96 % (n = 200); written to {made.path}"
    )
    assert json.loads(config.json.read_text("utf-8")) == metrics
    assert made.manifest.made_by["z1"]["iteration"] == 1
    assert made.manifest.made_by["init"]["sha256"] == tiny_bundle.sha256
    assert "reinforcement learning" in made.file("README.md").read_text("utf-8")
    assert made.manifest.files[WEIGHTS] != tiny_bundle.manifest.files[WEIGHTS]
    assert {"prefix.onnx", "denoise.onnx"} <= set(made.manifest.files)
    load_policy(made.path).infer(random_observation(made.manifest))


def test_the_success_at_the_end_is_that_of_the_weights_that_were_kept(
    tmp_path, tiny_bundle, capsys
):
    run, *_ = made_run(tmp_path, export=False)
    for iteration, success in enumerate((0.5, 0.9, 0.6)):
        run.note_success(success)
        run.write({"iteration": iteration, "eval_success": success, "eval_n": 10})
    run.finish("z1-train", tiny_bundle, None, frozen_vlm=True)
    assert "success 50 → 90 % (n = 10); written to" in capsys.readouterr().out


def test_a_run_that_diverged_still_leaves_its_best_weights(tmp_path, tiny_bundle):
    run, *_ = made_run(tmp_path, export=False)
    run.note_success(0.5)
    with pytest.raises(Diverged, match=r"too far\. The best weights, success 0\.50 at iteration 0"):
        run.finish("z1-train", tiny_bundle, Diverged("too far"), frozen_vlm=True)
    assert load_bundle(tmp_path / "out").manifest.made_by["z1"]["best_success"] == 0.5


def test_the_origin_is_ready_for_json_and_names_the_task_expert(tiny_bundle, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/z1-train", "--task", "OpenDrawer"])
    assert start_expert(tiny_bundle, "OpenDrawer") == ""
    origin = made_by("z1-train", {"task": "OpenDrawer"}, tiny_bundle)
    assert origin["command"] == "z1-train --task OpenDrawer"
    assert origin["init"]["expert"] == ""
    json.dumps(origin)


def test_an_unreadable_checkpoint_is_refused_in_one_sentence(tmp_path):
    run, *_ = made_run(tmp_path)
    write_tensors(run.folder / CHECKPOINT, {"x": torch.zeros(1)}, {"fingerprint": FINGERPRINT})
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        run.start("z1-train", "tiny")
    (run.folder / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        run.start("z1-train", "tiny")
