"""The backend onnxruntime, on the CPU."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from z1_ros.errors import BackendUnavailable, BundleError
from z1_ros.models.bundle.graphs import Found, check_ports
from z1_ros.models.bundle.manifest import Bundle
from z1_ros.models.network.geometry import Geometry
from z1_ros.policy.backends.external_data import external_files

try:
    import onnxruntime
except ImportError as error:
    raise BackendUnavailable(
        "onnxruntime is not installed: pip install onnxruntime, or choose another backend"
    ) from error


_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}


class OnnxBackend:
    """One graph in an onnxruntime session; deterministic for a given thread count."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, graph: str, threads: int):
        """Load a graph, one of ``manifest.graphs``, of a verified bundle.

        Raises:
            BundleError: onnxruntime cannot load the graph, the graph reads a file that the
                manifest does not list, or its inputs and outputs do not fit the bundle's geometry.
        """
        file = f"{graph}.onnx"
        path, data = bundle.path / file, bundle.read(file)
        try:
            others = external_files(data)
        except ValueError as error:
            raise BundleError(f"{path} is no ONNX graph: {error}") from error
        for name in others - bundle.manifest.files.keys():
            raise BundleError(
                f"{path} reads its weights from {name!r}, which is no file that the bundle's "
                "manifest lists"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # Spinning threads would occupy the control loop's cores between two inferences.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path) if others else data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no public base class
            reason = " ".join(str(error).split())
            raise BundleError(f"onnxruntime cannot load {path}: {reason}") from error
        bundle.require_unchanged(others)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        geometry = Geometry(**bundle.manifest.geometry)
        check_ports(graph, _described(inputs), _described(outputs), geometry, path)
        self._outputs = [output.name for output in outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the graph on named arrays and return its named outputs."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


def _described(ports: Iterable[Any]) -> Found:
    return {
        port.name: (
            _DTYPES.get(port.type, port.type),
            tuple(size if isinstance(size, int) else None for size in port.shape),
        )
        for port in ports
    }
