"""A config dataclass as the parameters of a ROS node."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from z1_ros.config import declarations, descriptions, flatten, unflatten
from z1_ros.errors import ConfigError, closest

T = TypeVar("T")


def declare(node: Node, defaults: T, check: Callable[[T], None] = lambda config: None) -> T:
    """Declare every field of ``defaults`` on ``node`` and return the config with its overrides.

    Later changes are checked against the whole dataclass. A change that the dataclass refuses is
    rejected with its error message; ``check`` raises ConfigError for one that only the node can
    check.

    Raises:
        ConfigError: An override is unknown, mistyped or out of range.
    """
    known = flatten(defaults)
    texts = descriptions(type(defaults))
    metadata = {name: found for name, _, found in declarations(type(defaults))}
    overrides = {}
    for name, parameter in node._parameter_overrides.items():
        if name in known:
            overrides[name] = parameter.value
        # rclpy itself declares some, e.g. use_sim_time
        elif name not in node._parameters and not name.startswith("qos_overrides."):
            raise ConfigError(
                f"{node.get_name()} has no parameter {name!r}. {closest(name, known)}"
            )
    config = unflatten(defaults, overrides)
    for name, value in flatten(config).items():
        node.declare_parameter(
            name,
            list(value) if isinstance(value, tuple) else value,
            _descriptor(texts[name], metadata[name], value),
            ignore_override=True,
        )
    node.add_on_set_parameters_callback(lambda changes: _check(node, config, check, changes))
    return config


def read(node: Node, config: T) -> T:
    """Return ``config`` with the node's present parameter values."""
    return unflatten(config, {name: node.get_parameter(name).value for name in flatten(config)})


def _check(
    node: Node, config: T, check: Callable[[T], None], changes: list[Parameter]
) -> SetParametersResult:
    """Accept ``changes`` if the dataclass and ``check`` accept all of them together."""
    known = flatten(config)
    try:
        values = {c.name: c.value for c in changes if c.name in known}
        check(unflatten(read(node, config), values))
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _descriptor(text: str, metadata: Mapping[str, Any], value: Any) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=text, read_only=bool(metadata.get("read_only", False))
    )
    if "range" in metadata:
        low, high = metadata["range"]
        if isinstance(value, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return descriptor
