"""What tests of training share. Torch is imported by what needs it: configs are tested without."""

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle of a tiny policy; tests leave it as it is."""
    from support.tiny_bundle import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_network(tiny_bundle):
    """Its network, ready to act; tests leave it as it is."""
    from support.tiny_bundle import TINY

    from z1_ros.models.bundle.manifest import WEIGHTS
    from z1_ros.models.checkpoint.loading import load_network

    return load_network(tiny_bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_sampler(tiny_bundle, tiny_network):
    """Its policy in training, with noise of seed 0."""
    from z1_ros.learning.rollout.sampler import Sampler
    from z1_ros.specs import PANDA

    return Sampler(tiny_network, tiny_bundle, PANDA, 0)
