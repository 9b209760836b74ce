"""The latency benchmark's floor is what the arithmetic says."""

import json

import pytest

torch = pytest.importorskip("torch")

from z1_ros.benchmarks.policy import PolicyBenchConfig, main, stages  # noqa: E402
from z1_ros.errors import ConfigError  # noqa: E402
from z1_ros.models.network.geometry import FULL  # noqa: E402


@pytest.mark.parametrize(
    ("cameras", "tflop", "floor_ms"), [(1, 2.31, 3.95), (2, 3.55, 5.51), (3, 4.80, 7.10)]
)
def test_the_floor_of_the_full_network(cameras: int, tflop: float, floor_ms: float) -> None:
    """Counted by hand for bfloat16, 10 steps, 788 TFLOP/s and 4.3 TB/s."""
    work = stages(FULL, cameras, 10, 2).values()
    assert sum(stage.flop for stage in work) / 1e12 == pytest.approx(tflop, abs=0.01)
    floor = sum(stage.floor_s(788e12, 4.3e12) for stage in work) * 1e3
    assert floor == pytest.approx(floor_ms, abs=0.02)


def test_a_run_reports_every_row_with_its_floor(tmp_path) -> None:
    config = PolicyBenchConfig(cameras=(3,), denoise_steps=2, repeats=3, json=tmp_path / "b.json")
    report = main(config)
    (row,) = report["rows"]
    assert row["name"] == "3 cameras, eager" and row["n"] == 3
    assert row["floor"] > 0 and row["median"] > 0
    assert {"device", "threads", "peak TFLOP/s", "bandwidth GB/s"} <= set(report["facts"])
    assert json.loads((tmp_path / "b.json").read_text()) == report


@pytest.mark.parametrize(
    "bad", [{"cameras": (4,)}, {"cameras": (0,)}, {"repeats": 0}, {"denoise_steps": 0}], ids=str
)
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ConfigError):
        PolicyBenchConfig(**bad)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_cuda_without_a_gpu_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        PolicyBenchConfig(device="cuda")


@pytest.mark.gpu
def test_cuda_graph_replay_is_measured() -> None:
    rows = main(PolicyBenchConfig(device="cuda", dtype="bfloat16", repeats=3))["rows"]
    assert {row["name"].partition(", ")[2] for row in rows} == {"eager", "CUDA graph"}
    assert all((row["ratio"] is None) == row["name"].endswith("eager") for row in rows)
