"""Weights on disk, in our layout and in those of other projects."""
