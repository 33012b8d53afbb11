"""From data as a user has it to batches: sources, decoding workers, augmentation, masks."""
