"""``z1-export``: a bundle's network as prefix.onnx and denoise.onnx, checked before it is kept.

The prefix runs once per observation and the denoise step several times, so they are two graphs.
Each task expert has one more denoise graph. The Euler loop is outside of the graphs, in float32.
The graphs accept any batch size. They use opset 20 and float32, which both onnxruntime and TensorRT
support (opset 23 fuses norms into operators that neither supports everywhere).
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from z1_ros.errors import BackendUnavailable, BundleError
from z1_ros.files import require_writable, staging, write_json
from z1_ros.models.bundle.graphs import GRAPHS, INPUTS, OUTPUTS, kind_of
from z1_ros.models.bundle.manifest import MANIFEST, Bundle, load_bundle, write_manifest
from z1_ros.models.bundle.networks import load_bundle_network, with_expert
from z1_ros.models.bundle.task_experts import denoise_graph
from z1_ros.models.bundle.tokenizer import BOS_ID
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05, Prefix

OPSET = 20
TOLERANCE = 1e-4
"""Largest difference between torch and onnxruntime, relative to the largest value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Export a bundle's network to ONNX and add the graphs to the bundle."""

    bundle: tyro.conf.Positional[str]
    """Directory of the bundle, or the name of a bundle shipped with the package."""
    json: Path | None = None
    """JSON file to write the measured differences to."""


class PrefixGraph(nn.Module):
    """``Pi05.prefix`` with tensors as inputs and outputs."""

    def __init__(self, network: Pi05):
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Return keys, values and valid-token mask of the prefix."""
        return tuple(self.network.prefix(images, image_mask, tokens, token_mask))


class DenoiseGraph(nn.Module):
    """``Pi05.denoise`` with tensors as inputs and outputs."""

    def __init__(self, network: Pi05):
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, time: Tensor, k: Tensor, v: Tensor, pad: Tensor) -> Tensor:
        """Return the flow velocity."""
        return self.network.denoise(x_t, time, Prefix(k, v, pad))


def main(config: ExportConfig) -> None:
    """Export the graphs and print the measured differences."""
    bundle = load_bundle(config.bundle)
    differences = export(bundle)
    for graph, worst in differences.items():
        size = (bundle.path / f"{graph}.onnx").stat().st_size / 1e6
        Console().print(f"{graph}.onnx  {size:.1f} MB  largest difference to torch {worst:.1e}")
    if config.json:
        write_json(config.json, differences)


def export(bundle: Bundle, graphs: Sequence[str] = ()) -> dict[str, float]:
    """Export graphs into a verified bundle and update its manifest.

    A process that loads the bundle meanwhile finds the old bundle, or one without the graphs that
    are being replaced. ``graphs`` are names from ``manifest.graphs``; empty means all.

    Returns:
        Largest relative difference between torch and onnxruntime per graph.

    Raises:
        BundleError: The outputs of a graph differ from the network; the bundle is not changed.
        BackendUnavailable: onnx, onnxscript or onnxruntime is not installed.
        ConfigError: The bundle's directory is not writable.
    """
    for place in (bundle.path, bundle.path / MANIFEST):
        require_writable(place)
    # The graphs are float32 for every storage type of the weights.
    network = load_bundle_network(bundle, dtype=torch.float32)
    networks = dict.fromkeys(GRAPHS, network)
    for name in bundle.manifest.experts:
        networks[denoise_graph(name)] = with_expert(network, bundle, name)
    networks = {name: networks[name].eval().requires_grad_(False) for name in graphs or networks}
    with staging(bundle.path) as folder:
        folder.mkdir()
        for graph, made in networks.items():
            _export_graph(made, graph, folder / f"{graph}.onnx")
        differences = parity(networks, folder)
        for graph, difference in differences.items():
            if not difference < TOLERANCE:
                raise BundleError(
                    f"{graph}.onnx differs from the network by {difference:.1e} (relative), more "
                    f"than {TOLERANCE:.0e}; nothing was written"
                )
        _move_graphs(networks, folder, bundle)
    return differences


def _move_graphs(graphs: Iterable[str], folder: Path, bundle: Bundle) -> None:
    """Move the graphs in ``folder`` into the bundle, which stays valid at every moment."""
    replaced = {f"{graph}.onnx" for graph in graphs}
    listed = bundle.manifest.files
    kept = [name for name in listed if name.removesuffix(".data") not in replaced]
    if len(kept) < len(listed):
        write_manifest(bundle.path, bundle.manifest, kept)
        for name in listed.keys() - set(kept):
            (bundle.path / name).unlink()
    new = sorted(file.name for file in folder.iterdir())
    for name in new:
        (folder / name).replace(bundle.path / name)
    write_manifest(bundle.path, bundle.manifest, [*kept, *new])


def _export_graph(network: Pi05, graph: str, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "export needs onnx and onnxscript: pip install onnxscript"
        ) from error
    inputs = example_inputs(network.geometry, batch=2, seed=0)
    module: nn.Module = PrefixGraph(network)
    if graph != "prefix":
        prefix = dict(zip(OUTPUTS["prefix"], network.prefix(**inputs), strict=True))
        module, inputs = DenoiseGraph(network), example_draws(network.geometry, 2, 0) | prefix
    ports, batch = INPUTS[kind_of(graph)], torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            kwargs=inputs,
            input_names=list(ports),
            output_names=list(OUTPUTS[kind_of(graph)]),
            dynamic_shapes={name: {port.batch_axis: batch} for name, port in ports.items()},
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # with dynamo, export always returns a program
    _strip_metadata(program.model)
    # A protobuf cannot contain more than 2 GB of weights.
    external = sum(p.numel() for p in network.parameters()) * 4 > 1.5e9
    program.save(path, external_data=external)


def _strip_metadata(model: Any) -> None:
    """Remove the exporter's metadata: its stack traces contain paths of this machine."""
    for part in (model, model.graph, *model.graph, *model.graph.initializers.values()):
        part.metadata_props.clear()
        part.doc_string = None
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        value.metadata_props.clear()


def parity(networks: Mapping[str, Pi05], folder: Path) -> dict[str, float]:
    """Return the largest relative difference of each graph in ``folder`` from its network."""
    worst = dict.fromkeys(networks, 0.0)
    for graph, network in networks.items():
        run = _session(folder / f"{graph}.onnx")
        for batch, seed in ((1, 1), (3, 2)):
            worst[graph] = max(worst[graph], _difference(graph, network, run, batch, seed))
    return worst


_Graph = Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]


@torch.no_grad()
def _difference(graph: str, network: Pi05, run: _Graph, batch: int, seed: int) -> float:
    inputs = example_inputs(network.geometry, batch, seed)
    prefix = network.prefix(**inputs)
    outputs = dict(zip(OUTPUTS["prefix"], prefix, strict=True))
    if graph != "prefix":
        draws = example_draws(network.geometry, batch, seed)
        velocity = network.denoise(draws["x_t"], draws["time"], prefix)
        return relative_difference(run(draws | outputs)["v_t"], velocity.numpy())
    found = run(inputs)
    if not np.array_equal(found["pad"], prefix.valid.numpy()):
        return float("inf")
    valid = prefix.valid[None, :, None, :, None].numpy()
    return max(
        relative_difference(found[name] * valid, outputs[name].numpy() * valid)
        for name in ("k", "v")
    )


def _session(path: Path) -> _Graph:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailable("the check needs onnxruntime: pip install onnxruntime") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return dict(zip(names, session.run(None, arrays), strict=True))

    return run


def relative_difference(value: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference divided by the largest reference value; infinite for NaN."""
    difference = np.abs(value - reference).max() / max(np.abs(reference).max(), 1e-6)
    return float(difference) if np.isfinite(difference) else float("inf")


def example_inputs(geometry: Geometry, batch: int, seed: int) -> dict[str, Tensor]:
    """Return prefix inputs: smooth images, one missing camera, prompts of several lengths."""
    random = torch.Generator().manual_seed(seed)
    size = geometry.image_size
    coarse = torch.rand((batch * geometry.cameras, 3, 8, 8), generator=random) * 2 - 1
    images = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    images += 0.05 * torch.randn(images.shape, generator=random)
    image_mask = torch.ones((batch, geometry.cameras), dtype=torch.bool)
    image_mask[-1, -1] = False
    shape = (batch, geometry.prompt_tokens)
    tokens = torch.randint(3, geometry.vocab, shape, generator=random)
    tokens[:, 0] = BOS_ID
    lengths = torch.randint(2, geometry.prompt_tokens + 1, (batch, 1), generator=random)
    token_mask = torch.arange(geometry.prompt_tokens)[None] < lengths
    return {
        "images": images.clamp(-1, 1).unflatten(0, (batch, geometry.cameras)),
        "image_mask": image_mask,
        "tokens": tokens * token_mask,
        "token_mask": token_mask,
    }


def example_draws(geometry: Geometry, batch: int, seed: int) -> dict[str, Tensor]:
    """Return noisy actions and flow times."""
    random = torch.Generator().manual_seed(seed)
    shape = (batch, geometry.horizon, geometry.action_dim)
    return {
        "x_t": torch.randn(shape, generator=random),
        "time": torch.rand(batch, generator=random) * 0.999 + 0.001,
    }
