"""Inference: the classification pipeline, features, scores over time, and the demo page."""
