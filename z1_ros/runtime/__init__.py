"""Control loop, action queue, guard rules, recording and benchmarks; no ROS, no torch."""
