"""AdamW of supervised training: what decays, whose learning rate is whose, the schedule."""

from dataclasses import replace

import pytest
import torch
from support.tiny_training import (
    CONFIG,
    made_frames,
    made_network,
    made_trainer,
    take_steps,
    weights_of,
)

from z1_ros.learning.sft.optimizer import schedule


def test_the_schedule_warms_up_and_falls_to_its_floor():
    made = made_trainer(replace(CONFIG, steps=100, warmup=0.1))
    rates = []
    for made.step in range(101):
        rates.append(made.learning_rate())
    assert rates[0] < rates[5] < rates[10] == max(rates)
    assert rates[10] == pytest.approx(CONFIG.learning_rate)
    assert rates[100] == pytest.approx(0.02 * CONFIG.learning_rate)
    assert schedule(0.0, 0.0) == 1


def test_vlm_and_expert_have_their_own_learning_rates():
    made = made_trainer(replace(CONFIG, vlm_learning_rate=0.0), made_network())
    before = weights_of(made)
    take_steps(made, made_frames(), 3)
    after = weights_of(made)
    moved = {n.split(".")[0] for n in made.parameters if not torch.equal(before[n], after[n])}
    assert moved == {"expert", "time", "action_in_proj", "action_out_proj"}


def test_matrices_decay_while_embeddings_norms_and_biases_do_not():
    made = made_trainer()
    groups = made._optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    kept = {n for n, p in made.parameters.items() if decay[id(p)] == 0}
    assert len(decay) == len(made.parameters)
    assert {
        "vision.embeddings.position_embedding.weight",
        "vlm.embed_tokens.weight",
        "vlm.last.input_layernorm.weight",
        "vision.post_layernorm.weight",
        "action_in_proj.bias",
    } <= kept
    assert (
        not {
            "vision.embeddings.patch_embedding.weight",
            "vlm.last.k_proj.weight",
            "expert.norm.dense.weight",
            "action_in_proj.weight",
        }
        & kept
    )
