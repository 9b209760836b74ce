"""Z-1's GRPO: advantages, update, training loop."""
