"""The one training checkpoint: everything comes back, and other settings are refused by name."""

import pytest
import torch
from support.tiny_training import assert_equal

from z1_ros.errors import CheckpointError, TrainingError
from z1_ros.learning.core.checkpoint import TrainingCheckpoint, refuse_other_settings
from z1_ros.learning.core.ema import WeightAverage
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors

FINGERPRINT = {"task": "OpenDrawer", "grpo": {"clip": 0.2, "groups": 6}, "eval": (2, 4)}


class Trained:
    """Two parameters that are trained, and all that a checkpoint keeps of them."""

    def __init__(self, path, decay=0.9, seed=0, **changes):
        random = torch.Generator().manual_seed(seed)
        self.parameters = {
            name: torch.nn.Parameter(torch.randn(3, 2, generator=random)) for name in ("a.x", "b")
        }
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.1)
        self.average = WeightAverage(self.parameters, decay)
        self.checkpoint = TrainingCheckpoint(
            path, self.parameters, self.optimizer, self.average, FINGERPRINT | changes
        )

    def learn(self, steps):
        for step in range(1, steps + 1):
            sum(p.square().sum() for p in self.parameters.values()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.update(step)
        return self

    @property
    def state(self):
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        return own | {f"ema.{name}": p.clone() for name, p in self.average.tensors.items()}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_weights_average_optimiser_and_counters_come_back(tmp_path, decay):
    first = Trained(tmp_path / "c.safetensors", decay).learn(3)
    first.checkpoint.save({"step": 3}, {"teacher": {"bias": torch.ones(2)}})
    second = Trained(tmp_path / "c.safetensors", decay, seed=1)
    facts, groups = second.checkpoint.load()
    assert facts == {"step": 3}
    assert torch.equal(groups["teacher"]["bias"], torch.ones(2))
    assert_equal(first.state, second.state)
    assert_equal(first.learn(2).state, second.learn(2).state)


def test_a_checkpoint_of_no_step_has_no_moments(tmp_path):
    first = Trained(tmp_path / "c.safetensors")
    first.checkpoint.save({})
    kinds = {name.partition(".")[0] for name in read_tensors(tmp_path / "c.safetensors")}
    assert kinds == {"model", "ema"}
    second = Trained(tmp_path / "c.safetensors", seed=1)
    assert second.checkpoint.load()[0] == {}
    assert_equal(first.learn(2).state, second.learn(2).state)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            FINGERPRINT | {"grpo": {"clip": 0.1, "groups": 6}},
            "made with grpo.clip = 0.2, now it is 0.1;",
        ),
        (FINGERPRINT | {"task": "Turn"}, "made with task = 'OpenDrawer', now it is 'Turn';"),
        (FINGERPRINT | {"eval": (2, 8)}, "made with eval = [2, 4], now it is [2, 8];"),
        (FINGERPRINT | {"ema": 0.5}, "made with ema = None, now it is 0.5;"),
        ({"task": "OpenDrawer", "eval": (2, 4)}, "made with grpo.clip = 0.2, now it is None;"),
    ],
)
def test_a_checkpoint_of_other_settings_names_the_one_that_differs(tmp_path, now, said):
    Trained(tmp_path / "c.safetensors").checkpoint.save({})
    other = Trained(tmp_path / "c.safetensors")
    before = other.state
    other.checkpoint.fingerprint = TrainingCheckpoint(
        tmp_path / "x", {}, other.optimizer, other.average, now
    ).fingerprint
    with pytest.raises(TrainingError) as caught:
        other.checkpoint.load()
    assert said in str(caught.value) and "--no-resume" in str(caught.value)
    assert str(caught.value).count(" = ") == 1
    assert_equal(before, other.state)


def test_equal_settings_are_not_refused(tmp_path):
    refuse_other_settings(tmp_path, {"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}})


def test_a_file_that_is_no_training_checkpoint_is_refused(tmp_path):
    made = Trained(tmp_path / "m.safetensors")
    facts = {"fingerprint": made.checkpoint.fingerprint}
    write_tensors(tmp_path / "m.safetensors", dict(made.parameters), facts)
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        made.checkpoint.load()


def test_a_checkpoint_that_is_damaged_is_refused(tmp_path):
    made = Trained(tmp_path / "c.safetensors")
    made.checkpoint.save({})
    whole = made.checkpoint.path.read_bytes()
    made.checkpoint.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        made.checkpoint.load()
