"""Data sets of a failing Hub: every clip is complete or its error is reported; none is left out silently."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
# A process of its own, since the endpoint is read at import; nobody in it waits before another attempt.
READER = '''
import io, json, os, sys, tarfile
from tests.hub_server import Failure, Hub, running

def aligned(clips):
    """A tar with a new sample from byte 10752 on, where tarfile reads again after blocks of 512 and 10240."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for number, clip in enumerate(clips):
            parts = {"mp4": clip.read_bytes(), "json": json.dumps({"label": clip.parent.name}).encode()}
            for suffix, data in parts.items():
                archive.addfile(member(f"{number:03d}.{suffix}", len(data)), io.BytesIO(data))
            if number == 0:
                space = 10752 - archive.offset - 512
                archive.addfile(member("__space", space), io.BytesIO(bytes(space)))
    return content.getvalue()

def member(name, size):
    found = tarfile.TarInfo(name)
    found.size = size
    return found

folder, cases = json.load(sys.stdin)
hub = Hub()
with running(hub):
    os.environ["HF_ENDPOINT"] = hub.endpoint
    import time
    time.sleep = lambda seconds: None
    from pathlib import Path
    from hf_videovit.modeling.video_decoding import VideoDecodingError, decode_video
    from hf_videovit.training.data.opening import open_source
    from tests.clips import STEPS
    from tests.training.data.test_repos import parquet_of

    clips = sorted(Path(folder).rglob("train/*/*.mp4"))[::2]
    hub.create("datasets", "some/folders", {f"train/{one.parent.name}/{one.name}": one.read_bytes() for one in clips})
    for name, pack in (("tar", aligned), ("parquet", parquet_of)):
        hub.create("datasets", f"some/{name}s", {f"data/train-{i}.{name}": pack(clips[i::2]) for i in (0, 1)})
    hub.create("datasets", "some/private", {"train/up/0.mp4": clips[0].read_bytes()}, private=True)
    whole = sorted(one.read_bytes() for one in clips)

    def read(kind, failures, when):
        found = {"frames": [], "errors": [], "ended": None, "same": None}
        data = "some/" + kind
        try:
            if when == "opening":
                hub.failures.extend(Failure(**failure) for failure in failures)
            source = open_source(data, "train", label_names=sorted(STEPS) if kind == "tars" else None)
            if when == "reading":
                hub.failures.extend(Failure(**failure) for failure in failures)
            contents = []
            for sample in source.share(0, 1, None, 0):
                try:
                    found["frames"].append(len(decode_video(sample.video).frames))
                    contents.append(sample.video["bytes"] if isinstance(sample.video, dict) else None)
                except VideoDecodingError as error:
                    found["errors"].append(str(error))
            found["same"] = sorted(contents) == whole if kind != "folders" else None
        except (ValueError, OSError) as error:
            found["ended"] = f"{type(error).__name__}: {error}"
        hub.failures.clear()
        return found

    print(json.dumps([read(*case) for case in cases]))
'''
GET = {"folders": r"GET .*\.mp4", "tars": r"GET .*\.tar", "parquets": r"GET .*\.parquet"}
CASES = {
    "a bad gateway once": [{"status": 503, "times": 1, "skip": 1}],
    "cut once": [{"cut": 700, "times": 1, "skip": 1}],
    "cut before the first byte": [{"cut": 0, "times": 1}],
    "cut again and again": [{"cut": 700, "skip": 1}],
    "cut where a sample of the tar ends": [{"cut": 10752, "skip": 1, "times": 1}, {"cut": 0, "skip": 1}],
    "a bad gateway for good": [{"status": 503, "skip": 1}],
    "gone": [{"status": 404, "skip": 1}],
    "not allowed": [{"status": 401, "skip": 1}],
}
OPENING = {
    "no such repo": ["none", [{"pattern": "nothing"}], "opening"],
    "a private repo": ["private", [{"pattern": "nothing"}], "opening"],
    "a Hub with a server error": ["folders", [{"pattern": ".*", "status": 503}], "opening"],
    "no connection": ["tars", [{"pattern": ".*", "cut": 0}], "opening"],
    "no right to read": ["parquets", [{"pattern": ".*", "status": 401}], "opening"],
}
NUM_CLIPS = 10


@pytest.fixture(scope="module")
def answers(clip_folder, tmp_path_factory):
    cases = {
        (kind, name): [kind, [{"pattern": pattern, **failure} for failure in failures], "reading"]
        for kind, pattern in GET.items()
        for name, failures in CASES.items()
    }
    cases |= {("opening", name): case for name, case in OPENING.items()}
    home = tmp_path_factory.mktemp("reader")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    known |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([str(clip_folder), list(cases.values())]),
        capture_output=True,
        text=True,
        env=known,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("kind", GET)
@pytest.mark.parametrize("name", ["a bad gateway once", "cut once", "cut before the first byte"])
def test_what_passes_is_not_noticed(answers, kind, name):
    answer = answers[kind, name]
    assert answer["frames"] == [12] * NUM_CLIPS and not answer["errors"] and answer["ended"] is None
    assert answer["same"] in (None, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut again and again", "download failed (RemoteProtocolError)"),
        ("a bad gateway for good", "the Hub answers with status 503"),
        ("gone", "no such file on the Hub, or no right to read it"),
        ("not allowed", "no such file on the Hub, or no right to read it"),
    ],
)
def test_a_single_file_that_does_not_come_is_a_bad_clip(answers, name, words):
    answer = answers["folders", name]
    assert answer["frames"] == [12] and len(answer["errors"]) == NUM_CLIPS - 1 and answer["ended"] is None
    assert all(error.endswith(words) and ".mp4: " in error for error in answer["errors"])


@pytest.mark.parametrize("kind", ["tars", "parquets"])
@pytest.mark.parametrize("name", list(CASES)[3:])
def test_a_shard_that_does_not_come_whole_ends_the_run_by_name(answers, kind, name):
    """The clips before it were whole; the next ones are not left out in silence."""
    answer = answers[kind, name]
    assert set(answer["frames"]) == {12} and NUM_CLIPS / 2 <= len(answer["frames"]) < NUM_CLIPS
    assert not answer["errors"]
    assert answer["ended"].startswith("ConnectionError: Shard 1 of the data ended after ")


@pytest.mark.parametrize("name", OPENING)
def test_a_repo_that_cannot_be_opened_is_named(answers, name):
    answer = answers["opening", name]
    assert answer["ended"] and not answer["frames"]
    kind = OPENING[name][0]
    assert f"some/{kind}" in answer["ended"] or "onnect" in answer["ended"]
