"""The import path that published model cards use; pose estimation itself is in `dense/pose.py`."""

from .dense.pose import estimate_poses, flip_test


__all__ = ["estimate_poses", "flip_test"]
