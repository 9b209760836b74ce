"""Evaluation during training: validation scenes, no noise, the averaged weights."""

import math
from dataclasses import replace

import numpy as np
import torch
from support.grpo_runs import GRPO, grpo_config, grpo_training, run_through
from support.tiny_training import assert_equal, parameters_of

from z1_ros.learning.core.run_log import read_records
from z1_ros.learning.rollout.collector import WHOLE_EPISODE, Executed, Group, GroupJob, Rollout
from z1_ros.learning.rollout.evaluate import evaluate, evaluate_last, mean_chunks
from z1_ros.learning.rollout.plan import plan_group


def test_the_average_is_what_is_evaluated_and_training_goes_on_beside_it(
    tmp_path, tiny_bundle, monkeypatch
):
    brief = {"iterations": 2, "grpo": replace(GRPO, groups=3)}
    plain = grpo_training(grpo_config(tmp_path, **brief), tiny_bundle, tmp_path / "plain")
    values = [parameters_of(plain.network)]
    write = plain.run.write
    monkeypatch.setattr(
        plain.run,
        "write",
        lambda metrics: (values.append(parameters_of(plain.network)), write(metrics)),
    )
    run_through(plain)
    config = grpo_config(tmp_path, ema=1.0, **brief)
    made = grpo_training(config, tiny_bundle, tmp_path / "averaged")
    run_through(made)
    assert not torch.equal(values[0]["action_out_proj.weight"], made.network.action_out_proj.weight)
    assert_equal(parameters_of(made.network), values[-1])

    evaluated = {}
    roll_out = made.collector.run

    def run(jobs, act):
        evaluated.update(parameters_of(made.network))
        return roll_out(jobs, act)

    monkeypatch.setattr(made.collector, "run", run)
    made.run.forget_best()
    evaluate(made.run, made.collector, made.sampler)
    assert_equal(parameters_of(made.network), values[-1])
    made.run.load_best()
    for name, kept in made.network.named_parameters():
        mean = torch.stack([value[name] for value in values]).mean(0)
        torch.testing.assert_close(kept, mean)
        assert torch.equal(kept, evaluated[name])


def test_an_evaluation_is_of_validation_scenes_alone_and_costs_no_training_steps(
    tmp_path, tiny_bundle, monkeypatch
):
    made = grpo_training(grpo_config(tmp_path, eval_episodes=3), tiny_bundle, tmp_path / "run")
    scenes, roll_out = [], made.collector.run
    monkeypatch.setattr(
        made.collector, "run", lambda jobs, act: scenes.extend(jobs) or roll_out(jobs, act)
    )
    metrics = evaluate_last(made.run, made.collector, made.sampler)
    assert [job.seed for job in scenes] == [9000, 9001, 9002]
    assert made.run.counters.env_steps == 0 < made.collector.counts.env_steps
    assert metrics["eval_n"] == 3 and metrics["eval_success"] in (0, 1 / 3, 2 / 3, 1)
    low, high = metrics["eval_ci95"]
    assert 0 <= low <= metrics["eval_success"] <= high <= 1
    (logged,) = read_records(made.run.folder)
    assert logged["iteration"] == 0 and logged["eval_success"] == metrics["eval_success"]
    assert made.run.counters.best_success == metrics["eval_success"]


def test_two_evaluations_of_one_policy_agree(tmp_path, tiny_bundle):
    made = grpo_training(grpo_config(tmp_path), tiny_bundle, tmp_path / "run")
    one, two = (evaluate(made.run, made.collector, made.sampler) for _ in range(2))
    del one["eval_s"], two["eval_s"]
    np.testing.assert_equal(one, two)  # nan where no episode succeeded


def test_chunks_to_success_are_those_of_the_rollouts_that_succeeded():
    def episode(chunks, success):
        rollout = Rollout([Executed(None, 4)] * chunks, success, True)
        return Group(GroupJob((0,), WHOLE_EPISODE, 0), [rollout])

    assert mean_chunks([episode(4, True), episode(9, False), episode(8, True)]) == 6
    assert math.isnan(mean_chunks([episode(9, False)]))
    shared = Group(
        GroupJob((0,), plan_group(2, "prefix", 2), 0),
        [
            Rollout([Executed(None, 4)] * 2),
            Rollout([Executed(None, 4)], True, True),
            Rollout([Executed(None, 4)] * 5, False, True),
        ],
    )
    assert mean_chunks([shared]) == 3
