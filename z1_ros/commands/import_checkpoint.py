"""``z1-import``: another project's checkpoint as a bundle."""

from z1_ros.models.importing.importer import main

__all__ = ["main"]
