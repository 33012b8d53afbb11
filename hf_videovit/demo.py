"""The import path that published Spaces use; the demo page itself is in `inference/demo.py`."""

from .inference.demo import build_demo, serve_demo


__all__ = ["build_demo", "serve_demo"]
