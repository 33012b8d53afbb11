"""The data of a run; see [`data.opening`]."""

from .data.opening import list_splits, load_evaluation_source, load_sources, match_labels, open_source


__all__ = ["list_splits", "load_evaluation_source", "load_sources", "match_labels", "open_source"]
