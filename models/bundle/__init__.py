"""Model bundles: manifest, card, weights, tokenizer, graphs."""
