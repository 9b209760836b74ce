"""Rollouts: which are made, how actions are sampled, where environments run."""
