"""Functions shared by the launch files: arguments from a dataclass, processes from a ``Graph``.

This module imports ROS 2's ``launch``, which the PyPI wheels of rclpy do not include.
"""

import os
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    PopEnvironment,
    PushEnvironment,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from z1_ros.config import choices, descriptions, flatten, unflatten
from z1_ros.errors import ConfigError, GraphError, closest
from z1_ros.graph import dds
from z1_ros.graph.domains import environment_domain_id
from z1_ros.graph.spec import Graph, NodeSpec
from z1_ros.graph.train_graph import TrainGraph
from z1_ros.nodes.process import LAUNCHER
from z1_ros.runtime.claim import is_claimed, node_claim

T = TypeVar("T")

RESPAWN_S = 1.0
LEARNER_END_S = "30"
"""Time from SIGINT to SIGTERM [s]; a learner handles Ctrl-C only between two steps."""


def describe(
    config: object,
    start: Callable[[LaunchContext], list],
    **names: Collection[str],
) -> LaunchDescription:
    """Return a launch description: one argument per config field, and a call of ``start``.

    ``names`` gives the allowed values of fields that are not a ``Literal``.
    """
    texts, known = descriptions(type(config)), choices(type(config)) | names
    # As elsewhere in ROS 2: True and true, INFO and info.
    bools = ("true", "false", "True", "False")
    known |= {n: bools for n, v in flatten(config).items() if isinstance(v, bool)}
    known["log_level"] = [*known["log_level"], *map(str.upper, known["log_level"])]
    arguments = [
        DeclareLaunchArgument(
            name,
            default_value=str(value).lower() if isinstance(value, bool) else str(value),
            description=texts[name],
            **({"choices": list(known[name])} if name in known else {}),
        )
        for name, value in flatten(config).items()
    ]
    return LaunchDescription(
        [
            SetEnvironmentVariable("RCUTILS_LOGGING_BUFFERED_STREAM", "1"),
            SetEnvironmentVariable("PYTHONUNBUFFERED", "1"),
            *arguments,
            OpaqueFunction(function=start),
        ]
    )


def read_arguments(config: T, context: LaunchContext, file: str) -> T:
    """Return ``config`` with the values of the launch arguments; raises ConfigError."""
    defaults = flatten(config)
    refuse_unknown_arguments(sys.argv, file, defaults)
    given = context.launch_configurations
    return unflatten(config, {name: parse(name, given[name], v) for name, v in defaults.items()})


def refuse_unknown_arguments(argv: list[str], file: str, known: Collection[str]) -> None:
    """Raise ConfigError for a ``name:=value`` that is not in ``known``; ROS 2 launch ignores it.

    The check applies only if the command line launches ``file`` itself, because an including
    launch file may have its own arguments.
    """
    if not any(word.endswith(file) for word in argv):
        return
    for word in argv:
        name, assigned, _ = word.partition(":=")
        if assigned and name not in known:
            raise ConfigError(f"unknown launch argument {name!r}. {closest(name, known)}")


def parse(name: str, text: str, default: Any) -> Any:
    """Return a launch argument's text as the type of its default."""
    if isinstance(default, bool):
        return text.lower() == "true"
    if name == "log_level":
        return text.lower()
    try:
        return type(default)(text)
    except ValueError as error:
        kind = type(default).__name__
        raise ConfigError(f"launch argument {name} must be {kind}, got {text!r}") from error


def actions_of(spec: NodeSpec, graph: Graph) -> list:
    """Return the launch actions of a node, including those that activate a lifecycle node."""
    # Declare strings explicitly; otherwise launch parses "1e3" or "open: the drawer" as YAML.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in spec.parameters.items()
    }
    if graph.respawn:
        at_end = {"respawn": True, "respawn_delay": RESPAWN_S}
    else:
        at_end = {"on_exit": OpaqueFunction(function=end_all, args=[spec.name])}
    node = (LifecycleNode if spec.lifecycle else Node)(
        package="z1_ros",
        executable=spec.name,
        name=spec.name,
        namespace=graph.namespace,
        parameters=[parameters, *([graph.params_file] if graph.params_file else [])],
        remappings=list(spec.remap.items()),
        additional_env={
            LAUNCHER: str(os.getpid()),
            **dds.dds_env(graph.discovery, graph.fastdds_profile, spec.image_bytes),
        },
        arguments=["--ros-args", "--log-level", graph.log_level],
        output="screen",
        emulate_tty=True,
        **at_end,
    )
    if not (spec.lifecycle and graph.autostart):
        return [node]
    return [*bring_up(node), node]


def refuse_twins(*graphs: Graph) -> None:
    """Raise GraphError if a node of that name already runs: a launch would disturb the first."""
    domain_id = environment_domain_id()
    for graph in graphs:
        for node in graph.nodes:
            name = "/".join(("", *filter(None, (graph.namespace, node.name))))
            if is_claimed(node_claim(domain_id, name)):
                raise GraphError(
                    f"{name} already runs in ROS domain {domain_id}; stop that launch first, or "
                    "choose another namespace:= or ROS_DOMAIN_ID"
                )


def seen_by(discovery: dds.Discovery, actions: list) -> list:
    """Return the actions with the discovery settings, and log which machines can find the nodes.

    The settings also apply to the internal node of ROS 2 launch, which activates lifecycle nodes.
    They do not apply to processes that an including launch file starts afterwards.
    """
    variables = [SetEnvironmentVariable(*pair) for pair in dds.dds_env(discovery).items()]
    said = LogInfo(msg=f"z1_ros: {dds.describe(discovery)}")
    return [PushEnvironment(), *variables, said, *actions, PopEnvironment()]


def learner(made: TrainGraph) -> ExecuteProcess:
    """Return the learner process; when it ends, the whole launch ends."""
    return ExecuteProcess(
        cmd=list(made.learner),
        additional_env=dict(made.env),
        name="z1-train",
        output="screen",
        emulate_tty=True,
        sigterm_timeout=LEARNER_END_S,
        on_exit=OpaqueFunction(function=end_all, args=["z1-train"]),
    )


def end_all(context: LaunchContext, name: str) -> list:
    """Return the actions that end the launch after a required process ended.

    Raises:
        GraphError: The process failed; the launch then ends with exit code 1.
    """
    if context.is_shutdown:
        return []
    code = context.locals.event.returncode
    if code:
        raise GraphError(f"{name} ended with exit code {code}, and it is required")
    return [Shutdown(reason=f"{name} ended, and it is required")]


def bring_up(node: LifecycleNode) -> list:
    """Return handlers that configure a node when it starts and then activate it.

    ``LifecycleNode(autostart=True)`` is missing in older Jazzy releases. ``start_state`` prevents
    the second handler from undoing ``ros2 lifecycle set … deactivate``, which ends in the same
    state as configuring.
    """
    change = partial(ChangeState, lifecycle_node_matcher=matches_action(node))
    configure = EmitEvent(event=change(transition_id=Transition.TRANSITION_CONFIGURE))
    activate = EmitEvent(event=change(transition_id=Transition.TRANSITION_ACTIVATE))
    started = OnProcessStart(target_action=node, on_start=[configure])
    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[activate],
    )
    return [RegisterEventHandler(started), RegisterEventHandler(configured)]
