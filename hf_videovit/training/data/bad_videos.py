"""Videos that cannot be read: which they are, and when there are too many of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.utils import logging


logger = logging.get_logger(__name__)

FILE_NAME = "bad_videos.rank{rank}.jsonl"
UNCOUNTED_EPOCH = 1000  # smallest assumed number of clips in an epoch of a stream of unknown length


@dataclass(frozen=True)
class BadVideo:
    """
    A video that cannot be read.

    Args:
        id (`str`):
            Sample id.
        position (`int`):
            Position of the sample in the order of the epoch; in an evaluation, in the share of the process.
        reason (`str`):
            Message of the decoder.
        kind (`str`):
            Kind of the error, see [`VideoDecodingError`].
        decoder (`str` or `None`):
            Name of the decoder.
    """

    id: str
    position: int
    reason: str
    kind: str
    decoder: str | None


class BadVideoLedger:
    """
    Records unreadable videos, one line of JSON each, and raises an error if there are too many. `step` is set by the
    training loop: the steps that were done before.

    Args:
        path (`Path`, *optional*):
            File that receives the lines. No file is written by default.
        limit (`float`, *optional*, defaults to 0.05):
            Share of the videos of an epoch that may be unreadable.
        minimum (`int`, *optional*, defaults to 20):
            Number of videos to read before that share is checked.
    """

    def __init__(self, path: Path | None = None, limit: float = 0.05, minimum: int = 20):
        self.path, self.limit, self.minimum = path, limit, minimum
        self.epoch, self.step, self.count, self.lines = 0, 0, 0, 0

    def begin(self, epoch: int) -> None:
        """
        Start the count of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
        """
        self.epoch, self.count = epoch, 0

    def add(self, video: BadVideo) -> None:
        """
        Record a video.

        Args:
            video ([`BadVideo`]):
                The video.
        """
        self.count += 1
        self.lines += 1
        logger.warning(f"Skipped unreadable video {video.id!r}: {video.reason}")
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"epoch": self.epoch, "step": self.step, **asdict(video)}, ensure_ascii=False) + "\n"
                )

    def judge(self, bad: int, read: int, epoch_size: int | None) -> None:
        """
        Check the number of unreadable videos of an epoch.

        Args:
            bad (`int`):
                Unreadable videos of the epoch, in all processes.
            read (`int`):
                Videos of the epoch read so far in all processes, including unreadable ones.
            epoch_size (`int` or `None`):
                Videos of the epoch, if known. The limit is a share of it, so that a few unreadable videos at the start
                do not stop a run.

        Raises:
            RuntimeError: there are more unreadable videos than the limit allows.
        """
        allowed = self.limit * max(read, UNCOUNTED_EPOCH if epoch_size is None else epoch_size)
        if read >= self.minimum and bad > allowed:
            raise RuntimeError(
                f"{bad} of the {read} videos read in this epoch cannot be read, more than `bad_video_limit` "
                f"({self.limit:g}) allows; they are listed in {self.path}"
            )

    def state_dict(self) -> dict[str, int]:
        """State to be saved in a checkpoint."""
        return {"epoch": self.epoch, "count": self.count, "lines": self.lines}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """
        Restore the state of a checkpoint. Lines written after it are removed from the file.

        Args:
            state (`dict[str, int]`):
                Result of [`~BadVideoLedger.state_dict`].
        """
        self.epoch, self.count, self.lines = state["epoch"], state["count"], state["lines"]
        if self.path is not None and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            self.path.write_text("".join(lines[: self.lines]), encoding="utf-8")

    def take_over(self, states: Sequence[dict[str, int]], step: int, rank: int, world: int) -> None:
        """
        Restore the state of a checkpoint that another number of processes wrote. Lines of later steps are removed from
        the files of all processes.

        Args:
            states (`Sequence[dict]`):
                Results of [`~BadVideoLedger.state_dict`] of those processes. The first process takes over their sum.
            step (`int`):
                Step of the checkpoint.
            rank (`int`):
                Number of this process.
            world (`int`):
                Number of processes.
        """
        self.epoch, self.count, self.lines = states[0]["epoch"], 0, 0
        if rank == 0:
            self.count = sum(state["count"] for state in states)
        if self.path is None:
            return
        for path in self.path.parent.glob(FILE_NAME.format(rank="*")):
            number = int(path.name.split(".")[1].removeprefix("rank"))
            if number == rank or rank == 0 and number >= world:
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [line for line in lines if json.loads(line)["step"] < step]
                path.write_text("".join(kept), encoding="utf-8")
                self.lines += len(kept)
