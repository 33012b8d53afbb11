"""Trained models in use: pipeline, features, timelines, the demo page."""
