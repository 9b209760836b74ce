"""The torch network as a backend."""

import sys

import numpy as np
import pytest
from support.tiny_bundle import TINY, observation

from z1_ros.errors import BackendUnavailable
from z1_ros.models.bundle.export import example_draws, example_inputs
from z1_ros.models.bundle.graphs import OUTPUTS
from z1_ros.models.bundle.random_bundle import write_random_bundle
from z1_ros.policy.backends import load_policy
from z1_ros.policy.backends.torch import torch_backends
from z1_ros.specs import PANDA


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch") / "two"
    return write_random_bundle(folder, TINY, PANDA, "float32", experts=("one", "two"))


def test_it_has_the_graphs_of_the_manifest_and_their_names(bundle) -> None:
    made = torch_backends(bundle, threads=1)
    assert (
        set(made)
        == set(bundle.manifest.graphs)
        == {*("prefix", "denoise", "denoise_one", "denoise_two")}
    )
    prefix = made["prefix"].run({n: t.numpy() for n, t in example_inputs(TINY, 2, 0).items()})
    assert list(prefix) == list(OUTPUTS["prefix"])
    draws = {name: t.numpy() for name, t in example_draws(TINY, 2, 0).items()}
    found = [made[name].run(draws | prefix)["v_t"] for name in ("denoise", "denoise_one")]
    assert all(isinstance(v, np.ndarray) and v.shape == draws["x_t"].shape for v in found)
    assert not np.allclose(*found)


def test_it_is_chosen_where_no_graph_was_exported(bundle) -> None:
    policy = load_policy(bundle.path, threads=1)
    assert policy.backends["denoise"].name == "torch"
    assert len(policy.infer_each(observation())) == 3


def test_without_torch_the_error_names_both_ways_out(bundle, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "z1_ros.policy.backends.torch")
    with pytest.raises(BackendUnavailable, match=r"no exported graphs .z1-export makes them"):
        load_policy(bundle.path)
