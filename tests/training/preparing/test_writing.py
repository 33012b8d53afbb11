"""Data sets in the layouts they are published with become data that trains."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hf_videovit.folders import held_folder
from hf_videovit.modeling.video_decoding import decode_video, probe_video
from hf_videovit.published import published_labels
from hf_videovit.training.arguments import DataArguments, RunConfig
from hf_videovit.training.data.opening import list_splits, load_sources, open_source
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing import writing as preparing
from hf_videovit.training.preparing.annotations import read_annotations
from hf_videovit.training.preparing.encoding import EncodingSettings, encode_clip
from hf_videovit.training.preparing.writing import prepare, unique_keys
from tests.clips import moving_square_clip, write_clip


SMALL = EncodingSettings(short_side=24)
CLASSES = ("ApplyEyeMakeup", "Archery", "BabyCrawling")


def clip(path, seed=0, **size):
    frames = moving_square_clip(("right", "left", "up", "down")[seed % 4], **({"num_frames": 10} | size), seed=seed)
    return write_clip(path, frames)


def labelled(source):
    return {sample.id: source.label_names[sample.label] for sample in source}


# ---------------------------------------------------------------------- official layouts


@pytest.fixture
def ucf101(tmp_path):
    """Three classes, in an order of their own, with two groups of clips each."""
    lists = tmp_path / "raw" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    order = ["Archery", "ApplyEyeMakeup", "BabyCrawling"]
    lists.joinpath("classInd.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(order, 1)))
    names = {group: [f"{name}/v_{name}_g0{group}_c01.avi" for name in CLASSES] for group in (1, 2)}
    lists.joinpath("trainlist01.txt").write_text(
        "\n".join(f"{name} {order.index(name.split('/')[0]) + 1}" for name in names[1])
    )
    lists.joinpath("testlist01.txt").write_text("\n".join(names[2]) + "\n")
    for index, name in enumerate(names[1] + names[2]):
        clip(tmp_path / "raw" / "UCF-101" / name, index)
    return tmp_path / "raw"


def test_ucf101(ucf101, tmp_path):
    result = prepare(ucf101, tmp_path / "out", encoding=SMALL)
    assert result.label_names == ["Archery", "ApplyEyeMakeup", "BabyCrawling"]
    assert result.videos == {"train": 3, "test": 3}
    train, test = load_sources(DataArguments(data=str(tmp_path / "out")), seed=0)
    assert train.label_names == test.label_names == result.label_names
    assert labelled(train) == {f"train-00000.tar/v_{name}_g01_c01": name for name in CLASSES}
    assert labelled(test) == {f"test-00000.tar/v_{name}_g02_c01": name for name in CLASSES}
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["layout"] == "ucf101"


def test_hmdb51(tmp_path):
    raw = tmp_path / "raw"
    (raw / "splits").mkdir(parents=True)
    for label in ("brush_hair", "cartwheel"):
        lines = []
        for index, use in enumerate((1, 2, 0)):
            clip(raw / "videos" / label / f"clip {index}.avi", index)  # the same name in both classes
            lines.append(f"clip {index}.avi {use} ")
        (raw / "splits" / f"{label}_test_split1.txt").write_text("\n".join(lines))
        (raw / "splits" / f"{label}_test_split2.txt").write_text(lines[0].replace("1 ", "2 "))
    result = prepare(raw / "splits", tmp_path / "out", videos=raw / "videos", format="folder", encoding=SMALL)
    assert result.videos == {"train": 2, "test": 2}
    assert labelled(open_source(tmp_path / "out", "train")) == {
        "brush_hair/clip_0.mp4": "brush_hair",
        "cartwheel/clip_0~2.mp4": "cartwheel",
    }
    second = read_annotations(raw, split_number=2)
    assert [(one.split, one.label) for one in second.clips] == [("test", "brush_hair"), ("test", "cartwheel")]
    with pytest.raises(ValueError, match="`split_number` must be 1, 2 or 3"):
        read_annotations(raw, split_number=4)


def test_kinetics(tmp_path):
    raw = tmp_path / "raw"
    header = "label,youtube_id,time_start,time_end,split"
    (raw / "train").mkdir(parents=True)
    (raw / "train.csv").write_text(f"{header}\nplaying harp,-abc_1,0,10,train\njuggling balls,xyz,5,6,train\n")
    (raw / "validate.csv").write_text(
        f"{header}\njuggling balls,-abc_1,20,30,validate\nplaying harp,gone,1,2,validate\n"
    )
    (raw / "test.csv").write_text("youtube_id,time_start,time_end,split\nunl,0,10,test\n")
    clip(raw / "train" / "playing harp" / "-abc_1_000000_000010.mp4", 1)
    clip(raw / "val" / "juggling_balls" / "-abc_1_000020_000030.mp4", 2)
    clip(raw / "test" / "unl_000000_000010.mp4", 3)
    frames = np.concatenate([moving_square_clip(name, num_frames=100) for name in ("right", "left")])
    write_clip(raw / "train" / "xyz.mp4", frames)  # the whole video of 8 seconds, to be cut
    result = prepare(raw, tmp_path / "out", encoding=SMALL)
    assert result.videos == {"train": 2, "val": 1, "test": 1}
    assert [(row["split"], row["id"], row["kind"]) for row in result.failures] == [
        ("val", "gone_000001_000002", "missing")
    ]
    assert result.failures[0]["error"] == "no file is named playing harp/gone_000001_000002"
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())}
    cut = rows["xyz_000005_000006"]
    assert (cut["num_frames"], cut["start"], cut["end"], cut["source"]) == (25, 5.0, 6.0, "train/xyz.mp4")
    unlabelled = open_source(tmp_path / "out", "test")
    assert [sample.label for sample in unlabelled] == [None]
    assert list_splits(tmp_path / "out") == ["train", "val", "test"]


def test_kinetics_keeps_the_official_order_of_labels(tmp_path):
    names = published_labels("k400")
    rows = [f'"{name}",id{index},0,10,train' for index, name in enumerate(reversed(names))]
    (tmp_path / "k.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    assert read_annotations(tmp_path / "k.csv").label_names == names


@pytest.mark.parametrize("prefix", ["something-something-v2-", ""])
def test_ssv2(tmp_path, prefix):
    raw = tmp_path / "raw"
    (raw / "labels").mkdir(parents=True)
    numbers = {"Tearing something into two pieces": "1", "Closing something": "0", "Inventing something": "2"}
    rows = {
        "train": [
            {
                "id": "74225",
                "label": "tearing a leaf into two pieces",
                "template": "Tearing [something] into two pieces",
            },
            {"id": "7", "label": "inventing a word", "template": "Inventing [something]"},
        ],
        "validation": [{"id": "8", "label": "closing a book", "template": "Closing [something]"}],
        "test": [{"id": "9"}],
    }
    for name, content in {"labels": numbers, **rows}.items():
        (raw / "labels" / f"{prefix}{name}.json").write_text(json.dumps(content))
    (raw / "labels" / "test-answers.csv").write_text("9;Closing something\n")
    for index, name in enumerate(("74225", "7", "8", "9")):
        clip(raw / "20bn-something-something-v2" / f"{name}.mp4", index)
    result = prepare(raw, tmp_path / "out", format="parquet", encoding=SMALL)
    assert result.label_names == [
        "Closing [something]",
        "Tearing [something] into two pieces",
        "Inventing [something]",
    ]
    assert set(result.label_names[:2]) < set(published_labels("ssv2"))  # the names that official heads have
    train = open_source(tmp_path / "out", "train")
    assert sorted(labelled(train).values()) == ["Inventing [something]", "Tearing [something] into two pieces"]
    assert list(labelled(open_source(tmp_path / "out", "test")).values()) == ["Closing [something]"]


def test_diving48(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]]
    (raw / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    for split, label in (("train", 1), ("test", 0)):
        rows = [
            {"vid_name": f"{split}_{index}", "label": label, "start_frame": 0, "end_frame": 9} for index in range(2)
        ]
        (raw / f"Diving48_V2_{split}.json").write_text(json.dumps(rows))
    for index in range(2):
        clip(raw / "rgb" / f"train_{index}.mp4", index)
        shutil.copyfile(raw / "rgb" / f"train_{index}.mp4", raw / "rgb" / f"test_{index}.mp4")
    result = prepare(raw, tmp_path / "out", encoding=SMALL)
    assert result.label_names == ["Back 15som 05Twis FREE", "Back 15som 15Twis FREE"]
    assert [sample.label for sample in open_source(tmp_path / "out", "train")] == [1, 1]
    # The first clips of both splits are one and the same: the score would be too good.
    assert [sorted(group) for group in result.duplicates] == [
        ["test/test_0", "train/train_0"],
        ["test/test_1", "train/train_1"],
    ]


# ---------------------------------------------------------------------- folders and lists


@pytest.fixture
def folder(tmp_path):
    """`{left,right}/*.mp4` with names that are hard on file systems, one damaged, and seven good clips."""
    for index in range(7):
        name = f"{index}.of 7 – ünï.mp4"
        clip(tmp_path / "raw" / ("left", "right")[index % 2] / name, index, height=32, width=48)
    (tmp_path / "raw" / "left" / "broken.mp4").write_bytes(b"not a video")
    return tmp_path / "raw"


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("format", ["tar", "parquet", "folder"])
def test_a_folder_trains_directly(folder, tmp_path, tiny_fields, format):
    out = tmp_path / "out"
    options = {"format": format, "encoding": EncodingSettings(short_side=24), "clips_per_shard": 3}
    result = prepare(folder, out, holdout=0.25, label_names=["right", "left"], **options)
    assert result.label_names == ["right", "left"]
    assert sum(result.videos.values()) == 7
    assert [(row["source"], row["kind"]) for row in result.failures] == [("left/broken.mp4", "undecodable")]
    for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines()):
        if "error" in row:
            continue
        assert (row["num_frames"], row["fps"], row["height"], row["width"]) == (10, 25.0, 24, 36)
        if format == "folder":
            content = (out / row["file"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"])
    train = open_source(out, "train")
    assert train.num_samples == len(list(train)) == result.videos["train"]
    assert set(labelled(train).values()) == {"left", "right"}
    if format == "tar":
        run = finetune(RunConfig.from_fields(**tiny_fields | {"data": str(out), "epochs": 1}))
        assert run.facts["label_names"] == ["right", "left"]
        assert len(run.evaluation.ids) == result.videos["val"]


def test_sources_are_named_from_the_folder_that_a_relative_path_gives(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    prepare(folder.name, tmp_path / "out", encoding=SMALL)
    rows = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    named = {row["id"]: row["source"] for row in rows}
    assert named and all(source == name for name, source in named.items())
    again = prepare(folder, tmp_path / "out", encoding=SMALL)
    assert again.shards_kept == 1  # the same preparation, however the folder is called


def test_neither_processes_nor_an_interruption_change_a_byte(folder, tmp_path, monkeypatch):
    options = {"encoding": SMALL, "clips_per_shard": 2}
    prepare(folder, tmp_path / "one", **options)
    prepare(folder, tmp_path / "two", num_workers=2, **options)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")

    make_shard, made = preparing.make_shard, []

    def interrupted(shard, output):
        if len(made) == 2:
            (output / f".{shard.name}.partial").write_bytes(b"half of it")
            raise KeyboardInterrupt
        made.append(shard.name)
        return make_shard(shard, output)

    monkeypatch.setattr(preparing, "make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "three", **options)
    (tmp_path / "three" / made[0]).write_bytes(b"damaged")  # what is not as it was written is made again
    monkeypatch.setattr(preparing, "make_shard", make_shard)
    assert prepare(folder, tmp_path / "three", **options).shards_kept == 1
    assert content_of(tmp_path / "one") == content_of(tmp_path / "three")
    again = prepare(folder, tmp_path / "three", **options)
    assert again.shards_kept == 4
    assert content_of(tmp_path / "one") == content_of(tmp_path / "three")


def test_another_preparation_is_replaced_only_when_asked(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, format="folder", encoding=SMALL)
    with pytest.raises(ValueError, match="contains a preparation of other clips or with other settings"):
        prepare(folder, out, encoding=SMALL)
    prepare(folder, out, encoding=SMALL, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "labels.json",
        "manifest.jsonl",
        "prepared.json",
        "train-00000.tar",
    ]
    (folder / "left" / "broken.mp4").unlink()
    clip(folder / "left" / "broken.mp4", 9)
    assert prepare(folder, out, encoding=SMALL).failures  # the same clips as far as it knows
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ValueError, match="must be a new folder, .* contains other files"):
        prepare(folder, tmp_path / "mine")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "mine"),
        ("prepared.json", "mine"),
        ("prepared.json", '{"shards": {}}'),
        ("prepared.json", "[]"),
        ("labels.json", '["mine"]'),
        ("train-00000.tar", "mine"),
        (".lock.txt", "mine"),
    ],
)
def test_files_of_others_are_refused_by_name(folder, tmp_path, name, content, overwrite):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(ValueError, match=f"`output` .*{name}"):
        prepare(folder, tmp_path / "out", encoding=SMALL, overwrite=overwrite)
    assert (tmp_path / "out" / name).read_text() == content


def test_overwrite_leaves_files_of_others(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, format="folder", encoding=SMALL)
    (out / "train" / "left" / "notes.txt").write_text("mine")
    (out / "train" / ".half.partial").write_text("mine")
    (out / "empty").mkdir()
    prepare(folder, out, encoding=SMALL, overwrite=True)
    assert {path.relative_to(out).as_posix() for path in (out / "train").rglob("*")} == {
        "train/.half.partial",
        "train/left",
        "train/left/notes.txt",
    }
    assert (out / "empty").is_dir()
    (out / "train-00001.tar").write_text("mine")
    with pytest.raises(ValueError, match="other files with the names of shards: train-00001.tar"):
        prepare(folder, out, encoding=SMALL, clips_per_shard=2, overwrite=True)
    assert (out / "train-00001.tar").read_text() == "mine"


@pytest.mark.parametrize("name", ["labels.json", "manifest.jsonl"])
def test_edited_lists_are_not_replaced(folder, tmp_path, name):
    prepare(folder, tmp_path / "out", encoding=SMALL)
    path = tmp_path / "out" / name
    path.write_text(path.read_text() + "\n")
    edited = path.read_text()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"changed since they were written: {name}"):
            prepare(folder, tmp_path / "out", encoding=SMALL, overwrite=overwrite)
    assert path.read_text() == edited


def test_two_preparations_do_not_share_a_folder(folder, tmp_path):
    with held_folder(tmp_path / "out", "output"), pytest.raises(ValueError, match="in use by process"):
        prepare(folder, tmp_path / "out", encoding=SMALL)


@pytest.mark.parametrize("format", ["tar", "parquet", "folder"])
def test_several_labels_and_none(folder, tmp_path, format):
    rows = [
        {"video": str(path), "labels": [path.parent.name, "any"] if index else [], "split": "train"}
        for index, path in enumerate(sorted(folder.glob("*/?.*.mp4")))
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    prepare(tmp_path / "list.json", tmp_path / "out", format=format, encoding=SMALL)
    source = open_source(tmp_path / "out", "train")
    assert source.multi_label and source.label_names == ["any", "left", "right"]
    assert sorted(sample.label for sample in source) == sorted([()] + [(1, 0)] * 3 + [(2, 0)] * 3)
    (tmp_path / "plain").mkdir()
    for path in folder.glob("*/?.*.mp4"):
        (tmp_path / "plain" / path.name).write_bytes(path.read_bytes())
    prepare(tmp_path / "plain", tmp_path / "unlabelled", format=format, encoding=SMALL)
    unlabelled = open_source(tmp_path / "unlabelled", "train")
    assert [sample.label for sample in unlabelled] == [None] * 7


def test_counted_shards_are_not_read_again(folder, tmp_path, monkeypatch):
    prepare(folder, tmp_path / "out", encoding=SMALL, clips_per_shard=4)
    monkeypatch.setattr("hf_videovit.training.data.shards.scan_tar", None)
    source = open_source(tmp_path / "out", "train")
    assert [source.share_size(rank, 2) for rank in (0, 1)] == [
        len(list(source.share(rank, 2, 0, 0))) for rank in (0, 1)
    ]
    monkeypatch.undo()
    with (tmp_path / "out" / "train-00001.tar").open("ab") as file:
        file.truncate(1500)
    with pytest.raises(ValueError, match="damaged shard .*train-00001.tar"):
        open_source(tmp_path / "out", "train")


# ---------------------------------------------------------------------- encoding


def test_what_is_small_enough_stays_as_it_is(tmp_path):
    path = clip(tmp_path / "a.mp4", height=32, width=48)
    kept = encode_clip(path, EncodingSettings(short_side=32))
    assert kept.kept and kept.content == path.read_bytes() and kept.psnr is None
    again = encode_clip(path, EncodingSettings(short_side=None, reencode=True))
    assert not again.kept and (again.probe.height, again.probe.width) == (32, 48)
    before, after = decode_video(path).frames.astype(float), decode_video(again.content).frames.astype(float)
    assert np.abs(before - after).mean() < 3 and abs(before.mean() - after.mean()) < 1.5


@pytest.mark.parametrize("name", ["gen_vfr.mp4", "gen_rot90.mp4", "gen_mpeg4.avi", "gen_anim.gif", "gen_odd_dims.avi"])
def test_frames_and_times_survive(name):
    path = Path(__file__).parents[2] / "media" / "odd" / name
    before, written = probe_video(path), encode_clip(path, EncodingSettings(short_side=64))
    assert written.suffix == ".mp4" and written.probe.num_frames == before.num_frames
    assert min(written.probe.height, written.probe.width) == 64
    assert (written.probe.height > written.probe.width) == (before.height > before.width)
    if before.timestamps is not None:
        times = [one.timestamps - one.timestamps[0] for one in (before, written.probe)]
        np.testing.assert_allclose(*times, atol=1e-4)


def test_keys_are_plain_and_unique():
    assert unique_keys(["a/b.mp4", "a b", "A_B", "v1.2", "…", "x.avi"]) == [
        "a_b",
        "a_b~2",
        "A_B~3",
        "v1_2",
        "clip",
        "x",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "`format` must be one of tar, parquet, folder"),
        ({"layout": "ucf11"}, "`layout` must be auto or one of generic, ucf101"),
        ({"layout": "ssv2"}, "has no annotations of the layout 'ssv2'"),
        ({"label_names": ["left"]}, "`label_names` lacks 1 labels of the annotations: 'right'"),
        ({"clips_per_shard": 0}, "`clips_per_shard` must be at least 1"),
    ],
)
def test_bad_arguments(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
