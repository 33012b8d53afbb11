"""Scores of trained models: evaluation by the checkpoint's protocol, probes, reproduction, metrics."""

from .evaluation import evaluate_model as evaluate_model
