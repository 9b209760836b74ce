"""Averaged weights of a training run: what is measured and kept, beside what is trained."""

import pytest
import torch
from support.grpo_runs import run_through, settings, training, weights
from support.tiny_bundle import write_tiny_bundle

from z1_ros.errors import ConfigError
from z1_ros.learning.core.learner import measure, train


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def test_the_average_is_what_is_measured_and_training_goes_on_beside_it(
    tmp_path, bundle, monkeypatch
):
    plain = training(settings(tmp_path), bundle, tmp_path / "plain")
    stands = [weights(plain.network)]
    train(plain, lambda _: stands.append(weights(plain.network)))
    made = training(settings(tmp_path, ema=1.0), bundle, tmp_path / "averaged")
    run_through(made)
    assert all(torch.equal(p, stands[-1][n]) for n, p in made.network.named_parameters())

    measured = {}
    follow = made.collector.run

    def run(jobs, sde):
        measured.update(weights(made.network))
        return follow(jobs, sde)

    monkeypatch.setattr(made.collector, "run", run)
    made.state.forget_best()
    measure(made)
    assert all(torch.equal(p, stands[-1][n]) for n, p in made.network.named_parameters())
    made.state.load_best()
    for name, kept in made.network.named_parameters():
        mean = torch.stack([stand[name] for stand in stands]).mean(0)
        torch.testing.assert_close(kept, mean)
        assert torch.equal(kept, measured[name])


def test_a_decay_beyond_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ema is 1.1, expected at most 1"):
        settings(tmp_path, ema=1.1)
