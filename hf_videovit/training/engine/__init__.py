"""The one training loop, with its checkpoints, its sharded weights and its reports."""
