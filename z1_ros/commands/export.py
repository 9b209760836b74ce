"""``z1-export``: a bundle's ONNX graphs."""

from z1_ros.models.bundle.export import main

__all__ = ["main"]
