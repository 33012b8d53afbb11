"""A step takes the same samples on any number of processes: of lists, of shards, and of both in turn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.data.joint import JointStream
from hf_videovit.training.data.shards import MOST_SEQUENCES, VideoShards
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.data.streaming import StepStream
from hf_videovit.training.words.streams import PairedStream


STEP = 8  # samples of a step in all processes


def load(record):
    name = record.sample.id
    if name.startswith("bad"):
        raise VideoDecodingError(name, "test", "broken", "undecodable")
    return {"number": torch.tensor(int("".join(filter(str.isdigit, name))))}


def listed(count, bad=()):
    return SampleList([Sample(f"{'bad' if index in bad else 'good'}_{index}", "", None) for index in range(count)])


class Shards:
    """What [`VideoShards`] asks of `datasets`, without files; counts the rows that are read."""

    features = None

    def __init__(self, sizes):
        self.sizes, self.num_shards, self.read = sizes, len(sizes), 0

    def shard(self, num_shards, index):
        for row in range(self.sizes[index]):
            self.read += 1
            yield {"video": {"path": f"{index:03d}{row:03d}.mp4", "bytes": b""}}


def sharded(sizes, known=True):
    return VideoShards(Shards(sizes), "video", None, [], shard_sizes=sizes if known else None, shuffle_buffer=16)


def streams_of(source, world, batch_size, accumulation, kind=StepStream, **options):
    options = {"on_bad_video": lambda video: None} | options
    return [
        kind(source, load, batch_size, 3, accumulation, rank=rank, world=world, **options) for rank in range(world)
    ]


def steps_of(streams, accumulation, epoch=1, start=0):
    """The ids of each batch of each step, those of all processes one after the other, and the positions after it."""
    runs = [list(stream.epoch(epoch, start)) for stream in streams]
    length = max(map(len, runs), default=0)
    for run in runs:
        run += [None] * (length - len(run))
    steps = []
    for first in range(0, length, accumulation):
        batches = [batch for run in runs for batch in run[first : first + accumulation]]
        steps.append([tuple(batch.ids) if batch else () for batch in batches])
    return steps


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 41), bad=st.sets(st.integers(0, 40), max_size=6), drop_last=st.booleans())
def test_the_batches_of_a_step_do_not_depend_on_the_processes(count, bad, drop_last):
    source = listed(count, bad)
    alone = steps_of(streams_of(source, 1, 2, 4, drop_last=drop_last), 4)
    for world, accumulation in ((2, 2), (4, 1)):
        streams = streams_of(source, world, 2, accumulation, drop_last=drop_last)
        assert steps_of(streams, accumulation) == alone
        assert {stream.num_batches() for stream in streams} == {len(alone) * accumulation}
    assert len(alone) == (count // STEP if drop_last else -(-count // STEP))
    seen = [name for step in alone for batch in step for name in batch]
    if not drop_last:
        assert sorted(seen) == sorted(sample.id for sample in source if sample.id.startswith("good"))
    # with batches of another size, the step has the same samples
    whole = steps_of(streams_of(source, 1, STEP, 1), 1)
    assert [sum(step, ()) for step in whole][: len(alone)] == [sum(step, ()) for step in alone] or drop_last


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("sizes", [[5] * 8, [7, 3, 9, 4, 1, 6, 2, 8], [4, 9, 5], [30]])
def test_shards_give_the_same_steps_to_any_number_of_processes(sizes, known):
    alone = steps_of(streams_of(sharded(sizes, known), 1, 2, 4), 4)
    seen = [name for step in alone for batch in step for name in batch]
    assert len(seen) == len(set(seen)) == sum(sizes)
    for world, accumulation in ((2, 2), (4, 1), (8, 1)):
        batch_size = STEP // world // accumulation
        found = steps_of(streams_of(sharded(sizes, known), world, batch_size, accumulation), accumulation)
        assert [sum(step, ()) for step in found] == [sum(step, ()) for step in alone]
    other = steps_of(streams_of(sharded(sizes, known), 1, 2, 4), 4, epoch=2)
    assert other != alone


@pytest.mark.parametrize("source", [lambda: listed(37, {3}), lambda: sharded([7, 3, 9, 4]), lambda: sharded([9] * 4)])
def test_a_run_goes_on_at_any_step_on_other_processes(source):
    alone = steps_of(streams_of(source(), 1, 2, 4), 4)
    for index in range(len(alone)):
        rest = steps_of(streams_of(source(), 2, 4, 1), 1, start=index * STEP)
        assert [sum(step, ()) for step in rest] == [sum(step, ()) for step in alone[index:]]
    with pytest.raises(ValueError, match="`start` must be a multiple of the 8 samples of a step, got 3"):
        next(streams_of(source(), 1, 8, 1)[0].epoch(0, 3))


@pytest.mark.parametrize(("shards", "world", "most"), [(8, 1, 1), (8, 2, 1), (8, 8, 1), (4, 8, 2), (12, 4, 1)])
def test_a_process_reads_about_its_share_of_the_shards(shards, world, most):
    for rank in range(world):
        source = sharded([10] * shards)
        list(StepStream(source, load, STEP // world, 0, rank=rank, world=world).epoch(0))
        assert source.dataset.read == 10 * shards * most // world


def test_few_shards_are_open_at_once():
    assert sharded([1] * 256).num_sequences(512) == MOST_SEQUENCES
    assert sharded([1] * 7).num_sequences(STEP) == 1
    assert sharded([1] * 12).num_sequences(STEP) == 4


def test_full_batches_repeat_what_can_be_read():
    """For losses that compare the clips of all processes, which need equally many."""
    bad = []
    (stream,) = streams_of(listed(8, {0, 5}), 1, 4, 1, full_batches=True, on_bad_video=bad.append)
    batches = list(stream.epoch(0))
    assert [len(batch) for batch in batches] == [4, 4]
    assert all(batch.rows["number"].shape == (4,) for batch in batches)
    assert len({name for batch in batches for name in batch.ids}) == 6
    assert [video.id for video in bad] and {video.id for video in bad} == {"bad_0", "bad_5"}
    assert len(stream.example()) == 4
    assert StepStream(listed(2, {0, 1}), load, 4, 0).example() is None


@pytest.mark.parametrize("kind", ["joint", "paired"])
def test_images_and_videos_together_give_the_same_steps(kind):
    bad = kind == "joint"  # a pair is missing if one of the two cannot be read
    videos, images = listed(27, {4} if bad else ()), listed(19, {2} if bad else ())

    def streams(world, size, accumulation):
        inner = accumulation if kind == "paired" else 1
        options = {"world": world, "on_bad_video": lambda video: None}
        for rank in range(world):
            pair = [
                StepStream(source, load, size, 0, inner, rank=rank, drop_last=drop, **options)
                for source, drop in ((videos, False), (images, True))
            ]
            yield JointStream(*pair, ratio=0.5) if kind == "joint" else PairedStream(*pair)

    def taken(world, size, accumulation, start=0):
        """Numbers of clips and images by step, and the positions after the steps."""
        runs = []
        for stream in streams(world, size, accumulation):
            rows = []
            for batch in stream.epoch(0, start):
                rows.append([value.tolist() for _, value in sorted(batch.rows.items())] + [stream.position])
            runs.append(rows)
        length = len(runs[0])
        assert {len(run) for run in runs} == {length}
        steps = []
        for first in range(0, length, accumulation):
            rows = [row for run in runs for row in run[first : first + accumulation]]
            numbers = sorted(number for row in rows for values in row[:-1] for number in values)
            steps.append((numbers, rows[accumulation - 1][-1] if len(rows) >= accumulation else rows[-1][-1]))
        return steps

    alone = taken(1, 4, 1)
    assert taken(2, 2, 1) == alone
    assert taken(4, 1, 1) == alone
    if kind == "paired":
        assert taken(1, 2, 2) == alone
    for index, (_, position) in enumerate(alone[:-1]):
        assert taken(2, 2, 1, position) == alone[index + 1 :]
