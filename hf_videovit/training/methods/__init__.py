"""Training methods, each from a run's description to a folder that is ready to use."""
