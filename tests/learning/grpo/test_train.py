"""Z-1's loop on a small world: what is trained, exact resume, divergence."""

from dataclasses import replace

import pytest
import torch
from support.grpo_runs import GRPO, grpo_config, grpo_training, run_through, timeless
from support.tiny_training import assert_equal, parameters_of

from z1_ros.errors import Diverged, TrainingError
from z1_ros.learning.core.lora import plain_weights
from z1_ros.learning.core.run_log import CHECKPOINT, read_records
from z1_ros.learning.grpo.config import GrpoConfig
from z1_ros.learning.grpo.train import refuse_large_update, set_learning_rates


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bundle):
    """A run that was not interrupted: the weights before it, the run, its records."""
    folder = tmp_path_factory.mktemp("whole")
    made = grpo_training(grpo_config(folder, ema=0.6), tiny_bundle, folder / "run")
    return parameters_of(made.network), made, run_through(made)


def test_only_the_expert_changes_and_the_first_ratios_are_one(whole):
    before, made, records = whole
    assert [r["iteration"] for r in records] == [0, 1, 2]
    assert ["eval_success" in r for r in records] == [True, False, True]
    learnt = [r for r in records if "kl" in r]
    assert learnt and all(r["log_prob_mismatch"] < 1e-4 for r in learnt)
    changed = {n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("expert.", "time.", "action_")) for n in changed)


def test_metrics_say_what_an_iteration_cost_and_brought(whole):
    _, made, records = whole
    for record in records:
        assert 0 <= record["train_success"] <= 1 and 0 <= record["group_filter_rate"] <= 1
        assert {"rollout_s", "update_s", "env_steps_per_s"} <= record.keys()
    steps = [record["env_steps"] for record in records]
    assert steps == sorted(set(steps)) and steps[-1] == made.run.counters.env_steps


@pytest.mark.parametrize("trained", ["joint", "lora"])
def test_joint_training_changes_the_vlm_too(tmp_path, tiny_bundle, trained):
    if trained == "lora":
        pytest.importorskip("peft")
    config = grpo_config(tmp_path, grpo=replace(GRPO, trained=trained))
    made = grpo_training(config, tiny_bundle, tmp_path / "run")
    before = {name: p.clone() for name, p in plain_weights(made.network).items()}
    records = run_through(made)
    assert all(r["log_prob_mismatch"] < 1e-4 for r in records if "kl" in r)
    after = plain_weights(made.network)
    changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert any(n.startswith("vlm.") for n in changed)
    assert any(n.startswith("vision.") for n in changed)


def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(
    tmp_path, tiny_bundle, whole
):
    _, made, records = whole
    first = grpo_config(tmp_path, ema=0.6, iterations=2)
    run_through(grpo_training(first, tiny_bundle, tmp_path / "parts"))
    second = grpo_training(grpo_config(tmp_path, ema=0.6), tiny_bundle, tmp_path / "parts")
    (last,) = run_through(second)
    assert timeless(last) == timeless(records[-1])
    assert_equal(parameters_of(made.network), parameters_of(second.network))
    assert made.run.average.tensors
    assert_equal(made.run.average.tensors, second.run.average.tensors)


def test_a_checkpoint_of_other_settings_is_refused_naming_the_one(tmp_path, tiny_bundle):
    made = grpo_training(grpo_config(tmp_path, iterations=1), tiny_bundle, tmp_path / "run")
    run_through(made)
    for changes, said in (
        ({"grpo": replace(GRPO, clip=0.1)}, "grpo.clip = 0.2, now it is 0.1;"),
        ({"noise_level": 0.5}, "sde.noise_level = 1.0, now it is 0.5;"),
        ({"eval_episodes": 5}, "eval = [2, 4], now it is [2, 5];"),
        ({"seed": 1}, "seed = 0, now it is 1;"),
    ):
        other = grpo_training(grpo_config(tmp_path, **changes), tiny_bundle, tmp_path / "run")
        with pytest.raises(TrainingError) as caught:
            other.run.start("z1-train", "tiny")
        assert f"was made with {said}" in str(caught.value)
        assert str(caught.value).count(" = ") == 1


def test_divergence_ends_the_run_and_keeps_the_best_weights(tmp_path, tiny_bundle):
    grpo = replace(GRPO, learning_rate=0.5, update_epochs=4, max_kl=1.0)
    made = grpo_training(grpo_config(tmp_path, grpo=grpo), tiny_bundle, tmp_path / "run")
    before = parameters_of(made.network)
    with pytest.raises(Diverged, match="diverged at iteration"):
        run_through(made)
    assert "kl_update" in read_records(tmp_path / "run")[-1]
    made.run.load_best()
    assert_equal(parameters_of(made.network), before)


def test_a_single_step_that_goes_too_far_is_divergence_too(tmp_path, tiny_bundle):
    """With one optimiser step an iteration, every ratio is taken before it."""
    config = grpo_config(tmp_path, grpo=replace(GRPO, learning_rate=0.5, minibatches=1))
    made = grpo_training(config, tiny_bundle, tmp_path / "run")
    with pytest.raises(Diverged, match="moved it by KL"):
        run_through(made)
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize(
    "metrics", [{"kl": 0.6}, {"kl": 0.1, "kl_update": 0.6}, {"kl_update": float("nan")}]
)
def test_an_update_that_moved_the_policy_too_far_is_refused(metrics):
    with pytest.raises(Diverged, match="an update moved it by KL"):
        refuse_large_update(metrics, 0.5)
    refuse_large_update({"kl": 0.5, "kl_update": 0.1}, 0.5)
    refuse_large_update({}, 0.5)


def test_the_scenes_of_an_iteration_are_its_own_and_training_scenes(tmp_path, tiny_bundle):
    grpo = replace(GRPO, groups=3, group_size=2)
    config = grpo_config(tmp_path, grpo=grpo, max_chunks=1)
    made = grpo_training(config, tiny_bundle, tmp_path / "run")
    found = [[group.job.seed for group in made.collect(i)] for i in (0, 1, 0)]
    assert found[0] == found[2] != found[1]
    assert len(set(found[0])) == 3 and max(found[0] + found[1]) < 9_000


def test_rollouts_of_another_policy_end_the_run(tmp_path, tiny_bundle):
    made = grpo_training(grpo_config(tmp_path), tiny_bundle, tmp_path / "run")
    collect = made.collect

    def then_change(iteration):
        groups = collect(iteration)
        with torch.no_grad():
            made.network.action_out_proj.weight.add_(0.3)
        return groups

    made.collect = then_change
    with pytest.raises(TrainingError, match="not of the same policy"):
        made.iterate(0)


def test_learning_rates_rise_to_what_is_asked_for(tmp_path, tiny_bundle):
    config = GrpoConfig(trained="joint", learning_rate=1e-3, vlm_learning_rate=1e-4)
    made = grpo_training(grpo_config(tmp_path, grpo=config), tiny_bundle, tmp_path / "run")
    rates = []
    for iteration in (0, 4, 9):
        set_learning_rates(made.optimizer, config, iteration)
        rates.append([group["lr"] for group in made.optimizer.param_groups])
    assert rates == [[pytest.approx(2e-4), pytest.approx(2e-5)], [1e-3, 1e-4], [1e-3, 1e-4]]
