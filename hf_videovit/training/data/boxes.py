"""Tables of boxes with labels, as files of action detection hold them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BoxTable:
    """
    Actions at boxes, one row for each box and label.

    Args:
        keys (`np.ndarray` of shape `(num_rows,)`):
            Key-frame of each row: anything that numpy can sort, comparable between two tables.
        boxes (`np.ndarray` of shape `(num_rows, 4)`):
            Corners x1, y1, x2, y2; usually shares of width and height.
        labels (`np.ndarray` of shape `(num_rows,)`):
            Label of each row.
        scores (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Confidence of each row; none for the truth.

    Raises:
        ValueError: the columns differ in length.
    """

    keys: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.keys)
        columns = (self.labels,) if self.scores is None else (self.labels, self.scores)
        if self.boxes.shape != (count, 4) or any(column.shape != (count,) for column in columns):
            raise ValueError(
                f"`boxes` must be ({count}, 4) and the other columns ({count},), got {self.boxes.shape} and "
                f"{[column.shape for column in columns]}"
            )

    def select(self, rows: np.ndarray) -> "BoxTable":
        """
        Some of the rows.

        Args:
            rows (`np.ndarray`):
                Indices, or a mask.

        Returns:
            [`BoxTable`]
        """
        scores = None if self.scores is None else self.scores[rows]
        return BoxTable(self.keys[rows], self.boxes[rows], self.labels[rows], scores)
