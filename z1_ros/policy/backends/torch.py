"""The backend torch: for bundles without graphs, development machines and parity checks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from z1_ros.errors import BackendUnavailable
from z1_ros.models.bundle.graphs import OUTPUTS
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.bundle.task_experts import denoise_graph

try:
    import torch

    from z1_ros.models.bundle.networks import load_bundle_network, with_expert
    from z1_ros.models.network.pi05 import Pi05, Prefix
except ImportError as error:
    raise BackendUnavailable(
        f"the torch backend needs torch, safetensors and transformers ({error}): "
        "pip install 'z1_ros[train]', or choose the onnxruntime backend"
    ) from error


class TorchBackend:
    """One function of a torch network: ``prefix`` or ``denoise``."""

    name = "torch"

    def __init__(self, function: Callable[..., dict[str, Any]], device: torch.device):
        self._function = function
        self._device = device

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate the function on named arrays and return its named outputs."""
        with torch.inference_mode():
            tensors = {name: torch.as_tensor(a, device=self._device) for name, a in inputs.items()}
            return self._function(**tensors)


def torch_backends(bundle: Bundle, threads: int) -> dict[str, TorchBackend]:
    """Return the functions of a bundle's network, on a GPU if there is one.

    The keys and values of the prefix remain tensors on the network's device and in its dtype,
    because copying them to the host at each denoise step would take longer than the step.
    """
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_bundle_network(bundle)
    # A file may be bfloat16 throughout, as openpi's converter writes it. Some parts never compute
    # in bfloat16, as in openpi.
    network.cast(network.vlm.last.k_proj.weight.dtype)
    network.to(device).eval().requires_grad_(False)
    backends = {
        "prefix": TorchBackend(partial(_prefix, network), device),
        "denoise": TorchBackend(partial(_denoise, network), device),
    }
    for name in bundle.manifest.experts:
        expert = with_expert(network, bundle, name).eval().requires_grad_(False)
        backends[denoise_graph(name)] = TorchBackend(partial(_denoise, expert), device)
    return backends


def _prefix(network: Pi05, **inputs: torch.Tensor) -> dict[str, Any]:
    return dict(zip(OUTPUTS["prefix"], network.prefix(**inputs), strict=True))


def _denoise(
    network: Pi05, x_t: torch.Tensor, time: torch.Tensor, **prefix: torch.Tensor
) -> dict[str, Any]:
    encoded = Prefix(*(prefix[name] for name in OUTPUTS["prefix"]))
    return {"v_t": network.denoise(x_t, time, encoded).cpu().numpy()}
