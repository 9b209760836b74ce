"""What runs a bundle's graphs: one loader, chosen by name or by what is installed."""

from pathlib import Path

from z1_ros.errors import BackendUnavailable, ConfigError, closest
from z1_ros.models.manifest import GRAPHS, load_bundle
from z1_ros.policy.vla import VlaPolicy

BACKENDS = ("onnxruntime", "torch")


def load_policy(bundle_path: str | Path, *, backend: str = "auto", threads: int = 2) -> VlaPolicy:
    """Load a bundle as a policy.

    Args:
        bundle_path: Directory, or the name of a bundle shipped with the package.
        backend: ``onnxruntime``, ``torch`` (the network itself), or ``auto``: onnxruntime if the
            bundle holds exported graphs, else torch.
        threads: CPU threads that an inference may use.

    Raises:
        BundleError: The bundle is missing, incomplete or corrupted.
        BackendUnavailable: The library is not installed.
        ConfigError: There is no such backend.
    """
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"no backend {backend!r}. {closest(backend, ('auto', *BACKENDS))}")
    bundle = load_bundle(bundle_path)
    exported = all(f"{name}.onnx" in bundle.manifest.files for name in GRAPHS)
    if backend == "auto":
        backend = "onnxruntime" if exported else "torch"
    if backend == "onnxruntime":
        from z1_ros.policy.backends.onnx import OnnxBackend

        made = {name: OnnxBackend(bundle.file(f"{name}.onnx"), threads) for name in GRAPHS}
        return VlaPolicy(bundle, made)
    try:
        # The deployed runtime has no torch: only this choice may import it.
        from z1_ros.policy.backends.torch import torch_backends
    except BackendUnavailable as error:
        if exported:
            raise
        raise BackendUnavailable(
            f"bundle {bundle.path} has no exported graphs (z1-export makes them), and {error}"
        ) from error
    return VlaPolicy(bundle, torch_backends(bundle, threads))
