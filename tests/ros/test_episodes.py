"""Episodes through the graph and in-process are called alike and end alike."""

import pytest

from z1_ros.errors import BundleError, GraphicsUnavailable
from z1_ros.graph.episodes import RosEpisodes
from z1_ros.sim.episodes import InprocEpisodes

SETTINGS = {"simulator": "kitchen", "backend": "onnxruntime", "threads": 1, "delay_ms": 60.0}


def test_an_episode_has_the_same_end_on_both_ways():
    ends = []
    for kind in (InprocEpisodes, RosEpisodes):
        episodes = kind("kitchen-sft", **SETTINGS)
        try:
            ends.append([episodes.run("TurnOnMicrowave", seed) for seed in (10_003, 10_004)])
        except GraphicsUnavailable as error:
            pytest.skip(str(error))
        finally:
            episodes.close()
    assert ends[0] == ends[1]


def test_a_bundle_that_is_not_there_is_named_before_anything_starts():
    with pytest.raises(BundleError, match="no model bundle at no/such"):
        RosEpisodes("no/such", **SETTINGS)
