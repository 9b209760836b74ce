"""Node graphs: declared once, started by ROS 2 launch or by ``GraphRunner``."""
