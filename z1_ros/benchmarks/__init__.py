"""Benchmarks: ratios measured in one run, and the lowest cost that is possible."""
