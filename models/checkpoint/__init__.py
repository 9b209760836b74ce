"""Weights on disk, in the layouts of z1_ros and of other projects."""
