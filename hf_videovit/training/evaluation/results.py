"""Base of the results of all evaluations."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Result(ABC):
    """A result that can be written as a file."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values."""

    def save(self, path: str | Path, **more: Any) -> None:
        """
        Write the result file.

        Args:
            path (`str` or `Path`):
                The file, usually `results.json` beside the weights.
            more:
                Further plain values to write, such as `seed`.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**more, **self.to_dict()}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


__all__ = ["Result"]
