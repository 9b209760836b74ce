"""Simulators behind one Env protocol, and evaluation in them (``z1_ros.sim``)."""
