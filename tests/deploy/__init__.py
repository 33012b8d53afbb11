"""Exports in the runtimes that are installed."""
