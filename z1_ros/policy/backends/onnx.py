"""onnxruntime on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from z1_ros.errors import BackendUnavailable, BundleError

try:
    import onnxruntime
except ImportError as error:
    raise BackendUnavailable(
        "onnxruntime is not installed: pip install onnxruntime, or choose another backend"
    ) from error


class OnnxBackend:
    """One graph in an onnxruntime session; deterministic for a given thread count."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int):
        """Load a graph.

        Args:
            path: ``prefix.onnx`` or ``denoise.onnx``.
            threads: Intra-op threads.

        Raises:
            BundleError: onnxruntime cannot load the file.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # Spinning threads would take the cores from the control loop between two inferences.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        self.inputs = {
            i.name: (i.type, *(n if isinstance(n, int) else None for n in i.shape))
            for i in self._session.get_inputs()
        }
        """Type and shape of each input; None is any size."""
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the graph on named arrays and return its named outputs."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))
