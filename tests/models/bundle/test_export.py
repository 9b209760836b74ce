"""Export: graphs that give the network's numbers, or nothing is written."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from support.tiny_bundle import TINY, observation, write_tiny_bundle

from z1_ros.errors import BackendUnavailable, BundleError
from z1_ros.models.bundle import export as export_onnx
from z1_ros.models.bundle.export import example_draws, example_inputs, export, relative_difference
from z1_ros.models.bundle.manifest import GRAPHS
from z1_ros.models.bundle.networks import load_bundle_network
from z1_ros.policy.backends import load_policy


def test_graphs_join_the_manifest_and_agree_with_the_network(exported_tiny):
    bundle, differences = exported_tiny
    assert {f"{graph}.onnx" for graph in GRAPHS} <= set(bundle.manifest.files)
    assert set(differences) == set(GRAPHS)
    assert max(differences.values()) < 1e-5
    assert not list(bundle.path.parent.glob(".export-*"))


def test_policies_of_both_backends_give_the_same_actions_at_any_batch_size(exported_tiny):
    bundle, _ = exported_tiny
    onnx_policy = load_policy(bundle.path, threads=1)
    torch_policy = load_policy(bundle.path, backend="torch", threads=1)
    for policy in (onnx_policy, torch_policy):
        policy.reset(7)
    one, other = onnx_policy.infer(observation()), torch_policy.infer(observation())
    np.testing.assert_allclose(one.actions, other.actions, rtol=1e-4, atol=1e-5)
    batch = onnx_policy.infer_batch([observation()] * 3, [7, 8, 7])
    np.testing.assert_allclose(batch[0].actions, one.actions, rtol=1e-4, atol=1e-5)
    assert np.array_equal(batch[0].actions, batch[2].actions)
    assert np.abs(batch[1].actions - one.actions).max() > 1e-3


def test_onnxruntime_gives_the_same_chunks_to_the_bit(exported_tiny):
    bundle, _ = exported_tiny
    first, second = load_policy(bundle.path, threads=2), load_policy(bundle.path, threads=2)
    chunks = [p.infer(observation()).actions for p in (first, second) for _ in range(3)]
    assert all(np.array_equal(chunks[0], chunk) for chunk in chunks)


def test_graphs_need_no_float64_and_name_no_folder_of_the_machine(exported_tiny):
    bundle, _ = exported_tiny
    for graph in GRAPHS:
        model = onnx.load(bundle.path / f"{graph}.onnx")
        assert model.opset_import[0].version == 20
        types = {i.data_type for i in model.graph.initializer}
        types |= {v.type.tensor_type.elem_type for v in model.graph.value_info}
        casts = [a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute]
        assert onnx.TensorProto.DOUBLE not in types | set(casts)
        assert b"site-packages" not in (bundle.path / f"{graph}.onnx").read_bytes()


def test_a_differing_graph_is_refused_and_the_bundle_left_as_it_was(tmp_path, monkeypatch):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    before = {p.name: p.read_bytes() for p in bundle.path.iterdir()}
    monkeypatch.setattr(export_onnx, "_export_graph", lambda network, graph, path: None)
    monkeypatch.setattr(
        export_onnx, "parity", lambda networks, folder: {"prefix": 0.0, "denoise": float("nan")}
    )
    with pytest.raises(BundleError, match=r"denoise\.onnx differs from the network by nan"):
        export(bundle)
    assert {p.name: p.read_bytes() for p in bundle.path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_parity_sees_a_wrong_weight(exported_tiny):
    bundle, _ = exported_tiny
    network = load_bundle_network(bundle)
    with torch.no_grad():
        network.action_out_proj.bias[0] += 0.01
        differences = export_onnx.parity(dict.fromkeys(GRAPHS, network), bundle.path)
    assert differences["prefix"] < 1e-5
    assert differences["denoise"] > export_onnx.TOLERANCE


def test_examples_cover_missing_cameras_and_short_prompts():
    inputs = example_inputs(TINY, 3, 0)
    assert not inputs["image_mask"].all() and not inputs["token_mask"].all()
    assert inputs["token_mask"][:, 0].all()
    assert example_draws(TINY, 3, 0)["x_t"].shape == (3, TINY.horizon, TINY.action_dim)


def test_nan_counts_as_an_infinite_difference():
    assert relative_difference(np.array([np.nan]), np.array([1.0])) == float("inf")


def test_the_deployed_policy_loads_without_torch(exported_tiny):
    """Importing torch is made to fail; loading and running the policy must not notice."""
    bundle, _ = exported_tiny
    program = f"""
import sys
sys.modules["torch"] = sys.modules["safetensors"] = None
import numpy as np
from z1_ros.policy.backends import load_policy
from z1_ros.specs import PANDA
from z1_ros.types import Observation
policy = load_policy({str(bundle.path)!r}, threads=1)
seen = Observation(
    images={{c: np.zeros((32, 32, 3), np.uint8) for c in PANDA.cameras}},
    state={{f.name: np.zeros(f.size, np.float32) for f in PANDA.state}},
    instruction="open the drawer",
    stamp_ns=0,
)
print(policy.infer(seen).actions.shape)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "(8, 7)", result.stderr


def test_a_backend_without_its_library_says_so(exported_tiny, monkeypatch):
    bundle, _ = exported_tiny
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "z1_ros.policy.backends.onnx", raising=False)
    with pytest.raises(BackendUnavailable, match="onnxruntime is not installed"):
        load_policy(bundle.path)
