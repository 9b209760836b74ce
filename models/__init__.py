"""The π0.5 network, its bundles, tokenizer, export and engines (``z1_ros.models``)."""
