"""The protocols, and that what implements them has their methods."""

import inspect

import pytest

from z1_ros.policy.base import Policy
from z1_ros.policy.replaceable import ReplaceablePolicy
from z1_ros.policy.vla import VlaPolicy


@pytest.mark.parametrize("cls", [VlaPolicy, ReplaceablePolicy])
@pytest.mark.parametrize("method", ["reset", "infer", "infer_batch"])
def test_policies_take_and_give_what_the_protocol_says(cls: type, method: str) -> None:
    wanted = inspect.signature(getattr(Policy, method))
    assert inspect.signature(getattr(cls, method)) == wanted
