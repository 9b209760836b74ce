"""Demonstrations, supervised training and reinforcement learning."""
