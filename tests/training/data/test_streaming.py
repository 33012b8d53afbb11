import gc
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit.ahead import read_ahead
from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.data.bad_videos import BadVideoLedger
from hf_videovit.training.data.sources import VideoList
from hf_videovit.training.data.streaming import ClipStream


ROOT = Path(__file__).parents[3]
HANGS = 1e6  # seconds that no test waits


class FakeLoader:
    """Reads a number out of the sample's name; names that start with `bad` cannot be read."""

    def __init__(self, delay=0.0):
        self.delay = delay

    def __call__(self, record):
        name = record.sample.id
        if self.delay:
            time.sleep(self.delay)
        if name.startswith("bad"):
            raise VideoDecodingError(name, "pyav", "not a video", "undecodable")
        return {"number": torch.tensor(int(name.split("_")[1])), "epoch": torch.tensor(record.epoch)}


def make_source(good, bad=0):
    names = [f"good_{index}" for index in range(good)] + [f"bad_{index}" for index in range(good, good + bad)]
    return VideoList(names, names, [0] * len(names), ["only"])


def make_stream(source, batch_size=4, **options):
    options = {"seed": 0, "load": FakeLoader(), **options}
    return ClipStream(source, batch_size=batch_size, **options)


def ids(batches):
    return [name for batch in batches for name in batch.ids]


@settings(max_examples=30, deadline=None)
@given(
    good=st.integers(1, 40),
    bad=st.integers(0, 8),
    batch_size=st.integers(1, 7),
    world=st.integers(1, 3),
    epoch=st.integers(0, 2),
)
def test_every_readable_sample_comes_once_whatever_the_shares(good, bad, batch_size, world, epoch):
    source, skipped = make_source(good, bad), []
    seen = []
    for rank in range(world):
        stream = make_stream(source, batch_size, rank=rank, world=world, on_bad_video=skipped.append)
        batches = list(stream.epoch(epoch))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(
            batch.rows["number"].tolist() == [int(name.split("_")[1]) for name in batch.ids] for batch in batches
        )
        seen += ids(batches)
    assert sorted(seen) == sorted(sample.id for sample in source if sample.id.startswith("good"))
    assert len({video.id for video in skipped}) == len(skipped) == bad


def test_batches_do_not_depend_on_the_number_of_workers():
    source = make_source(37, 3)
    expected = None
    for num_workers in (0, 1, 2):
        skipped = []
        stream = make_stream(source, num_workers=num_workers, on_bad_video=skipped.append)
        batches = [[(batch.ids, batch.positions) for batch in stream.epoch(epoch)] for epoch in (0, 1)]
        found = (batches, [video.id for video in skipped])
        expected = expected or found
        assert found == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_after_any_batch(num_workers):
    stream = make_stream(make_source(21, 4), num_workers=num_workers, on_bad_video=lambda video: None)
    whole = list(stream.epoch(3))
    for index, batch in enumerate(whole):
        rest = list(stream.epoch(3, batch.next_position))
        assert [(item.ids, item.positions) for item in rest] == [
            (item.ids, item.positions) for item in whole[index + 1 :]
        ]


def test_two_processes_see_together_what_one_sees_with_twice_the_batch():
    source = make_source(24)
    alone = [set(batch.ids) for batch in make_stream(source, 4).epoch(1)]
    halves = [list(make_stream(source, 2, rank=rank, world=2).epoch(1)) for rank in (0, 1)]
    assert [set(first.ids) | set(second.ids) for first, second in zip(*halves)] == alone


def test_drop_last_leaves_out_the_partial_batch():
    stream = make_stream(make_source(10), drop_last=True)
    assert [len(batch) for batch in stream.epoch(0)] == [4, 4]
    assert stream.num_batches() == 2


def test_without_a_listener_an_unreadable_video_stops_the_run():
    with pytest.raises(RuntimeError, match="Video 'bad_3' cannot be read: not a video"):
        list(make_stream(make_source(3, 1)).epoch(0))


def test_silent_workers_are_an_error_that_names_what_they_read():
    before = set(multiprocessing.active_children())
    stream = make_stream(make_source(2), 2, load=FakeLoader(delay=HANGS), num_workers=1, timeout=1.0, seed=None)
    with pytest.raises(TimeoutError, match="`worker_timeout`.*good_0, good_1"):
        list(stream.epoch(0))
    del stream
    gc.collect()
    for worker in set(multiprocessing.active_children()) - before:
        worker.join()
        assert worker.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_without_workers_the_start_method_stays_open():
    script = """
import multiprocessing
from tests.training.data.test_streaming import make_source, make_stream
list(make_stream(make_source(2)).epoch(0))
multiprocessing.set_start_method("spawn")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_nothing_waits_for_a_silent_worker_at_the_end():
    script = """
from tests.training.data.test_streaming import HANGS, FakeLoader, make_source, make_stream
stream = make_stream(make_source(2), 2, load=FakeLoader(delay=HANGS), num_workers=1, timeout=1.0, seed=None)
batches = stream.epoch(0)
next(batches)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "TimeoutError" in done.stderr


def test_ledger_writes_a_line_a_video_and_goes_back(tmp_path):
    ledger = BadVideoLedger(tmp_path / "logs" / "bad.jsonl")
    ledger.begin(2)
    stream = make_stream(make_source(8, 3), on_bad_video=ledger.add)
    batches = stream.epoch(2)
    next(batches)
    state = ledger.state_dict()
    list(batches)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert {line["id"] for line in lines} == {"bad_8", "bad_9", "bad_10"}
    assert {key: lines[0][key] for key in ("epoch", "reason", "decoder", "kind")} == {
        "epoch": 2,
        "reason": "not a video",
        "decoder": "pyav",
        "kind": "undecodable",
    }
    ledger.load_state_dict(state)
    assert len(ledger.path.read_text().splitlines()) == ledger.count == state["count"] < 3


def test_ledger_stops_the_run_only_when_too_many_are_certain():
    ledger = BadVideoLedger(limit=0.05, minimum=20)
    ledger.judge(bad=5, read=30, epoch_size=101)
    ledger.judge(bad=19, read=19, epoch_size=101)
    with pytest.raises(RuntimeError, match="6 of the 30 videos read in this epoch .* `bad_video_limit` \\(0.05\\)"):
        ledger.judge(bad=6, read=30, epoch_size=101)
    ledger.judge(bad=50, read=100, epoch_size=None)
    with pytest.raises(RuntimeError, match="51 of the 100"):
        ledger.judge(bad=51, read=100, epoch_size=None)


def test_reading_ahead_keeps_order_and_hands_errors_over():
    def numbers():
        yield from range(5)
        raise OSError("shard is gone")

    ahead = read_ahead(numbers(), 2)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="shard is gone"):
        next(ahead)
    assert next(read_ahead(iter(range(10**9)), 2)) == 0
