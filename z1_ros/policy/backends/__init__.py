"""Backends that run a bundle's graphs, and the function that loads a policy with one of them."""

from collections.abc import Mapping
from pathlib import Path

from z1_ros.errors import BackendUnavailable, ConfigError, closest
from z1_ros.models.bundle.manifest import Bundle, load_bundle
from z1_ros.policy.base import Backend
from z1_ros.policy.vla import VlaPolicy

BACKENDS = ("onnxruntime", "torch")


def load_policy(bundle_path: str | Path, *, backend: str = "auto", threads: int = 2) -> VlaPolicy:
    """Load a bundle, a directory or the name of a bundle shipped with the package, as a policy.

    ``backend`` is ``onnxruntime``, ``torch`` (the network itself), or ``auto``: onnxruntime if the
    bundle contains exported graphs, otherwise torch. ``threads`` are CPU threads per inference.

    Raises:
        BundleError: The bundle is missing, incomplete or corrupted, or changed while it was read.
        BackendUnavailable: The library is not installed.
        ConfigError: The backend is unknown.
    """
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"no backend {backend!r}. {closest(backend, ('auto', *BACKENDS))}")
    bundle = load_bundle(bundle_path)
    policy = VlaPolicy(bundle, _backends(bundle, backend, threads))
    bundle.require_unchanged()
    return policy


def _backends(bundle: Bundle, backend: str, threads: int) -> Mapping[str, Backend]:
    graphs = bundle.manifest.graphs
    exported = all(f"{name}.onnx" in bundle.manifest.files for name in graphs)
    if backend == "auto":
        backend = "onnxruntime" if exported else "torch"
    if backend == "onnxruntime":
        from z1_ros.policy.backends.onnx import OnnxBackend

        return {name: OnnxBackend(bundle, name, threads) for name in graphs}
    try:
        # The deployed runtime has no torch, so only this backend may import it.
        from z1_ros.policy.backends.torch import torch_backends
    except BackendUnavailable as error:
        if exported:
            raise
        raise BackendUnavailable(
            f"bundle {bundle.path} has no exported graphs (z1-export makes them), and {error}"
        ) from error
    return torch_backends(bundle, threads)
