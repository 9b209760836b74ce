"""``z1-bench policy``: latency of one action chunk, compared with its lower limit (the floor).

Latency depends only on shapes and dtypes, so the benchmark uses random weights. The floor is
computed from the matrix products, the bytes that must be read, and the machine's peak rates, which
are measured in the same run. No implementation can be faster than the floor.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console

from z1_ros.benchmarks.report import Row, publish
from z1_ros.errors import ConfigError
from z1_ros.models.network.geometry import Geometry, preset
from z1_ros.models.network.pi05 import Pi05

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyBenchConfig:
    """Latency of one action chunk, compared with the lowest latency that the machine allows."""

    geometry: Literal["small", "full"] = "small"
    """Sizes of the network; ``full`` is the published π0.5."""
    cameras: tuple[int, ...] = (2, 3)
    """Numbers of cameras; each number is measured."""
    denoise_steps: int = 10
    """Number of Euler steps from noise to actions."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights; norms, softmax and the Euler state are always float32."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the network; on CUDA, the chunk is also measured as one CUDA graph."""
    repeats: int = 20
    """Number of chunks in each measurement."""
    json: Path | None = None
    """File to which the report is written."""

    def __post_init__(self) -> None:
        slots = preset(self.geometry).cameras
        if not all(1 <= n <= slots for n in self.cameras):
            raise ConfigError(f"cameras must be 1 to {slots}, got {list(self.cameras)}")
        if self.denoise_steps < 1 or self.repeats < 1:
            raise ConfigError("denoise_steps and repeats must be at least 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is 'cuda' but this machine has no CUDA GPU")


class Work(NamedTuple):
    """Work of one stage."""

    flop: float
    """Number of floating-point operations in matrix products, two per multiply-add."""
    bytes: float
    """Size of the weights, keys and values that must be read at least once [bytes]."""

    def floor_s(self, flops: float, bandwidth: float) -> float:
        """Return the shortest possible time [s] at the given peak rates [FLOP/s, B/s]."""
        return max(self.flop / flops, self.bytes / bandwidth)


def stages(g: Geometry, cameras: int, steps: int, itemsize: int) -> dict[str, Work]:
    """Count the work of vision, prefix and all denoise steps for one observation.

    The last prefix layer computes only keys and values. The work of adaRMS modulations is not
    included, because they are the same for all observations.
    """
    image, tokens = cameras * g.image_tokens, cameras * g.image_tokens + g.prompt_tokens
    d, f = g.vision_width, g.vision_mlp
    vision_params = g.vision_depth * (4 * d * d + 2 * d * f) + 3 * g.patch**2 * d
    vision_params += d * g.vlm_width
    attend = 4 * image * g.image_tokens * d * g.vision_depth
    vision = Work(2 * image * vision_params + attend, vision_params * itemsize)

    q, kv = g.heads * g.head_dim, g.kv_heads * g.head_dim
    full = 2 * g.vlm_width * q + 2 * g.vlm_width * kv + 3 * g.vlm_width * g.vlm_mlp
    params = (g.depth - 1) * full + 2 * g.vlm_width * kv
    attend = 4 * tokens * tokens * q * (g.depth - 1)
    prefix = Work(2 * tokens * params + attend, params * itemsize)

    layer = 2 * g.expert_width * q + 2 * g.expert_width * kv + 3 * g.expert_width * g.expert_mlp
    params = g.depth * layer + 2 * g.action_dim * g.expert_width
    attend = 4 * g.horizon * (tokens + g.horizon) * q * g.depth
    cache = g.depth * 2 * tokens * kv
    flop = steps * (2 * g.horizon * params + attend)
    denoise = Work(flop, steps * (params + cache) * itemsize)
    return {"vision": vision, "prefix": prefix, "denoise": denoise}


def measure_ceilings(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Return this machine's matrix-product rate [FLOP/s] and copy bandwidth [B/s]."""
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * n**3 / min(timings(lambda: a @ b, 10, device))
    size = 2**31 if device == "cuda" else 2**27
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * size / min(timings(lambda: target.copy_(source), 10, device))
    return flops, bandwidth


def timings(call: Call, repeats: int, device: str) -> list[float]:
    """Return the duration of each of ``repeats`` calls [s], after three warm-up calls."""
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    durations = []
    for _ in range(repeats + 3):
        finish()
        start = time.perf_counter()
        call()
        finish()
        durations.append(time.perf_counter() - start)
    return durations[3:]


def make_chunk_call(model: Pi05, cameras: int, steps: int, device: str) -> Call:
    """Return a function that computes one action chunk from fixed random inputs."""
    g = model.geometry
    images = torch.rand(1, cameras, 3, g.image_size, g.image_size, device=device) * 2 - 1
    mask = torch.ones(1, cameras, dtype=torch.bool, device=device)
    tokens = torch.randint(0, g.vocab, (1, g.prompt_tokens), device=device)
    token_mask = torch.ones_like(tokens, dtype=torch.bool)
    noise = torch.randn(1, g.horizon, g.action_dim, device=device)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return model.sample(model.prefix(images, mask, tokens, token_mask), noise, steps)

    return call


def as_cuda_graph(call: Call) -> Call:
    """Capture a call as a CUDA graph and return the function that replays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def main(config: PolicyBenchConfig) -> dict[str, Any]:
    """Measure, print a table, and return the report."""
    geometry = preset(config.geometry)
    dtype = getattr(torch, config.dtype)
    console = Console()
    console.print(f"measuring what this {config.device} can do, then {config.geometry} chunks")
    flops, bandwidth = measure_ceilings(config.device, dtype)
    if dtype != torch.float32:
        # Parts that stay float32, mainly the vision tower, then use the tensor cores.
        torch.set_float32_matmul_precision("high")
    with torch.device(config.device):
        model = Pi05(geometry).cast(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    rows = []
    for cameras in config.cameras:
        call = make_chunk_call(model, cameras, config.denoise_steps, config.device)
        work = stages(geometry, cameras, config.denoise_steps, dtype.itemsize)
        floor_s = sum(stage.floor_s(flops, bandwidth) for stage in work.values())
        eager = f"{cameras} cameras, eager"
        calls: dict[str, Call] = {eager: call}
        if config.device == "cuda":
            calls[f"{cameras} cameras, CUDA graph"] = as_cuda_graph(call)
        for name, measured in calls.items():
            times_ms = [1e3 * s for s in timings(measured, config.repeats, config.device)]
            baseline = eager if name != eager else ""
            rows.append(Row(name, "action chunk", "ms", times_ms, baseline, 1e3 * floor_s))
    facts = {
        "device": torch.cuda.get_device_name() if config.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "peak TFLOP/s": round(flops / 1e12, 3),
        "bandwidth GB/s": round(bandwidth / 1e9, 1),
        "network": f"{config.geometry}, {config.dtype}, {config.denoise_steps} denoise steps",
    }
    return publish("z1-bench policy", config, rows, facts, console)
