"""From the bundle to the bundle: what is written, evaluated and said, and what ends a run."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.grpo_runs import GRPO, grpo_config, grpo_training, run_through
from support.inline_worker import open_inline
from support.tiny_training import assert_equal, parameters_of

from z1_ros.errors import ConfigError, ContractMismatch, Diverged, Z1Error
from z1_ros.learning.core.run_log import read_records
from z1_ros.learning.grpo.train import main
from z1_ros.learning.rollout.collector import WHOLE_EPISODE, Executed, Group, GroupJob, Rollout
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.session import evaluate, evaluate_last, mean_chunks
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle, write_manifest
from z1_ros.runtime.lock import locked


def short(tmp_path, bundle, **changes):
    return grpo_config(tmp_path, bundle=str(bundle.path), iterations=1, export=False, **changes)


def refuse_to_open(maker, count):
    raise AssertionError("environments were opened for a run that cannot be")


def test_a_run_says_what_it_will_do_what_came_of_it_and_where_the_bundle_is(
    tmp_path, tiny_bundle, capsys
):
    """The first lines come before any environment has answered."""

    def open_pool(maker, count):
        assert (maker.task, maker.embodiment, count) == ("OpenDrawer", "panda", 12)
        pool = open_inline(maker, count)
        receive, waited = pool.receive, []

        def first_reply(worker):
            if not waited:
                waited.append(capsys.readouterr().out)
                assert "z1-train: OpenDrawer in kitchen, from tiny to" in waited[0]
                assert "12 environment workers are starting" in waited[0]
            return receive(worker)

        pool.receive = first_reply
        return pool

    main(short(tmp_path, tiny_bundle), open_pool)
    said = capsys.readouterr().out.splitlines()
    first, last = (r["eval_success"] for r in read_records(tmp_path / "out-run"))
    best = max(first, last)
    assert said[-1] == (
        f"success {100 * first:.0f} → {100 * best:.0f} % (n = 4); written to {tmp_path / 'out'}"
    )
    assert any(line.startswith("iteration 0") and line.endswith("0 s left") for line in said)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_bundle_is_of_the_best_weights_or_the_last(tmp_path, tiny_bundle, monkeypatch, keep):
    successes = [1.0, 0.0]

    def evaluate(run, collector, sampler):
        run.note_success(successes[0])
        return {"eval_success": successes.pop(0), "eval_n": 4}

    monkeypatch.setattr("z1_ros.learning.grpo.train.evaluate", evaluate)
    monkeypatch.setattr("z1_ros.learning.rollout.session.evaluate", evaluate)
    main(short(tmp_path, tiny_bundle, keep=keep), open_inline)
    made = load_bundle(tmp_path / "out")
    kept_start = made.manifest.files[WEIGHTS] == tiny_bundle.manifest.files[WEIGHTS]
    assert kept_start == (keep == "best")
    assert made.manifest.made_by["z1"]["best_iteration"] == (0 if keep == "best" else 1)


def test_after_divergence_the_best_weights_are_a_bundle(tmp_path, tiny_bundle):
    config = grpo_config(
        tmp_path,
        bundle=str(tiny_bundle.path),
        grpo=replace(GRPO, learning_rate=0.5, minibatches=1),
        max_chunks=6,
        export=False,
    )
    for _ in range(2):  # the same command again ends alike
        with pytest.raises(Diverged, match=r"best weights, success .* are written to .*/out;"):
            main(config, open_inline)
    made = load_bundle(tmp_path / "out")
    assert made.manifest.files[WEIGHTS] == tiny_bundle.manifest.files[WEIGHTS]


def test_a_complete_run_is_not_trained_again(tmp_path, tiny_bundle):
    config = short(tmp_path, tiny_bundle)
    first = main(config, open_inline)
    weights = load_bundle(tmp_path / "out").manifest.files[WEIGHTS]
    again = main(config, open_inline)
    assert again == first
    assert load_bundle(tmp_path / "out").manifest.files[WEIGHTS] == weights


def test_two_runs_in_one_folder_are_refused(tmp_path, tiny_bundle):
    (tmp_path / "out-run").mkdir()
    with locked(tmp_path / "out-run"), pytest.raises(Z1Error, match="out-run is in use"):
        main(short(tmp_path, tiny_bundle), refuse_to_open)
    assert read_records(tmp_path / "out-run") == []
    main(short(tmp_path, tiny_bundle), open_inline)
    assert len(read_records(tmp_path / "out-run")) == 2


def test_what_cannot_be_is_refused_before_environments_open(tmp_path, tiny_bundle):
    with pytest.raises(ConfigError, match=r"no task 'OpenDraw'.*Did you mean 'OpenDrawer'"):
        main(short(tmp_path, tiny_bundle, task="OpenDraw"), refuse_to_open)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        main(short(tmp_path, tiny_bundle), refuse_to_open)


def test_a_bundle_that_does_not_fit_its_robot_is_refused(tmp_path, tiny_bundle):
    contract = tiny_bundle.manifest.contract
    fast = replace(contract, control_hz=50.0)
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(tiny_bundle.file(name).read_bytes())
    write_manifest(tmp_path, replace(tiny_bundle.manifest, contract=fast))
    config = replace(short(tmp_path, tiny_bundle), bundle=str(tmp_path))
    with pytest.raises(ContractMismatch, match=r"acts at 50\.0 Hz"):
        main(config, refuse_to_open)


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
