"""The main job on a ROS 2 machine: robot (or simulator), guard and policy.

    ros2 launch z1_ros policy.launch.py robot:=kitchen model:=kitchen-z1 task:=OpenDrawer

The arguments are the fields of ``PolicyGraphConfig``; the graph itself is declared in
``z1_ros/nodes/graph.py``, which the plain runner for machines without ROS 2's launch reads too.
"""

from launch import LaunchContext, LaunchDescription

from z1_ros.config import flatten
from z1_ros.graph.launching import actions_of, describe, read_arguments
from z1_ros.graph.policy_graph import LOG_LEVELS, PolicyGraphConfig, policy_graph
from z1_ros.nodes.configs import BACKENDS, MODES, ROBOTS

CHOICES = {
    "robot": ROBOTS,
    "mode": MODES,
    "backend": BACKENDS,
    "log_level": LOG_LEVELS,
    **{
        name: ("true", "false")
        for name, value in flatten(PolicyGraphConfig()).items()
        if isinstance(value, bool)
    },
}


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the function that turns them into nodes."""
    return describe(PolicyGraphConfig(), CHOICES, start)


def start(context: LaunchContext) -> list:
    """Return the graph's actions; launch reports a Z1Error as one line and ends with code 1."""
    graph = policy_graph(read_arguments(PolicyGraphConfig(), context, "policy.launch.py"))
    return [action for node in graph.nodes for action in actions_of(node, graph)]
