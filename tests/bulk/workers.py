"""Work for the tests of the engines, importable by other processes."""

import os
import signal
from pathlib import Path

import pyarrow as pa
import torch

from hf_videovit.bulk.work import Work
from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.data.sources import VideoList


SCHEMA = pa.schema([("id", pa.string()), ("place", pa.int64()), ("total", pa.float64())])


def source_of(count, first=0):
    ids = [f"clips/{number}.mp4" for number in range(first, first + count)]
    return VideoList(ids, ids, [None] * count, [])


def number_of(name):
    return int(Path(name).stem)


def decode(sample):
    """A clip with the number of the video; every tenth cannot be read."""
    number = number_of(sample.id)
    if number % 10 == 7:
        raise VideoDecodingError(sample.id, "pyav", "no frames", "empty")
    return {"clip": torch.full((2, 3), float(number))}


def faulty(sample):
    raise RuntimeError("a fault of the program")


class Total:
    """Sums a clip. The first process that comes to a video in `fatal` is killed there."""

    def __init__(self, log=None, fatal=()):
        self.log, self.fatal = log, fatal

    def __call__(self, rows):
        for row in rows:
            if self.log is not None:
                kill_once(self.log, row["id"], self.fatal)
        return [row if row.get("error") else row | {"total": row["clip"].sum().item()} for row in rows]


def kill_once(folder, name, fatal):
    """Kill this process as the operating system would, if `name` is fatal and no process was killed for it before."""
    mark = Path(folder) / f"killed-{number_of(name)}"
    if number_of(name) in fatal and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class FatalDecoder:
    """Decodes; the first process that comes to a video in `fatal` is killed there."""

    def __init__(self, log, fatal):
        self.log, self.fatal = log, fatal

    def __call__(self, sample):
        kill_once(self.log, sample.id, self.fatal)
        return decode(sample)


def total_work(decoder=decode, make_model=Total, **options):
    return Work(decoder, SCHEMA, make_model, **{"batch_size": 4, "rows_per_file": 32, **options})
