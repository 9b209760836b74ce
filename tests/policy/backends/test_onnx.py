"""Graphs are read from the bytes that were hashed, and must be those of the geometry."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from support.tiny_bundle import TINY, observation

from z1_ros.errors import BundleError
from z1_ros.models.bundle.export import example_inputs
from z1_ros.models.bundle.graphs import OUTPUTS
from z1_ros.models.bundle.manifest import MANIFEST, load_bundle, write_manifest
from z1_ros.policy.backends import load_policy
from z1_ros.policy.backends.onnx import OnnxBackend


@pytest.fixture
def exported(exported_tiny):
    bundle, _ = exported_tiny
    return bundle


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy to change."""
    shutil.copytree(exported.path, tmp_path / "tiny")
    return load_bundle(tmp_path / "tiny")


def with_external_weights(bundle, location="weights.bin", graph="denoise"):
    """Move a graph's weights into a file beside it; the manifest then lists the graph alone."""
    path = bundle.path / f"{graph}.onnx"
    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=500)
    if location != "weights.bin":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
    return path


def test_it_runs_named_arrays(bundle) -> None:
    backend = OnnxBackend(bundle, "prefix", threads=1)
    inputs = {name: t.numpy() for name, t in example_inputs(TINY, 2, 0).items()}
    found = backend.run(inputs)
    assert list(found) == list(OUTPUTS["prefix"]) and backend.name == "onnxruntime"
    assert found["pad"].shape == (2, TINY.prefix_tokens)


def test_weights_in_a_file_that_the_manifest_does_not_list_are_refused(bundle) -> None:
    with_external_weights(bundle)
    names = list(bundle.manifest.files)
    write_manifest(bundle.path, bundle.manifest, names)
    with pytest.raises(BundleError, match=r"denoise\.onnx reads its weights from 'weights\.bin'"):
        load_policy(bundle.path, threads=1)


def test_listed_weights_are_hashed_and_used(bundle, exported) -> None:
    with_external_weights(bundle)
    write_manifest(bundle.path, bundle.manifest)
    chunks = [load_policy(b.path, threads=1).infer(observation()) for b in (bundle, exported)]
    np.testing.assert_allclose(chunks[0].actions, chunks[1].actions, atol=1e-5)
    data = bytearray((bundle.path / "weights.bin").read_bytes())
    data[100] ^= 1
    (bundle.path / "weights.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.bin is corrupted or was changed"):
        load_policy(bundle.path, threads=1)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", ""])
def test_weights_outside_the_bundle_are_refused(bundle, location: str) -> None:
    with_external_weights(bundle, location)
    write_manifest(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match="no file that the bundle's manifest lists"):
        load_policy(bundle.path, threads=1)


def test_a_file_that_is_exchanged_between_check_and_use_is_not_used(bundle, monkeypatch) -> None:
    verified = load_bundle(bundle.path)
    shutil.copyfile(bundle.path / "prefix.onnx", bundle.path / "denoise.onnx")
    with pytest.raises(BundleError, match="was written while it was loaded"):
        OnnxBackend(verified, "denoise", threads=1)


def test_a_graph_of_another_geometry_is_refused(bundle) -> None:
    geometry = asdict(replace(TINY, action_dim=11))
    write_manifest(bundle.path, replace(bundle.manifest, geometry=geometry))
    with pytest.raises(BundleError, match=r"input x_t is float32 \(batch, 8, 9\), the geometry"):
        load_policy(bundle.path, threads=1)
    shutil.copyfile(bundle.path / "prefix.onnx", bundle.path / "denoise.onnx")
    write_manifest(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match=r"denoise\.onnx has the inputs images, "):
        load_policy(bundle.path, threads=1)


def test_a_file_that_is_no_graph_is_one_sentence(bundle) -> None:
    for data in (b"not a graph", b"", (bundle.path / "denoise.onnx").read_bytes()[:5000]):
        (bundle.path / "denoise.onnx").write_bytes(data)
        write_manifest(bundle.path, bundle.manifest)
        with pytest.raises(BundleError, match=r"denoise\.onnx") as error:
            load_policy(bundle.path, threads=1)
        assert "\n" not in str(error.value)


def test_the_same_hash_gives_the_same_actions(bundle, exported) -> None:
    """The trial that found the hole: another file of weights beside an unchanged manifest."""
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / "denoise.onnx.data").write_bytes(b"\0" * 1000)
    assert load_bundle(bundle.path).manifest.files == manifest["files"]
    one, other = (load_policy(b.path, threads=1).infer(observation()) for b in (bundle, exported))
    assert np.array_equal(one.actions, other.actions)
