"""Parts that all training methods share: runs, checkpoints, averages, losses, stored features."""
