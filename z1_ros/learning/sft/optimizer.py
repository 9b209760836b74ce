"""AdamW with one learning rate for the VLM and one for the action expert, and its schedule."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from z1_ros.learning.sft.config import VLM_PARTS, TrainConfig


def make_optimizer(
    network: nn.Module, parameters: Mapping[str, Tensor], config: TrainConfig
) -> torch.optim.AdamW:
    """Return an optimiser of some of the network's parameters.

    Weight decay acts only on matrices, not on biases, norms and embeddings: with a small data set,
    it would only shrink embedding rows that no sample uses. Each group has its ``peak`` learning
    rate.
    """
    embeddings = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in parameters.items():
        decays = parameter.ndim > 1 and id(parameter) not in embeddings
        groups.setdefault((name.split(".")[0] in VLM_PARTS, decays), []).append(parameter)
    own_rate = config.vlm_learning_rate is not None
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "peak": config.vlm_learning_rate if is_vlm and own_rate else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_vlm, decays), members in groups.items()
        ],
        betas=(0.9, 0.95),
        fused=next(iter(parameters.values())).device.type == "cuda",
    )


def schedule(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak, at ``progress`` from 0 to 1."""
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    done = (progress - warmup) / (1 - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
