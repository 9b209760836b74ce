"""Observation -> model inputs -> action chunk, and the backends that run the model."""
