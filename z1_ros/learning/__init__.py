"""Training: supervised training, rollouts, Z-1's GRPO, privileged distillation, analysis."""
