"""The node graphs: declared once, started by ROS 2's launch or by the plain runner."""
