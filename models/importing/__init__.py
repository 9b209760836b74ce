"""``z1-import``: converts checkpoints of other projects to bundles."""
