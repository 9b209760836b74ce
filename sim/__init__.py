"""Simulators with the ``Env`` protocol, and evaluation in simulation (``z1_ros.sim``)."""
