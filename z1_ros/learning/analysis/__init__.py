"""Ablations and learning curves."""
