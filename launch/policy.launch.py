"""The main job on a ROS 2 machine: robot (or simulator), guard and policy.

    ros2 launch z1_ros policy.launch.py robot:=kitchen model:=kitchen-sft task:=OpenDrawer

The arguments are the fields of ``PolicyGraphConfig``; the graph itself is declared in
``z1_ros/nodes/graph.py``, which the plain runner for machines without ROS 2's launch reads too.
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
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

from z1_ros.config import descriptions, flatten, unflatten
from z1_ros.errors import ConfigError, GraphError, closest
from z1_ros.nodes.configs import BACKENDS, MODES, ROBOTS
from z1_ros.nodes.graph import LOG_LEVELS, Graph, NodeSpec, PolicyGraphConfig, policy_graph

DEFAULTS = flatten(PolicyGraphConfig())
CHOICES = {
    "robot": ROBOTS,
    "mode": MODES,
    "backend": BACKENDS,
    "log_level": LOG_LEVELS,
    **{name: ("true", "false") for name, value in DEFAULTS.items() if isinstance(value, bool)},
}


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the function that turns them into nodes."""
    texts = descriptions(PolicyGraphConfig)
    arguments = [
        DeclareLaunchArgument(
            name,
            default_value=str(value).lower() if isinstance(value, bool) else str(value),
            description=texts[name],
            **({"choices": list(CHOICES[name])} if name in CHOICES else {}),
        )
        for name, value in DEFAULTS.items()
    ]
    return LaunchDescription(
        [
            SetEnvironmentVariable("RCUTILS_LOGGING_BUFFERED_STREAM", "1"),
            SetEnvironmentVariable("PYTHONUNBUFFERED", "1"),
            *arguments,
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list:
    """Return the graph's actions; launch reports a Z1Error as one line and ends with code 1."""
    refuse_unknown_arguments(sys.argv)
    given = context.launch_configurations
    values = {name: parse(name, given[name], value) for name, value in DEFAULTS.items()}
    graph = policy_graph(unflatten(PolicyGraphConfig(), values))
    return [action for node in graph.nodes for action in actions_of(node, graph)]


def refuse_unknown_arguments(argv: list[str]) -> None:
    """Raise ConfigError for a ``name:=value`` that is no argument of ours: launch ignores it.

    Only when this file is what the command line launches; an including launch file may have
    arguments of its own.
    """
    if not any(word.endswith("policy.launch.py") for word in argv):
        return
    for word in argv:
        name, assigned, _ = word.partition(":=")
        if assigned and name not in DEFAULTS:
            raise ConfigError(f"unknown launch argument {name!r}. {closest(name, DEFAULTS)}")


def parse(name: str, text: str, default: object) -> object:
    """Return a launch argument's text as the type of its default."""
    if isinstance(default, bool):
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        kind = type(default).__name__
        raise ConfigError(f"launch argument {name} must be {kind}, got {text!r}") from error


def actions_of(spec: NodeSpec, graph: Graph) -> list:
    """Return a node, required, and what brings it up if it has a life cycle."""
    # Text must be declared as such: launch reads "1e3" or "open: the drawer" as YAML otherwise.
    parameters = [
        {
            name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
            for name, value in spec.parameters.items()
        }
    ]
    if graph.params_file:
        parameters.append(graph.params_file)
    node = (LifecycleNode if spec.lifecycle else Node)(
        package="z1_ros",
        executable=spec.name,
        name=spec.name,
        namespace=graph.namespace,
        parameters=parameters,
        additional_env=dict(spec.env),
        arguments=["--ros-args", "--log-level", graph.log_level],
        output="screen",
        emulate_tty=True,
        on_exit=OpaqueFunction(function=end_all, args=[spec.name]),
    )
    if not (spec.lifecycle and graph.autostart):
        return [node]
    return [*bring_up(node), node]


def end_all(context: LaunchContext, name: str) -> list:
    """Return what ends the launch because a required node ended; nothing if it is ending.

    Raises:
        GraphError: The node failed; launch then ends with code 1.
    """
    if context.is_shutdown:
        return []
    code = context.locals.event.returncode
    if code:
        raise GraphError(f"{name} ended with exit code {code}, and it is required")
    return [Shutdown(reason=f"{name} ended, and it is required")]


def bring_up(node: LifecycleNode) -> list:
    """Return handlers that configure a node when it starts and activate it once configured.

    ``LifecycleNode(autostart=True)`` is missing in older Jazzy releases. ``start_state`` keeps
    the second handler from undoing ``ros2 lifecycle set … deactivate``, which ends in the same
    state as configuring does.
    """
    configure = ChangeState(
        lifecycle_node_matcher=matches_action(node),
        transition_id=Transition.TRANSITION_CONFIGURE,
    )
    activate = ChangeState(
        lifecycle_node_matcher=matches_action(node),
        transition_id=Transition.TRANSITION_ACTIVATE,
    )
    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[EmitEvent(event=configure)])
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[EmitEvent(event=activate)],
            )
        ),
    ]
