"""A run goes on with other numbers of processes: 1, 2, 4 and 1 see the same samples, with the same losses."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.checkpointing import TrainingCheckpoint, save_checkpoint
from hf_videovit.training.engine.resuming import resumed_batch
from tests.clips import STEPS
from tests.training.engine.test_many_processes import curve, do_runs, ledger


def saved(folder, batch_size, accumulation, world):
    """A run with a checkpoint of `world` processes."""
    config = RunConfig.from_fields(
        output_dir=str(folder), batch_size=batch_size, accumulation=accumulation, resume=True
    )
    state = {"config": config.to_dict(), "clips_per_step": batch_size * accumulation * world}
    save_checkpoint(Path(folder) / "checkpoints", TrainingCheckpoint(1, {}, state, {}, world))
    return config


@pytest.mark.parametrize(
    ("given", "world", "fitted"),
    [
        ((4, 2, 1), 1, (4, 2)),
        ((4, 2, 1), 2, (4, 1)),
        ((4, 2, 1), 4, (2, 1)),
        ((4, 2, 1), 8, (1, 1)),
        ((2, 1, 4), 1, (2, 4)),
        ((6, 1, 2), 1, (6, 2)),
        ((6, 1, 2), 3, (4, 1)),
        ((8, 1, 3), 4, (6, 1)),
    ],
)
def test_the_clips_of_a_step_stay(tmp_path, given, world, fitted):
    found = resumed_batch(saved(tmp_path, *given), world)
    assert (found.batch_size, found.accumulation) == fitted


def test_only_the_size_of_batches_changes_where_they_differ_in_kind(tmp_path):
    config = saved(tmp_path, 4, 2, 2)
    found = [resumed_batch(config, world, change_accumulation=False) for world in (1, 4)]
    assert [(one.batch_size, one.accumulation) for one in found] == [(8, 2), (2, 2)]
    with pytest.raises(ValueError, match="16 clips of a step, which 16 processes cannot share .*2 batches"):
        resumed_batch(config, 16, change_accumulation=False)


def test_what_cannot_be_shared_is_refused(tmp_path):
    config = saved(tmp_path, 4, 1, 1)
    with pytest.raises(ValueError, match="keeps the 4 clips of a step, which 3 processes cannot share equally: start"):
        resumed_batch(config, 3)
    other = RunConfig.from_fields(output_dir=str(tmp_path), batch_size=3, resume=True)
    with pytest.raises(ValueError, match="`batch_size` was 4, is 3. Restore them, or .* 2 processes take the 4 clips"):
        resumed_batch(other, 2)
    halved = RunConfig.from_fields(output_dir=str(tmp_path), batch_size=2, resume=True)
    assert resumed_batch(halved, 2).batch_size == 2


def seen(path, world):
    """Ids by step of all processes."""
    steps = {}
    for rank in range(world):
        for line in Path(f"{path}.{rank}").read_text().splitlines():
            step, _, ids = json.loads(line)
            steps.setdefault(step, []).extend(ids)
    return steps


@pytest.mark.slow
def test_one_two_four_and_one_process_train_like_one(tiny_fields, clip_folder, tmp_path):
    """With mixing, drop path, a damaged video, a moving average, and checkpoints in the middle of epochs."""
    clips = sorted((clip_folder / "train").rglob("*.mp4"))[:19]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows = [f"{clip},{clip.parent.name}" for clip in clips] + [f"{tmp_path / 'broken.mp4'},up"]
    (tmp_path / "train.csv").write_text("\n".join(["file,label", *rows]))
    more = {"batch_size": 2, "accumulation": 4, "epochs": 2, "num_workers": 0, "resume": True, "log_every": 1}
    more |= {"mixup": 0.8, "ema_decay": 0.9, "save_every": 0, "eval_every": 0, "bad_video_limit": 0.2, "holdout": 0.0}
    more |= {"label_names": sorted(STEPS), "data": str(tmp_path / "train.csv")}
    alone = tiny_fields | more | {"output_dir": str(tmp_path / "alone")}
    changing = tiny_fields | more | {"output_dir": str(tmp_path / "changing"), "save_steps": 1}
    places = ((1, 2), (2, 3), (4, 5), (1, 99))
    runs = [{"world": 1, "fields": alone, "seen": str(tmp_path / "alone ids")}]
    for world, step in places:
        runs.append(
            {"world": world, "fields": changing, "seen": str(tmp_path / f"ids {step}"), "kill": ["step", step]}
        )
    answers = do_runs(tmp_path, runs)
    assert [answer["statuses"][0] for answer in answers] == [0, -9, -9, -9, 0], answers
    expected = {step: sorted(ids) for step, ids in seen(tmp_path / "alone ids", 1).items()}
    for world, step in places:
        for number, ids in seen(tmp_path / f"ids {step}", world).items():
            assert sorted(ids) == expected[number], (world, number)
    counts = Counter(name for ids in expected.values() for name in ids)
    assert len(counts) == 19 and set(counts.values()) == {2}
    ours, theirs = curve(tmp_path / "changing"), curve(tmp_path / "alone")
    assert len(ours) == len(theirs) == len(expected) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=2e-5)
    bad = [
        sorted(json.loads(line)["id"] for text in ledger(tmp_path / name) for line in text.splitlines())
        for name in ("changing", "alone")
    ]
    assert bad[0] == bad[1] and len(bad[0]) == 2
