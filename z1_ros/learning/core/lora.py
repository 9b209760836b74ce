"""Low-rank adapters of linear layers, by peft; the network stays a plain ``Pi05``.

Source: Hu et al. 2021 (arXiv 2106.09685).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from z1_ros.errors import ConfigError
from z1_ros.models.network.pi05 import Pi05

ADAPTER = "default"
_GEMMA = r"layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
TARGETS = {
    "vlm": rf"vlm\.({_GEMMA}|last\.[kv]_proj)",
    "vision": r"vision\.encoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|mlp\.fc[12])",
    "expert": rf"expert\.{_GEMMA}",
}
"""Names of the layers that get adapters, as regular expressions."""


def add_adapters(
    network: Pi05, parts: Sequence[str], *, rank: int, alpha: float, seed: int
) -> None:
    """Give linear layers adapters, which change nothing yet, and make only these trainable.

    Args:
        network: The network.
        parts: Keys of ``TARGETS``.
        rank: Of the adapters.
        alpha: Their products are scaled by alpha / rank.
        seed: Of their initial weights.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora_rank needs peft: pip install 'z1_ros[lora]'") from error
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="|".join(TARGETS[part] for part in parts),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, network, ADAPTER)


@torch.no_grad()
def plain_weights(network: Pi05) -> dict[str, Tensor]:
    """Return the network's weights by their plain names, adapters merged into them in float32."""
    weights = {}
    for name, parameter in network.named_parameters():
        layer, wrapped, kind = name.partition(".base_layer.")
        if wrapped and kind == "weight":
            adapted: Any = network.get_submodule(layer)  # a layer of peft
            delta = adapted.get_delta_weight(ADAPTER)
            weights[f"{layer}.weight"] = parameter.float() + delta.float()
        elif ".lora_" not in name:
            weights[f"{layer}.{kind}" if wrapped else name] = parameter.detach()
    return weights
