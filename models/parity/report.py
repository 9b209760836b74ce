"""``python -m z1_ros.models.parity GOLDEN CHECKPOINT``: compare with another implementation.

GOLDEN contains a batch and the results of another implementation of π0.5 with the weights of
CHECKPOINT: intermediates, outputs and gradients. Each of them is computed with this network and
compared. The exit code is 1 if a tolerance is exceeded and 2 if there is nothing to compare.

Each denoise step is compared at the ``x`` and ``t`` of the golden. A deviation in one step
therefore does not affect later steps, and the flow times are those of the other implementation
(openpi's PyTorch port sums its time steps in float32). For the same reason, the whole integration
uses the golden's times if it lists them. The times of z1_ros are compared as ``mid.step_time``.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from z1_ros.errors import CheckpointError
from z1_ros.files import write_json
from z1_ros.models.bundle.manifest import MANIFEST, load_bundle
from z1_ros.models.checkpoint.layouts import EMBEDDING, HEAD, from_openpi, is_unused
from z1_ros.models.checkpoint.loading import Checkpoint, describe, infer_geometry, load_checkpoint
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05, Prefix, noisy_actions
from z1_ros.models.parity.golden import Golden, read_golden

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCES = {
    "float32": {"out": 5e-6, "mid": 5e-6, "grad": 2e-5},
    "bfloat16": {"out": 1e-2, "mid": 2e-2, "grad": 5e-2},
}
"""Largest difference relative to the largest value of a key. Differences measured between LeRobot
0.6.1, openpi's PyTorch port (15a9616) and openpi in JAX with the same random weights: up to 3e-6 in
float32; up to 1e-5 in actions if flow times or their sines are computed in float32; up to 1.2e-2 in
bfloat16, and 3e-2 in its gradients."""
DENOISE_STEPS = 10
"""Euler steps of ``out.sample_actions`` if the golden does not list them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityConfig:
    """Compare this network with the results of another implementation with the same weights."""

    golden: tyro.conf.Positional[Path]
    """Safetensors file with ``in.*``, ``mid.*``, ``out.*`` and ``grad.*``."""
    checkpoint: tyro.conf.Positional[Path]
    """File or directory of the weights: a checkpoint of openpi or LeRobot, or a bundle."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the weights. By default the type that GOLDEN was made in."""
    inputs: Path | None = None
    """Golden file to take the inputs ``in.*`` from, for a GOLDEN that has none."""
    vision_heads: int | None = None
    """Attention heads of the vision tower, if the files do not define them."""
    json: Path | None = None
    """JSON file to write the comparison to."""


class Comparison(NamedTuple):
    """Comparison of one key of the golden."""

    key: str
    error: float
    """Largest difference relative to the golden's largest value; infinite if incomparable."""
    tolerance: float
    """Largest allowed error."""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; False for NaN."""
        return self.error <= self.tolerance


def forward_values(network: Pi05, golden: Golden) -> Iterator[tuple[str, Tensor]]:
    """Yield key and value of every intermediate, of the actions and of the unreduced loss."""
    embedded, valid = network.embed_prefix(*golden.prefix_inputs)
    yield "mid.prefix_embs", embedded
    yield "mid.prefix_pad", valid
    yield "mid.prefix_att", torch.zeros_like(valid)  # all prefix tokens attend to each other
    yield "mid.suffix_embs", network.action_in_proj(golden["in.noise"])
    yield "mid.adarms_cond", network.time(golden["in.time"])
    prefix = network.prefix(*golden.prefix_inputs)
    for layer in range(network.geometry.depth):
        yield f"mid.kv{layer}.k", prefix.k[layer]
        yield f"mid.kv{layer}.v", prefix.v[layer]
    yield from _steps(network, golden, prefix)
    yield "out.loss", _loss(network, golden, prefix)


def _steps(network: Pi05, golden: Golden, prefix: Prefix) -> Iterator[tuple[str, Tensor]]:
    noise = golden["in.noise"]
    times = golden.tensors.get("mid.step_time")
    steps = DENOISE_STEPS if times is None else len(times)
    own = torch.stack([torch.full_like(noise[:, 0, 0], 1 - i / steps) for i in range(steps)])
    times = own if times is None else times.float()
    if "mid.step_x" in golden.tensors:
        pairs = zip(times, golden["mid.step_x"], strict=True)
        yield "mid.step_v", torch.stack([network.denoise(x, t, prefix) for t, x in pairs])
    xs = [noise]
    for t in times:
        xs.append(xs[-1] - network.denoise(xs[-1], t, prefix) / steps)
    yield "mid.step_time", own
    yield "mid.step_x", torch.stack(xs[:-1])
    same_times = torch.equal(times, own)
    yield "out.sample_actions", network.sample(prefix, noise, steps) if same_times else xs[-1]


def _loss(network: Pi05, golden: Golden, prefix: Prefix) -> Tensor:
    time = golden["in.time"]
    x_t, target = noisy_actions(golden["in.actions"], golden["in.noise"], time)
    return (network.denoise(x_t, time, prefix) - target).square()


def gradients(network: Pi05, golden: Golden, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients of the mean loss, with the keys of the golden.

    As in training, ``network`` has float32 weights, and a bfloat16 ``dtype`` means autocast.
    """
    depth = network.geometry.depth
    weights = {key: _weight_of(key, golden, depth) for key in _gradient_keys(golden)}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in weights.values())
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = _loss(network, golden, network.prefix(*golden.prefix_inputs))
    if loss.requires_grad:
        loss.mean().backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for key, weight in weights.items():
        if weight in found:
            yield key, found[weight]
        elif weight is not None and is_unused(weight, depth):
            yield key, torch.zeros(())  # weights that cannot change the output are not built


def _gradient_keys(golden: Golden) -> list[str]:
    found = [key for key in golden.tensors if key.startswith("grad.")]
    return found + [f"grad.{name}" for name in golden.without_gradient]


def _weight_of(key: str, golden: Golden, depth: int) -> str | None:
    """Return the name in z1_ros of the weight of a ``grad.`` key, None if there is none."""
    name = from_openpi(key.removeprefix("grad.").removeprefix("model."), depth)
    # The head has a gradient only if it is the embedding.
    return EMBEDDING if name == HEAD and key in golden.tensors else name


def results(
    checkpoint: Checkpoint,
    geometry: Geometry,
    golden: Golden,
    dtype: torch.dtype,
    rope_dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return the values of this network for every key of the golden data that it can compute.

    For gradients, ``dtype`` is that of the computation, with float32 weights. ``rope_dtype`` is the
    precision of the rotary frequencies, see ``Pi05.rope_dtype``.
    """
    network = load_checkpoint(checkpoint, geometry, dtype).eval()
    network.rope_dtype = rope_dtype
    with torch.no_grad():
        values = dict(forward_values(network, golden))
    if _gradient_keys(golden):
        if dtype != torch.float32:
            network = load_checkpoint(checkpoint, geometry, torch.float32)
            network.rope_dtype = rope_dtype
        values |= dict(gradients(network, golden, dtype))
    return values


def compare(
    values: dict[str, Tensor], golden: Golden, tolerances: dict[str, float]
) -> list[Comparison]:
    """Compare values with those of the golden; return one row for each key in both.

    A gradient without a weight in the network gives a failed row.
    """
    valid = values["mid.prefix_pad"][:, None, :, None]
    gradients = [golden[key] for key in golden.tensors if key.startswith("grad.")]
    largest = max((gradient.abs().max().item() for gradient in gradients), default=0.0)
    rows = []
    for key in sorted({*values, *_gradient_keys(golden)}):
        tolerance = tolerances[key.partition(".")[0]]
        if key not in values:
            rows.append(Comparison(key, math.inf, tolerance, "the network has no such weight"))
        elif key in golden.tensors:
            rows.append(_compare(key, values[key], golden[key], tolerance, valid, largest))
        elif key.startswith("grad."):
            error = math.inf if values[key].any() else 0.0
            rows.append(Comparison(key, error, 0.0, "none in the golden"))
    return rows


def _compare(
    key: str, value: Tensor, reference: Tensor, tolerance: float, valid: Tensor, largest: float
) -> Comparison:
    """Return the row of ``key``; ``largest`` is the largest value of all gradients."""
    if value.ndim == 0:
        value = value.expand_as(reference)
    if value.shape != reference.shape:
        note = f"shape {tuple(value.shape)} here, {tuple(reference.shape)} in the golden"
        return Comparison(key, math.inf, tolerance, note)
    if value.dtype == torch.bool:
        return Comparison(key, float((value != reference.bool()).any()), 0.0)
    value, reference = value.double(), reference.double()
    if key.startswith("mid.kv"):
        # No token attends to padding, so implementations may differ there.
        value, reference = value.where(valid, 0.0), reference.where(valid, 0.0)
    difference = (value - reference).abs().max().item()
    if key.endswith("k_proj.bias") and largest:
        # A term shared by all keys does not change a softmax. The exact gradient is zero; both
        # implementations give rounding errors of larger gradients.
        return Comparison(key, difference / largest, tolerance, "zero; relative to the largest")
    scale = reference.abs().max().item()
    if scale == 0:
        return Comparison(key, math.inf if difference else 0.0, tolerance, "zero in the golden")
    return Comparison(key, difference / scale, tolerance)


def run(config: ParityConfig) -> dict[str, Any]:
    """Compare and return the report; raises CheckpointError for unreadable or unrelated files."""
    golden = read_golden(config.golden, config.inputs)
    checkpoint = describe(config.checkpoint)
    precision = config.dtype or golden.precision
    if precision not in DTYPES:
        raise CheckpointError(f"{golden.path} was made in {precision!r}; choose one with --dtype")
    heads = {} if config.vision_heads is None else {"vision_heads": config.vision_heads}
    geometry = infer_geometry(checkpoint, **{**_bundle_sizes(checkpoint), **golden.sizes, **heads})
    if golden["in.tokens"].max() >= geometry.vocab:
        raise CheckpointError(f"{golden.path} has tokens beyond the vocabulary {geometry.vocab}")
    tolerances, dtype = TOLERANCES[precision], DTYPES[precision]
    # openpi's PyTorch port and LeRobot cast the rotary frequencies with the weights, others do not.
    tried = {}
    for rope in dict.fromkeys(("float32", precision)):
        values = results(checkpoint, geometry, golden, dtype, DTYPES[rope])
        tried[rope] = compare(values, golden, tolerances)
    rope = min(tried, key=lambda name: _worst(tried[name]))
    if not tried[rope]:
        raise CheckpointError(f"{golden.path} holds nothing to compare with: no mid, out or grad")
    rows, left = tried[rope], golden.tensors.keys() - values.keys() - set(_gradient_keys(golden))
    return {
        "golden": str(golden.path),
        "checkpoint": str(checkpoint.path),
        "layout": checkpoint.layout.name,
        "stored": checkpoint.dtypes,
        "geometry": asdict(geometry),
        "dtype": precision,
        "made_in": golden.precision,
        "rope": rope,
        "rope_worst": {name: _worst(rows) for name, rows in tried.items()},
        "rows": [{**row._asdict(), "ok": row.ok} for row in rows],
        "not_compared": sorted(key for key in left if not key.startswith("in.")),
        "failed": sum(not row.ok for row in rows),
    }


def _bundle_sizes(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Return the sizes in the manifest of a bundle; empty if the checkpoint is not a bundle."""
    folder = checkpoint.directory
    if folder is None or not (folder / MANIFEST).is_file():
        return {}
    return load_bundle(folder).manifest.geometry


def _worst(rows: list[Comparison]) -> float:
    """Return the largest ratio of error to tolerance."""
    ratios = [row.error / row.tolerance for row in rows if row.tolerance]
    return max((r if math.isfinite(r) else math.inf for r in ratios), default=0.0)


def print_report(report: dict[str, Any]) -> None:
    """Print a table of every key and a summary line."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # each key on one line of the log
    table = Table(title=f"{report['checkpoint']} ({report['layout']}) in {report['dtype']}")
    table.add_column("key", overflow="fold")
    for title in ("error", "tolerance", "ok"):
        table.add_column(title, justify="right")
    for row in report["rows"]:
        cells = (f"{row['error']:.1e}", f"{row['tolerance']:.0e}", "yes" if row["ok"] else "NO")
        key = f"{row['key']} ({row['note']})" if row["note"] else row["key"]
        table.add_row(key, *cells, style=None if row["ok"] else "red")
    console.print(table)
    for line in _remarks(report):
        console.print(line, highlight=False)


def _remarks(report: dict[str, Any]) -> Iterator[str]:
    if report["not_compared"]:
        yield f"Unknown to this network, not compared: {', '.join(report['not_compared'])}."
    if len(report["rope_worst"]) > 1:
        worst = {name: f"{value:.1f}" for name, value in report["rope_worst"].items()}
        yield (
            f"Rotary frequencies in {report['rope']}, which agrees best: the worst key is at "
            f"{worst['float32']} of its tolerance with float32 ones, at {worst['bfloat16']} with "
            "ones rounded to bfloat16, as openpi's PyTorch port and LeRobot have them."
        )
    if report["failed"] and report["dtype"] != report["made_in"]:
        yield f"The golden was made in {report['made_in']}, this is {report['dtype']}."
    if report["failed"] and report["dtype"] == "float32" and "BF16" in report["stored"]:
        yield "The checkpoint's weights are rounded to bfloat16; the golden's may not have been."
    failed, count = report["failed"], len(report["rows"])
    verdict = f"{failed} of {count} keys are above" if failed else f"all {count} keys are within"
    yield f"{verdict} tolerance"


def main(config: ParityConfig) -> int:
    """Compare and print the report; return exit code 1 if a key exceeds its tolerance."""
    report = run(config)
    print_report(report)
    if config.json is not None:
        write_json(config.json, _finite(report))
    return 1 if report["failed"] else 0


def _finite(data: Any) -> Any:
    """Replace numbers that JSON does not support (NaN, infinity) by None."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
