"""Models, configurations and processors: what travels to a model repository."""
