"""Visual words: tokenizers, their cache, and batches with words."""
