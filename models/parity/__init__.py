"""Numerical comparison with other implementations of π0.5."""
