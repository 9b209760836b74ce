"""Supervised training from demonstrations."""
