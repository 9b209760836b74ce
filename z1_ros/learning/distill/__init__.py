"""Privileged distillation: a teacher that reads simulator state, and DAgger."""
