"""A config dataclass as the parameters of a ROS node."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from z1_ros.config import descriptions, flatten, unflatten
from z1_ros.errors import ConfigError, closest

T = TypeVar("T")


def declare(node: Node, defaults: T, check: Callable[[T], None] = lambda config: None) -> T:
    """Declare every field of ``defaults`` on ``node`` and return the config with its overrides.

    Later changes are checked against the whole dataclass. A change that the dataclass refuses is
    rejected with its error message.

    Args:
        node: Node that gets the parameters.
        defaults: Config dataclass with the default values.
        check: Function that raises ConfigError for a later change that only the node can check.

    Raises:
        ConfigError: An override is unknown, mistyped or out of range.
    """
    known = flatten(defaults)
    texts, metadata = descriptions(type(defaults)), _metadata(type(defaults))
    own = {name for name in node._parameters}  # declared by rclpy itself, e.g. use_sim_time
    for name in node._parameter_overrides:
        if name not in known and name not in own and not name.startswith("qos_overrides."):
            raise ConfigError(
                f"{node.get_name()} has no parameter {name!r}. {closest(name, known)}"
            )
    overrides = {
        name: parameter.value
        for name, parameter in node._parameter_overrides.items()
        if name in known
    }
    config = unflatten(defaults, overrides)
    for name, value in flatten(config).items():
        node.declare_parameter(
            name,
            list(value) if isinstance(value, tuple) else value,
            _descriptor(texts[name], metadata.get(name, {}), value),
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


def _metadata(cls: type, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """Return the ``field(metadata=…)`` of each parameter, including the metadata of its group."""
    found: dict[str, Mapping[str, Any]] = {}
    for field in fields(cls):
        if isinstance(field.type, type) and is_dataclass(field.type):
            nested = _metadata(field.type, f"{prefix}{field.name}.")
            found |= {name: {**field.metadata, **own} for name, own in nested.items()}
        else:
            found[prefix + field.name] = field.metadata
    return found


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
