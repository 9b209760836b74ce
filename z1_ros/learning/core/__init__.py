"""What all training shares: runs, checkpoints, averages, losses, stored features."""
