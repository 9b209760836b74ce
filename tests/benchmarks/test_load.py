"""What a bundle costs to load, and bundles with random weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.benchmarks.load import LoadBenchConfig, main, random_observation
from z1_ros.errors import ConfigError
from z1_ros.models.bundle.manifest import WEIGHTS, write_manifest
from z1_ros.models.bundle.random_bundle import write_random_bundle
from z1_ros.models.checkpoint.loading import load_network, write_tensors
from z1_ros.models.network.geometry import FULL, preset
from z1_ros.policy.backends import load_policy
from z1_ros.specs import PANDA

SMALL = preset("small")


def test_a_random_bundle_is_complete_seeded_and_acts_without_graphs(tmp_path):
    one = write_random_bundle(tmp_path / "one", SMALL, PANDA, "bfloat16", seed=3)
    two = write_random_bundle(tmp_path / "two", SMALL, PANDA, "bfloat16", seed=3)
    assert one.file(WEIGHTS).read_bytes() == two.file(WEIGHTS).read_bytes()
    assert "random weights" in one.file("README.md").read_text("utf-8")
    policy = load_policy(one.path)
    chunk = policy.infer(random_observation(one.manifest))
    assert chunk.dims == PANDA.action_dims
    assert chunk.actions.shape == (SMALL.horizon, PANDA.action_dim)
    assert chunk.actions.dtype == np.float32 and chunk.actions.std() > 0


def test_what_never_computes_in_bfloat16_does_not_where_a_file_is_bfloat16_throughout(tmp_path):
    chunks = []
    for name in ("throughout", "partly"):
        bundle = write_tiny_bundle(tmp_path / name)
        weights = bundle.path / WEIGHTS
        network = load_network(weights, TINY).to(torch.bfloat16)
        if name == "partly":
            network.cast(torch.bfloat16)
        write_tensors(weights, network.state_dict())
        bundle = write_manifest(bundle.path, bundle.manifest)
        policy = load_policy(bundle.path, backend="torch", threads=1)
        chunks.append(policy.infer(random_observation(bundle.manifest)).actions)
    np.testing.assert_allclose(*chunks, atol=1e-5)


def test_a_random_bundle_replaces_nothing(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="not empty"):
        write_random_bundle(tmp_path, SMALL, PANDA, "bfloat16")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def measured(config: LoadBenchConfig) -> tuple[dict, dict]:
    """Return the value of each quantity, and the facts."""
    report = main(config)
    return {row["quantity"]: row["median"] for row in report["rows"]}, report["facts"]


def test_what_is_measured_is_the_bundle_that_was_asked_for(tmp_path):
    bundle = write_random_bundle(tmp_path / "small", SMALL, PANDA, "float32")
    values, facts = measured(LoadBenchConfig(bundle=str(bundle.path)))
    assert facts["chunk shape"] == [SMALL.horizon, PANDA.action_dim]
    size_gb = (bundle.path / WEIGHTS).stat().st_size / 1e9
    assert values["weights on disk"] == pytest.approx(size_gb, rel=1e-3)
    assert 0.1 < values["peak memory"] < 4
    assert values["check and load"] > 0 and values["first chunk after that"] > 0


@pytest.mark.parametrize("bad", [{"experts": -1}, {"threads": 0}, {"embodiment": "x"}], ids=str)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        LoadBenchConfig(**bad)


@pytest.mark.slow
def test_the_published_size_runs_from_its_file_within_12_gib():
    values, facts = measured(LoadBenchConfig(threads=torch.get_num_threads()))
    assert values["weights on disk"] < 8
    assert values["peak memory"] < 12
    assert facts["chunk shape"] == [FULL.horizon, 12]


def test_a_random_bundle_may_hold_task_experts_that_act_otherwise(tmp_path):
    bundle = write_random_bundle(tmp_path / "two", TINY, PANDA, "float32", experts=("a", "b"))
    policy = load_policy(bundle.path, threads=1)
    seen = random_observation(bundle.manifest)
    chunks = [policy.infer(replace(seen, instruction=text)).actions for text in ("a", "b", "c")]
    assert not np.allclose(chunks[0], chunks[1]) and not np.allclose(chunks[0], chunks[2])
    assert "### a" in bundle.file("README.md").read_text("utf-8")
