"""The π0.5 network, its bundles and checkpoints, import and parity (``z1_ros.models``)."""
