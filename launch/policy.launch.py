"""The main job on a ROS 2 machine: robot (or simulator), guard and policy.

    ros2 launch z1_ros policy.launch.py robot:=kitchen model:=kitchen-z1 task:=OpenDrawer

The arguments are the fields of ``PolicyGraphConfig``; the graph itself is declared in
``z1_ros/graph/policy_graph.py``, which ``z1-run``, for machines without ROS 2's launch, reads too.
"""

from launch import LaunchContext, LaunchDescription

from z1_ros.graph.launching import actions_of, describe, read_arguments, refuse_twins, seen_by
from z1_ros.graph.policy_graph import ROBOTS, PolicyGraphConfig, policy_graph


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the function that turns them into nodes."""
    return describe(PolicyGraphConfig(), start, robot=ROBOTS)


def start(context: LaunchContext) -> list:
    """Return the graph's actions; launch reports a Z1Error as one line and ends with code 1."""
    graph = policy_graph(read_arguments(PolicyGraphConfig(), context, "policy.launch.py"))
    refuse_twins(graph)
    nodes = [action for node in graph.nodes for action in actions_of(node, graph)]
    return seen_by(graph.discovery, nodes)
