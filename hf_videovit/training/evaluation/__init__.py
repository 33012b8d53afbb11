"""Scores of trained models: evaluation by the checkpoint's protocol, probes, reproduction, metrics."""
