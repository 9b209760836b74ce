"""Control loops, chunk queue, guard rules, processes and videos; no ROS, no torch."""
