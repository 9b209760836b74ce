"""Rollouts: plans of groups, sampling of actions, and environment workers."""
