"""``z1-import``: convert a checkpoint of another project to a bundle."""

from z1_ros.models.importing.importer import main

__all__ = ["main"]
