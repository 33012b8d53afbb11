"""The training loop, with its checkpoints, sharded weights and reports."""
