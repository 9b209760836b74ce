"""Training samples that a tiny network can learn, and trainers of it."""

import torch
from support.tiny_bundle import TINY

from z1_ros.learning.sft.config import TrainConfig
from z1_ros.learning.sft.dataset import Augmentation, Frames
from z1_ros.learning.sft.trainer import Trainer
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05

REAL_DIMS = 7
CONFIG = TrainConfig(
    steps=40,
    batch_size=8,
    draws=2,
    learning_rate=3e-3,
    ema=0.9,
    augmentation=Augmentation(shift_px=1),
)


def made_frames(count: int = 64) -> Frames:
    """Return frames whose chunk follows from the brightness of the first camera."""
    random = torch.Generator().manual_seed(0)
    level = torch.rand(count, generator=random)
    images = torch.randint(0, 256, (count, 3, 32, 32, 3), generator=random).byte()
    images[:, 0] = (level * 255).byte()[:, None, None, None]
    chunks = torch.zeros(count, TINY.horizon, TINY.action_dim)
    chunks[..., :REAL_DIMS] = (2 * level - 1)[:, None, None]
    return Frames(
        images=images,
        tokens=torch.tensor([[2, 5, 6] + [0] * 45] * count, dtype=torch.int32),
        chunks=chunks,
        valid=torch.ones(count, TINY.horizon, dtype=torch.bool),
        starts=torch.tensor([0]),
        counts=torch.tensor([count]),
    )


def made_network(geometry: Geometry = TINY, seed: int = 0) -> Pi05:
    """Return a network in which every weight matters: none of them is zero."""
    network = Pi05(geometry)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 9
            parameter.copy_(torch.randn(parameter.shape, generator=random) * fan_in**-0.5)
    return network


def made_trainer(
    config: TrainConfig = CONFIG, network: Pi05 | None = None, **fingerprint
) -> Trainer:
    """Return a trainer of a new network, or of a given one."""
    network = network or Pi05(TINY).init_weights(config.seed)
    fingerprint = {"tasks": ["A"], **fingerprint}
    return Trainer(network, config, REAL_DIMS, torch.device("cpu"), fingerprint)


def take_steps(trainer: Trainer, frames: Frames, steps: int) -> list[float]:
    """Return the losses of some training steps."""
    return [trainer.train_step(frames).item() for _ in range(steps)]


def parameters_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a network's parameters."""
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of all weights and averages."""
    return parameters_of(trainer.network) | {
        f"ema.{n}": p.clone() for n, p in trainer.average.tensors.items()
    }


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Raise AssertionError naming what differs by as much as a bit."""
    assert one.keys() == two.keys()
    assert [n for n in one if not torch.equal(one[n], two[n])] == []


def gradients(trainer: Trainer, frames: Frames) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return loss and gradients of the first eight frames, without changing anything."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(8)
    prefix = trainer.encode(frames.inputs(index, None, generator))
    loss = trainer.loss(prefix, frames.chunks[index], frames.valid[index], generator)
    loss.backward()
    found = {n: p.grad.clone() for n, p in trainer.parameters.items() if p.grad is not None}
    trainer.network.zero_grad(set_to_none=True)
    return loss.detach(), found
