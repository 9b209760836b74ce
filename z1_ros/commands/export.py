"""``z1-export``: export the ONNX graphs of a bundle."""

from z1_ros.models.bundle.export import main

__all__ = ["main"]
