"""Which backend runs a bundle, and that a bundle is loaded as it was checked."""

import json

import pytest
from support.tiny_bundle import write_tiny_bundle

from z1_ros.errors import BundleError, ConfigError
from z1_ros.models.bundle.manifest import MANIFEST
from z1_ros.policy import backends
from z1_ros.policy.backends import load_policy


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


def test_an_unknown_backend_is_named(bundle) -> None:
    with pytest.raises(ConfigError, match=r"no backend 'tensorflow'\. Known: auto, onnxruntime"):
        load_policy(bundle.path, backend="tensorflow")


def test_a_backend_that_was_asked_for_is_not_replaced_by_another(bundle) -> None:
    with pytest.raises(BundleError, match=r"has no 'prefix\.onnx'"):
        load_policy(bundle.path, backend="onnxruntime")
    assert load_policy(bundle.path, backend="torch").backends["prefix"].name == "torch"


def test_a_bundle_that_is_written_while_it_is_loaded_is_refused(bundle, monkeypatch) -> None:
    make = backends._backends

    def make_while_somebody_writes(*args):
        made = make(*args)
        data = json.loads((bundle.path / MANIFEST).read_text())
        (bundle.path / MANIFEST).write_text(json.dumps(data | {"denoise_steps": 9}))
        return made

    monkeypatch.setattr(backends, "_backends", make_while_somebody_writes)
    with pytest.raises(BundleError, match=r"was written while it was loaded .manifest\.json"):
        load_policy(bundle.path, threads=1)
