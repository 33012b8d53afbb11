import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit.modeling.video_decoding_parts import VideoPart
from hf_videovit.training.arguments import DataArguments
from hf_videovit.training.data.opening import list_splits, load_sources, match_labels, open_source
from hf_videovit.training.data.shards import VideoShards
from hf_videovit.training.data.sources import VideoList
from tests.clips import STEPS


NAMES = sorted(STEPS)


def clips_of(clip_folder, split="train"):
    return [(path, path.parent.name) for path in sorted((clip_folder / split).rglob("*.mp4"))]


def write_tars(folder, clips, shards, label="json"):
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"clips-{shard:03d}.tar", "w") as archive:
            for index, (path, name) in enumerate(clips[shard::shards]):
                members = {"mp4": path.read_bytes()}
                members |= {"json": json.dumps({"label": name}).encode()} if label == "json" else {}
                members |= {"cls": str(NAMES.index(name)).encode()} if label == "cls" else {}
                for extension, content in members.items():
                    info = tarfile.TarInfo(f"{shard:03d}_{index:03d}.{extension}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def write_parquet(folder, clips, shards):
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        rows = [
            {"video": {"path": path.name, "bytes": path.read_bytes()}, "label": name}
            for path, name in clips[shard::shards]
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"clips-{shard:03d}.parquet")


def labels_of(source):
    return sorted(source.label_names[sample.label] for sample in source)


def test_class_folders_with_splits(clip_folder):
    source = open_source(clip_folder, "train")
    assert source.label_names == NAMES
    assert source.num_samples == len(list(source)) == 20
    assert source[0].id == "down/clip 0.mp4"
    assert labels_of(source) == sorted(name for _, name in clips_of(clip_folder))
    assert list_splits(clip_folder) == ["train", "val"]


def test_class_folders_without_splits_hold_clips_out_by_name(clip_folder):
    arguments = DataArguments(data=str(clip_folder / "train"), holdout=0.2)
    train, held_out = load_sources(arguments, seed=0)
    again = load_sources(arguments, seed=7)[1]
    assert (train.num_samples, held_out.num_samples) == (16, 4)
    assert labels_of(held_out) == NAMES
    assert [sample.id for sample in held_out] == [sample.id for sample in again]
    assert not {sample.id for sample in train} & {sample.id for sample in held_out}


def test_class_folders_named_by_number_sort_by_number(tmp_path):
    for name in ("10", "9", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    assert open_source(tmp_path).label_names == ["2", "9", "10"]


def test_splits_of_other_names_are_named_by_the_run(clip_folder, tmp_path):
    parts = ("learn", "judge", "rest")
    rows = [f"{path},{name},{parts[index % 3]}" for index, (path, name) in enumerate(clips_of(clip_folder))]
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(["video,label,split", *rows]))
    train, held_out = load_sources(DataArguments(data=str(path), train_split="learn", eval_split="judge"), seed=0)
    files = [str(clip) for clip, _ in clips_of(clip_folder)]
    assert [sample.video for sample in train] == files[0::3]
    assert [sample.video for sample in held_out] == files[1::3]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_lists_with_named_columns_and_paths_with_spaces(clip_folder, tmp_path, suffix):
    rows = [
        {"clip name": f"{name}/{path.name}", "what": name, "split": "train" if index % 2 else "val"}
        for index, (path, name) in enumerate(clips_of(clip_folder))
    ]
    path = tmp_path / f"clips{suffix}"
    if suffix == ".csv":
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        path.write_text(json.dumps(rows))
    columns = {"video_column": "clip name", "label_column": "what", "root": str(clip_folder / "train")}
    source = open_source(path, "val", **columns)
    assert source.num_samples == 10
    assert source.label_names == NAMES
    assert all(" " in sample.video and sample.video.startswith(str(clip_folder)) for sample in source)
    with pytest.raises(ValueError, match="`video_column` 'clap' is not among the columns clip name, what, split"):
        open_source(path, "val", **(columns | {"video_column": "clap"}))
    with pytest.raises(ValueError, match="`split` 'test' is not in .* has train, val"):
        open_source(path, "test", **columns)


def test_whole_number_labels_index_the_names_that_are_given(tmp_path):
    (tmp_path / "clips.csv").write_text("file,label\na.mp4,1\nb.mp4,0\na.mp4,1\n")
    source = open_source(tmp_path / "clips.csv", label_names=["jump", "fall"])
    assert [sample.label for sample in source] == [1, 0, 1]
    assert [sample.id for sample in source] == ["a.mp4", "b.mp4", "a.mp4#2"]
    with pytest.raises(ValueError, match="Label 1 is out of range for 1 `label_names`"):
        open_source(tmp_path / "clips.csv", label_names=["jump"])


@pytest.mark.parametrize("kind", ["tar", "tar with class numbers", "parquet"])
@pytest.mark.parametrize(("shards", "world"), [(3, 1), (3, 2), (4, 2)])
def test_shards_are_shared_out_once_and_repeatably(clip_folder, tmp_path, kind, shards, world):
    clips = clips_of(clip_folder)
    if kind == "parquet":
        write_parquet(tmp_path / "train", clips, shards)
    else:
        write_tars(tmp_path / "train", clips, shards, "cls" if "numbers" in kind else "json")
    source = open_source(tmp_path, "train", shuffle_buffer=4, label_names=NAMES if "numbers" in kind else None)
    assert source.label_names == NAMES
    assert source.num_samples == 20
    plain = [sample.id for sample in source]
    assert len(set(plain)) == 20
    assert labels_of(source) == sorted(name for _, name in clips)
    for seed in (None, 0):
        shares = [[sample.id for sample in source.share(rank, world, seed, epoch=1)] for rank in range(world)]
        assert sorted(name for share in shares for name in share) == sorted(plain)
        assert [len(share) for share in shares] == [source.share_size(rank, world) for rank in range(world)]
        again = [sample.id for sample in source.share(world - 1, world, seed, epoch=1, start=2)]
        assert again == shares[-1][2:]
    orders = {tuple(sample.id for sample in source.share(0, world, 0, epoch)) for epoch in range(3)}
    assert len(orders) == 3


class Shards:
    """What [`VideoShards`] asks of `datasets`, without files."""

    features = None

    def __init__(self, sizes):
        self.sizes, self.num_shards = sizes, len(sizes)

    def shard(self, num_shards, index):
        return [{"video": f"{index}/{row}.mp4", "label": "a"} for row in range(self.sizes[index])]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    world=st.integers(1, 5),
    seed=st.sampled_from([None, 0, 7]),
    epoch=st.integers(0, 2),
    buffer=st.integers(1, 9),
)
def test_shares_of_uneven_shards_are_complete_disjoint_and_repeatable(sizes, world, seed, epoch, buffer):
    source = VideoShards(Shards(sizes), "video", "label", ["a"], shard_sizes=sizes, shuffle_buffer=buffer)
    shares = [[sample.video for sample in source.share(rank, world, seed, epoch)] for rank in range(world)]
    everything = [f"{shard}/{row}.mp4" for shard, size in enumerate(sizes) for row in range(size)]
    assert sorted(name for share in shares for name in share) == sorted(everything)
    assert [len(share) for share in shares] == [source.share_size(rank, world) for rank in range(world)]
    for rank, share in enumerate(shares):
        start = len(share) // 2
        assert [sample.video for sample in source.share(rank, world, seed, epoch, start)] == share[start:]
    if seed is None:
        placed = {
            source.place(at, rank, world): name for rank, share in enumerate(shares) for at, name in enumerate(share)
        }
        assert [placed[place] for place in range(len(everything))] == everything


def test_tars_of_several_formats_without_labels_and_with_gaps(clip_folder, tmp_path):
    clip = clips_of(clip_folder)[0][0].read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        alike = [f"{number}.{kind}" for number in range(5) for kind in ("mp4", "json")]
        for name in (*alike, "5.webm", "5.json", "6.json", "7.avi"):
            content = clip if not name.endswith("json") else b'{"about": "no label"}'
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    source = open_source(tmp_path / "a.tar")
    assert (source.label_names, source.num_samples) == ([], 8)
    samples = list(source)
    assert [sample.label for sample in samples] == [None] * 8
    assert [len(sample.video["bytes"]) for sample in samples] == [len(clip)] * 6 + [0, len(clip)]
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for name in ("0.mp4", "1.webm"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match="the first five samples of .*b.tar"):
        open_source(tmp_path / "b.tar")
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1000])
    with pytest.raises(ValueError, match="contains the damaged shard .*a.tar"):
        open_source(tmp_path / "a.tar")


def test_a_label_map_beside_the_data_fixes_the_order(clip_folder, tmp_path):
    write_tars(tmp_path, clips_of(clip_folder), 2)
    (tmp_path / "labels.json").write_text(json.dumps(NAMES[::-1]))
    assert open_source(tmp_path).label_names == open_source(tmp_path / "*.tar").label_names == NAMES[::-1]
    assert labels_of(open_source(tmp_path)) == sorted(name for _, name in clips_of(clip_folder))
    assert open_source(tmp_path, label_names=NAMES).label_names == NAMES


def test_shard_samples_carry_the_encoded_video(clip_folder, tmp_path):
    clips = clips_of(clip_folder)[:4]
    write_tars(tmp_path / "tar", clips, 1)
    write_parquet(tmp_path / "parquet", clips, 1)
    for pattern in ("tar/*.tar", "parquet/clips-000.parquet"):
        videos = [sample.video["bytes"] for sample in open_source(str(tmp_path / pattern))]
        assert videos == [path.read_bytes() for path, _ in clips]


def test_labels_are_matched_by_name_or_refused(clip_folder):
    source = open_source(clip_folder, "train")
    turned = match_labels(source, dict(enumerate(["up", "still", "right", "left", "down"])))
    assert labels_of(turned) == labels_of(source)
    assert {sample.label for sample in turned} == {0, 2, 3, 4}
    with pytest.raises(
        ValueError, match=r"2 of 4 label names .* 'left', 'right'; the model has 'up', 'down', 'LABEL_2'"
    ):
        match_labels(source, {0: "up", 1: "down", 2: "LABEL_2"})


def test_order_is_a_permutation_that_seed_and_epoch_decide():
    names = [f"{index}.mp4" for index in range(101)]
    source = VideoList(names, names, [0] * 101, ["a"])
    orders = {
        (seed, epoch): [sample.id for sample in source.share(0, 1, seed, epoch)] for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(sorted(order) == sorted(names) for order in orders.values())
    # What 2 processes see together in a step is what one sees in it with twice the batch.
    halves = [[sample.id for sample in source.share(rank, 2, 1, 0)] for rank in (0, 1)]
    assert [name for pair in zip(*halves) for name in pair] == orders[1, 0][:100]
    assert halves[0][50] == orders[1, 0][100]


@pytest.mark.parametrize(
    ("data", "split", "message"),
    [
        ("nothing here", None, "is not a folder, list"),
        ("{clips}", None, "`split` must be one of train, val"),
        ("{clips}", "test", "`split` must be one of train, val"),
        ("{empty}", None, "has no class folders with videos"),
        ("{clips}/train/up/clip 0.mp4", None, "must be a list"),
    ],
)
def test_data_that_is_not_there_is_an_error(clip_folder, tmp_path, data, split, message):
    with pytest.raises(ValueError, match=message):
        open_source(data.format(clips=clip_folder, empty=tmp_path), split)


def test_a_fingerprint_tells_other_samples_labels_and_orders():
    ids, labels, names = ["a", "b", "c"], [0, 1, None], ["x", "y"]
    paths = [f"/here/{name}.mp4" for name in ids]
    known = VideoList(ids, paths, labels, names).fingerprint()
    assert known.startswith("3 samples (sha256 ")
    moved = VideoList(ids, [f"/there/{name}.mp4" for name in ids], labels, names)
    renumbered = VideoList(ids, paths, [2, 0, None], ["y", "z", "x"])
    assert moved.fingerprint() == renumbered.fingerprint() == known
    others = [
        VideoList(ids[::-1], paths[::-1], labels[::-1], names),
        VideoList(ids, paths, [1, 1, None], names),
        VideoList(ids, paths, labels, ["x", "z"]),
        VideoList(ids[:2], paths[:2], labels[:2], names),
        VideoList(["a", "b", "d"], paths, labels, names),
        VideoList(ids, paths, labels, names, parts=[VideoPart(1.0, 2.0), None, None]),
    ]
    assert len({known, *(source.fingerprint() for source in others)}) == 7


def test_a_fingerprint_of_shards_tells_their_files(clip_folder, tmp_path):
    for folder, shards in (("one", 2), ("same", 2), ("other", 3)):
        write_tars(tmp_path / folder, clips_of(clip_folder)[:6], shards)
    one, same, other = (open_source(tmp_path / name).fingerprint() for name in ("one", "same", "other"))
    assert one == same != other and one.startswith("6 samples")
    (tmp_path / "same" / "clips-001.tar").rename(tmp_path / "same" / "clips-002.tar")
    assert open_source(tmp_path / "same").fingerprint() != one
