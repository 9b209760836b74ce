"""The torch network itself, for development machines and parity checks."""

from collections.abc import Callable, Mapping

import numpy as np

from z1_ros.errors import BackendUnavailable
from z1_ros.models.manifest import WEIGHTS, Bundle

try:
    import torch
except ImportError as error:
    raise BackendUnavailable(
        "torch is not installed: pip install torch, or choose the onnxruntime backend"
    ) from error

from z1_ros.models.checkpoint import load_weights
from z1_ros.models.geometry import Geometry
from z1_ros.models.pi05 import Pi05, Prefix


class TorchBackend:
    """One of the two functions of a network."""

    name = "torch"

    def __init__(self, function: Callable[..., dict[str, torch.Tensor]], device: torch.device):
        self._function = function
        self._device = device

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the function on named arrays and return its named outputs."""
        with torch.inference_mode():
            tensors = {name: torch.as_tensor(a, device=self._device) for name, a in inputs.items()}
            outputs = self._function(**tensors)
        return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}


def torch_backends(bundle: Bundle, threads: int) -> dict[str, TorchBackend]:
    """Return both functions of a bundle's network, on a GPU if there is one."""
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = Pi05(Geometry(**bundle.manifest.geometry))
    load_weights(bundle.file(WEIGHTS), network)
    network.to(device).eval()

    def prefix(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return network.prefix(**inputs)._asdict()

    def denoise(
        x_t: torch.Tensor, time: torch.Tensor, **prefix: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        return {"v_t": network.denoise(x_t, time, Prefix(**prefix))}

    return {"prefix": TorchBackend(prefix, device), "denoise": TorchBackend(denoise, device)}
