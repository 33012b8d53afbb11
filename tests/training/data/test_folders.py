"""Folders as people have them: system files, links, classes called like splits, nested folders."""

import logging
import os
import unicodedata

import pytest

from hf_videovit.doctor import find_videos
from hf_videovit.training.arguments import DataArguments
from hf_videovit.training.data.images import open_images
from hf_videovit.training.data.opening import list_splits, load_evaluation_source, load_sources, open_source


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def ids(source):
    return [sample.id for sample in source]


def labelled(source):
    return [(sample.id, source.label_names[sample.label]) for sample in source]


@pytest.mark.parametrize(
    "junk",
    [
        "run/._a.mp4",
        "run/.ipynb_checkpoints/a.mp4",
        ".ipynb_checkpoints/a.mp4",
        "__MACOSX/run/._a.mp4",
        "__MACOSX/run/a.mp4",
        "@eaDir/a.mp4",
        "$RECYCLE.BIN/a.mp4",
        ".Trash-1000/files/a.mp4",
        "run/@eaDir/a.mp4",
        "#recycle/a.mp4",
        "@Recycle/run/a.mp4",
        "$Recycle.Bin/a.mp4",
    ],
)
def test_files_of_systems_are_neither_videos_nor_classes(tmp_path, junk):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4", junk)
    source = open_source(tmp_path)
    assert labelled(source) == [("jump/b.mp4", "jump"), ("run/a.mp4", "run")]
    assert [os.path.relpath(file, tmp_path) for file in find_videos([tmp_path])] == ["jump/b.mp4", "run/a.mp4"]


def test_hidden_shards_and_images_are_not_read(tmp_path):
    touch(tmp_path, "images/cat/a.png", "images/cat/._a.png", "images/dog/b.jpg", "images/__MACOSX/._b.jpg")
    train, held_out = open_images(tmp_path / "images")
    assert held_out is None
    assert labelled(train) == [("cat/a.png", "cat"), ("dog/b.jpg", "dog")]
    touch(tmp_path, "clips/run/a.mp4", "clips/jump/b.mp4", "clips/._train.tar")
    assert open_source(tmp_path / "clips").num_samples == 2


def test_links_to_folders_and_files_are_followed_and_circles_end(tmp_path):
    touch(tmp_path / "store", "jump/a.mp4", "more/b.mp4", "run/c.mp4")
    clips = tmp_path / "clips"
    (clips / "run").mkdir(parents=True)
    (clips / "jump").symlink_to(tmp_path / "store" / "jump")
    (clips / "run" / "more").symlink_to(tmp_path / "store" / "more")
    (clips / "run" / "c.mp4").symlink_to(tmp_path / "store" / "run" / "c.mp4")
    (clips / "run" / "around").symlink_to(clips)
    (clips / "run" / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    source = open_source(clips)
    assert ids(source) == ["jump/a.mp4", "run/c.mp4", "run/more/b.mp4"]
    assert any("links have no target" in remark and "gone.mp4" in remark for remark in source.remarks)
    assert len(find_videos([clips])) == 4  # the broken link is opened, and reported


@pytest.mark.parametrize("odd", ["train", "test", "val", "Training", "valid", "eval"])
def test_a_class_called_like_a_split_is_a_class(tmp_path, odd):
    touch(tmp_path, *(f"{name}/{number}.mp4" for name in ("bus", "car", odd) for number in range(5)))
    assert list_splits(tmp_path) == []
    train, held_out = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert train.label_names == held_out.label_names == sorted(["bus", "car", odd])
    assert (train.num_samples, held_out.num_samples) == (12, 3)


def test_several_classes_called_like_splits(tmp_path):
    touch(tmp_path, "bus/a.mp4", "car/a.mp4", "train/a.mp4", "test/a.mp4")
    assert open_source(tmp_path).label_names == ["bus", "car", "test", "train"]


def test_a_split_may_hold_a_class_called_like_a_split(tmp_path):
    touch(tmp_path, "train/train/a.mp4", "train/bus/b.mp4", "val/train/c.mp4", "val/bus/d.mp4")
    train, evaluation = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert labelled(train) == [("bus/b.mp4", "bus"), ("train/a.mp4", "train")]
    assert ids(evaluation) == ["bus/d.mp4", "train/c.mp4"]


def test_what_may_be_a_split_or_a_class_is_refused(tmp_path):
    touch(tmp_path, "train/part1/a.mp4", "bus/part1/b.mp4", "car/c.mp4")
    with pytest.raises(ValueError, match=r"`data` .* has the folder 'train' beside 'bus', 'car': splits or classes"):
        open_source(tmp_path)
    touch(tmp_path / "other", "train/a.mp4", "Train/b.mp4", "bus/c.mp4", "val/bus/d.mp4")
    with pytest.raises(ValueError, match="splits or classes"):
        list_splits(tmp_path / "other")


def test_splits_with_capital_letters_are_splits(tmp_path):
    touch(tmp_path, "Train/run/a.mp4", "Train/jump/b.mp4", "Val/run/c.mp4", "notes/readme.txt")
    assert list_splits(tmp_path) == ["train", "val"]
    train, evaluation = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert ids(train) == ["jump/b.mp4", "run/a.mp4"]
    assert ids(evaluation) == ["run/c.mp4"]


def test_what_is_left_out_is_said(tmp_path, caplog):
    touch(tmp_path, "run/a.mp4", "run/a.srt", "run/deep/b.mp4", "jump/c.mp4", "loose.mp4")
    (tmp_path / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        source = load_evaluation_source(DataArguments(data=str(tmp_path)))
    assert source.label_names == ["jump", "run"]
    said = " ".join(source.remarks)
    for words in ("outermost folder: 'run' ('deep')", "no classes and are left out: 'empty'", "'loose.mp4'", "'.srt'"):
        assert words in said
    assert all(remark in caplog.text for remark in source.remarks)


def test_folders_beside_splits_are_said(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "val/run/b.mp4", "unused/run/c.mp4")
    assert any("'unused'" in remark for remark in open_source(tmp_path, "train").remarks)


def test_names_that_look_the_same_are_the_same(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    touch(tmp_path, f"train/{decomposed}/a.mp4", "train/bar/b.mp4", f"val/{composed}/c.mp4", "val/bar/d.mp4")
    train, evaluation = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert train.label_names == evaluation.label_names == ["bar", composed]
    named, _ = load_sources(DataArguments(data=str(tmp_path), label_names=[decomposed, "bar"]), seed=0)
    assert [sample.label for sample in named] == [1, 0]


def test_clips_in_both_splits_are_said(tmp_path):
    content = bytes(range(256)) * 1000
    for name in ("train/run/a.mp4", "val/run/copy.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    touch(tmp_path, "train/jump/c.mp4", "val/jump/other.mp4")
    (tmp_path / "val" / "jump" / "link.mp4").symlink_to(tmp_path / "train" / "jump" / "c.mp4")
    (tmp_path / "val" / "run" / "same_size.mp4").write_bytes(content[:-1] + b"x")
    _, evaluation = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert evaluation.remarks == (
        "2 clips are in the training data as well, so scores are too high: 'jump/link.mp4', 'run/copy.mp4'",
    )


def test_unlabelled_clips_are_held_out(tmp_path):
    touch(tmp_path, *(f"{number}.mp4" for number in range(5)))
    train, held_out = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert (train.num_samples, held_out.num_samples) == (4, 1)
    touch(tmp_path / "one", "a.mp4")
    assert load_sources(DataArguments(data=str(tmp_path / "one")), seed=0)[1] is None


def test_a_split_may_be_called_training(tmp_path):
    touch(tmp_path, "Training/run/a.mp4", "Training/jump/b.mp4", "Validation/run/c.mp4")
    train, evaluation = load_sources(DataArguments(data=str(tmp_path)), seed=0)
    assert (ids(train), ids(evaluation)) == (["jump/b.mp4", "run/a.mp4"], ["run/c.mp4"])


def test_splits_inside_of_classes_are_refused(tmp_path):
    touch(tmp_path, "run/train/a.mp4", "run/val/b.mp4", "jump/train/c.mp4", "jump/val/d.mp4")
    with pytest.raises(ValueError, match="the folders 'train', 'val' in its class folders 'jump', 'run': splits must"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "clips.jsonl"])
def test_a_list_in_a_folder_without_classes_is_mentioned(tmp_path, name):
    touch(tmp_path, "a.mp4", "b.mp4", name)
    assert f"The list '{name}' in the folder is not read" in open_source(tmp_path).remarks[0]
    with pytest.raises(ValueError, match=f"has no labels: .*The list '{name}' in the folder is not read"):
        load_evaluation_source(DataArguments(data=str(tmp_path)))


def test_links_to_missing_folders_are_named(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    for link in ("hop", "run/more"):
        (tmp_path / link).symlink_to(tmp_path / "nowhere")
    remarks = open_source(tmp_path).remarks
    assert remarks == ("2 links have no target and are left out: 'run/more', 'hop'",)
