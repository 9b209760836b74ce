"""z1_ros: run a π0.5 policy on a Franka through ROS 2, and improve it in simulation."""

__version__ = "0.2.0"
