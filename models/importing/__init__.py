"""Other projects' checkpoints become bundles: ``z1-import``."""
