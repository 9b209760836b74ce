"""Real nodes in processes of their own; skipped where there is no rclpy."""

import os

import pytest

pytest.importorskip("rclpy")
# Without this, rclpy does not check the types of message fields.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
