"""Low-rank adapters for linear layers, with the library peft; the network remains a ``Pi05``.

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
"""Regular expressions for the names of the layers that get adapters, by part of the network."""


def add_adapters(
    network: Pi05, parts: Sequence[str], *, rank: int, alpha: float, seed: int
) -> None:
    """Add adapters of scale alpha / rank to parts (keys of ``TARGETS``); train only the adapters.

    New adapters do not change the network's output. Raises ConfigError if peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora_rank needs peft: pip install 'z1_ros[lora]'") from error
    layers = "|".join(TARGETS[part] for part in parts)
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, network, ADAPTER)


@torch.no_grad()
def plain_weights(network: Pi05) -> dict[str, Tensor]:
    """Return the weights by their names without adapters; adapters are merged in float32."""
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
