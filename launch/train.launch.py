"""Training on a ROS 2 machine: for every worker a simulator and a guard, and the learner.

    ros2 launch z1_ros train.launch.py bundle:=kitchen-sft task:=OpenDrawer out:=my-policy

The arguments are the fields of ``TrainGraphConfig``; the graphs are declared in
``z1_ros/graph/train_graph.py``, which ``z1-train --through ros`` reads too.
"""

from launch import LaunchContext, LaunchDescription

from z1_ros.graph.launching import (
    actions_of,
    describe,
    learner,
    read_arguments,
    refuse_twins,
    seen_by,
)
from z1_ros.graph.train_graph import TrainGraphConfig, train_graph


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the function that turns them into processes."""
    return describe(TrainGraphConfig(), start)


def start(context: LaunchContext) -> list:
    """Return all actions; launch reports a Z1Error as one line and ends with code 1."""
    config = read_arguments(TrainGraphConfig(), context, "train.launch.py")
    made = train_graph(config)
    refuse_twins(*made.workers)
    nodes = [a for graph in made.workers for node in graph.nodes for a in actions_of(node, graph)]
    return seen_by(config.discovery, [*nodes, learner(made)])
