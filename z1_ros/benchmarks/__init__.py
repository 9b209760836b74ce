"""Benchmarks: they compare methods in one run, or a method with its lowest possible cost."""
