"""Data set repos, read from a Hub on this machine by a process of its own, since the endpoint is read at import."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_videovit.training.data.repos import RepoAddress, parse_address
from tests.clips import STEPS
from tests.hub_server import revision_of, serving


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
NAMES = sorted(STEPS)
CONFIGURATIONS = """---
configs:
- config_name: few
  data_files: few/*.parquet
- config_name: many
  data_files: many/*.parquet
---
"""
READER = """
import json, sys
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.data.opening import list_splits, open_source
from hf_videovit.training.data.streaming import ClipStream
import torch

def load(record):
    frames = decode_video(record.sample.video).frames
    return {"frames": torch.tensor(len(frames)), "number": torch.tensor(record.position)}

def read(data, split, options):
    try:
        source = open_source(data, split, **options)
    except ValueError as error:
        return {"error": str(error)}
    shares = [[sample.id for sample in source.share(rank, 2, 0, 0)] for rank in range(2)]
    stream = ClipStream(source, load, 4, seed=0, num_workers=1, on_bad_video=lambda bad: None)
    batches = list(stream.epoch(0))
    return {
        "kind": type(source).__name__, "splits": list_splits(data, options.get("config")), "names": source.label_names,
        "labels": [sample.label for sample in source], "size": source.num_samples, "shares": shares,
        "sizes": [source.share_size(rank, 2) for rank in range(2)], "multi_label": source.multi_label,
        "seen": [name for batch in batches for name in batch.ids],
        "frames": [int(value) for batch in batches for value in batch.rows["frames"]],
    }

if __name__ == "__main__":
    print(json.dumps([read(*case) for case in json.loads(sys.argv[1])]))
"""


def tar_of(clips, with_labels=True):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for index, clip in enumerate(clips):
            parts = {"mp4": clip.read_bytes(), "json": json.dumps({"label": clip.parent.name}).encode()}
            for suffix, data in parts.items():
                if suffix == "mp4" or with_labels:
                    member = tarfile.TarInfo(f"{index:03d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def parquet_of(clips, with_labels=True):
    rows = [
        {"video": {"path": clip.name, "bytes": clip.read_bytes()}}
        | ({"label": clip.parent.name} if with_labels else {})
        for clip in clips
    ]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def read_repos(repos, cases, folder):
    """What a process that takes the server for the Hub reads."""
    script = folder / "reader.py"
    script.write_text(READER)
    with serving(repos) as endpoint:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, str(script), json.dumps(cases)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def answers(clip_folder, tmp_path_factory):
    clips = sorted((clip_folder / "train").rglob("*.mp4"))[::2]  # 10 of them
    listed = [
        {"file_name": f"{index}.mp4", "labels": [clip.parent.name, "square"]} for index, clip in enumerate(clips)
    ]
    rows = [f"videos/{index}.mp4,{clip.parent.name}" for index, clip in enumerate(clips)]
    repos = {
        "some/folders": {str(clip.relative_to(clip_folder)): clip.read_bytes() for clip in clip_folder.rglob("*.mp4")},
        "some/tars": {f"data/train-{index}.tar": tar_of(clips[index::3]) for index in range(3)},
        "some/unlabelled": {f"train-{index}.tar": tar_of(clips[index::2], with_labels=False) for index in range(2)},
        "some/parquet": {f"data/train-{index}.parquet": parquet_of(clips[index::3]) for index in range(3)},
        "some/configurations": {"few/train.parquet": parquet_of(clips[:3]), "many/train.parquet": parquet_of(clips)}
        | {"README.md": CONFIGURATIONS.encode()},
        "some/plain-parquet": {"train.parquet": parquet_of(clips, with_labels=False)},
        "some/list": {f"videos/{index}.mp4": clip.read_bytes() for index, clip in enumerate(clips)}
        | {"train.csv": "\n".join(["file,label", *rows]).encode()},
        "some/many-labels": {f"train/{index}.mp4": clip.read_bytes() for index, clip in enumerate(clips)}
        | {"train/metadata.jsonl": "\n".join(json.dumps(row) for row in listed).encode()},
    }
    commit = revision_of("some/tars")
    cases = {
        "folders": ["some/folders", "validation", {}],
        "tars": ["some/tars", "train", {"label_names": NAMES}],
        "nameless tars": ["some/tars", "train", {}],
        "one tar": [f"hf://datasets/some/tars@{commit}/data/train-1.tar", None, {"label_names": NAMES}],
        "pattern": ["hf://datasets/some/parquet/data/*.parquet", None, {}],
        "unlabelled": ["hf://datasets/some/unlabelled@main", "train", {}],
        "parquet": ["hf://datasets/some/parquet", "train", {}],
        "plain parquet": ["some/plain-parquet", "train", {}],
        "list": ["some/list", "train", {}],
        "list by address": ["hf://datasets/some/list/train.csv", None, {}],
        "many labels": ["some/many-labels", "train", {}],
        "few": ["some/configurations", "train", {"config": "few"}],
        "many": ["some/configurations", "train", {"config": "many"}],
        "no split": ["some/tars", "test", {}],
    }
    found = read_repos(repos, list(cases.values()), tmp_path_factory.mktemp("hub"))
    return dict(zip(cases, found))


@pytest.mark.parametrize(
    ("case", "kind", "size", "sizes"),
    [
        ("folders", "VideoList", 8, [4, 4]),
        ("list", "VideoList", 10, [5, 5]),
        ("list by address", "VideoList", 10, [5, 5]),
        ("parquet", "VideoShards", 10, [5, 5]),
        ("pattern", "VideoShards", 10, [5, 5]),
        ("tars", "VideoShards", None, [None, None]),
        ("one tar", "VideoShards", None, [None, None]),
    ],
)
def test_repos_of_every_kind(answers, case, kind, size, sizes):
    answer = answers[case]
    assert (answer["kind"], answer["names"], answer["size"], answer["sizes"]) == (kind, NAMES, size, sizes)
    count = size or (10 if case == "tars" else 3)
    together = [name for share in answer["shares"] for name in share]
    assert len(together) == len(set(together)) == count
    assert sorted(together) == sorted(answer["seen"])
    assert answer["frames"] == [12] * count
    assert set(answer["labels"]) <= set(range(4))
    assert answer["splits"] == {"folders": ["train", "validation"]}.get(case, [] if "." in case else answer["splits"])


def test_repos_without_labels_and_with_several(answers):
    for case in ("unlabelled", "plain parquet"):
        assert answers[case]["names"] == []
        assert answers[case]["labels"] == [None] * 10
        assert answers[case]["frames"] == [12] * 10
    many = answers["many labels"]
    assert many["multi_label"] and many["names"] == sorted([*NAMES, "square"])
    assert all(many["names"][labels[1]] == "square" for labels in many["labels"])
    assert not answers["parquet"]["multi_label"]


def test_a_configuration_of_a_repo_is_read_alone(answers):
    """`data_config` of a run."""
    assert [answers[name]["size"] for name in ("few", "many")] == [3, 10]


def test_what_a_repo_does_not_say_is_an_error(answers):
    assert "`label_names` is needed" in answers["nameless tars"]["error"]
    assert "`split` 'test' is not in 'hf://datasets/some/tars', which has train" in answers["no split"]["error"]


def test_addresses():
    assert parse_address("owner/name") == RepoAddress("owner/name")
    assert parse_address("hf://datasets/owner/name") == RepoAddress("owner/name")
    address = parse_address("hf://datasets/owner/name@refs%2Fpr%2F1/some/folder")
    assert address == RepoAddress("owner/name", "refs/pr/1", "some/folder")
    assert address.url == "hf://datasets/owner/name@refs%2Fpr%2F1/some/folder"
    for text in ("clips", "a/b/c", "hf://owner/name", "clips/*.tar", "../clips"):
        assert parse_address(text) is None
