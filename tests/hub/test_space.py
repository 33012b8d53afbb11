"""A Space: files that the Hub takes, and an app that runs as it was sent."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard, SpaceCardData
from packaging.requirements import Requirement
from transformers import pipeline
from typer.testing import CliRunner

from hf_videovit import __version__
from hf_videovit.cli import app
from hf_videovit.hub.asking import PublishingError
from hf_videovit.hub.cards import is_rendered
from hf_videovit.hub.space import publish_space, write_space
from tests.card_rules import problems
from tests.clips import moving_square_clip, write_clip
from tests.hub_server import READER, WRITER, Failure
from tests.saved_model import save_tiny_classifier, save_tiny_detector


ROOT = Path(__file__).parents[2]
FILES = {"README.md", "app.py", "requirements.txt"}


@pytest.fixture
def folder(tmp_path):
    return save_tiny_classifier(tmp_path / "squares")


def publish_words(*words):
    return CliRunner().invoke(app, ["publish", *map(str, words)])


def test_metadata_follows_the_rules_of_the_hub(tmp_path):
    write_space(tmp_path, "me/squares", licence="apache-2.0")
    card = SpaceCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert (data["sdk"], data["app_file"], data["models"]) == ("gradio", "app.py", ["me/squares"])
    assert data["preload_from_hub"] == ["me/squares"] and data["license"] == "apache-2.0"
    assert data["title"] == "squares" and data["sdk_version"] == metadata.version("gradio")
    assert problems((tmp_path / "README.md").read_text(), "space") == []
    broken = (tmp_path / "README.md").read_text().replace("sdk: gradio", "sdk: streamlit").replace("indigo", "white")
    assert len(problems(broken, "space")) == 2
    assert SpaceCardData(**data).to_dict() == data
    assert "me/squares" in card.text and is_rendered((tmp_path / "README.md").read_text())
    assert "license" not in yaml.safe_load((write_space(tmp_path, "me/squares")[0].source).read_text().split("---")[1])


def test_a_space_says_what_its_model_does(hub, tmp_path):
    """By the class of the model, which the Hub has."""
    kinds = {
        "VideoMAEV2ForVideoClassification": ("video-classification", "classifies it"),
        "UniFormerForActionDetection": ("action-detection", "names what each person does"),
        "VideoTemporalLocalizer": ("temporal-action-localization", "when which actions happen"),
        "ActionFormerForTemporalActionLocalization": ("temporal-action-localization", "when which actions happen"),
    }
    for name, (task, words) in kinds.items():
        hub.create("models", f"me/{name}", {"config.json": json.dumps({"architectures": [name]}).encode()})
        publish_space(f"me/{name}", f"me/space-{name}", token=WRITER)
        card = hub.files(f"me/space-{name}", kind="spaces")["README.md"].decode()
        assert words in card and f"- {task}" in card and problems(card, "space") == []
    with pytest.raises(ValueError, match="`task` must be one of"):
        write_space(tmp_path, "me/model", task="segmentation")


def test_requirements_install_the_page(tmp_path):
    default = write_space(tmp_path / "a", "me/squares")
    assert {file.path for file in default} == FILES
    line = (tmp_path / "a" / "requirements.txt").read_text()
    wanted = Requirement(line.strip())
    assert wanted.extras == {"space"} and __version__ in wanted.specifier
    write_space(tmp_path / "b", "me/squares", package="hf_videovit[space] @ git+https://example.org/hf_videovit@v1")
    wanted = Requirement((tmp_path / "b" / "requirements.txt").read_text().strip())
    assert wanted.url == "git+https://example.org/hf_videovit@v1"
    for package in ("hf_videovit", "other[space]", "hf_videovit[space]\nother"):
        with pytest.raises(ValueError, match=r"`package` must be one requirement on 'hf_videovit\[space\]'"):
            write_space(tmp_path / "c", "me/squares", package=package)
    for model in ("squares", "a/b/c", 'me/x")'):
        with pytest.raises(ValueError, match="`model_id` must be a Hub id"):
            write_space(tmp_path / "c", model)


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_of_others_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(ValueError, match=f"`folder` has files that hf_videovit did not write.*: {name}"):
        write_space(tmp_path, "me/squares")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine\n"


def test_model_and_space_are_published_by_one_command(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    words = [folder, "--repo-id", "me/squares", "--space", "me/squares-demo", "--private", "--json"]
    dry = publish_words(*words, "--dry-run")
    assert dry.exit_code == 0 and not hub.repos and {file["path"] for file in json.loads(dry.stdout)["space"]["files"]}
    done = publish_words(*words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["space"]["repo_id"] == "me/squares-demo"
    space = hub.repos["spaces", "me/squares-demo"]
    assert space.private and set(hub.files("me/squares-demo", kind="spaces")) == FILES
    assert b'build_demo("me/squares")' in hub.files("me/squares-demo", kind="spaces")["app.py"]
    assert "model.safetensors" in hub.files("me/squares")
    again = publish_words("me/squares", "--space", "me/squares-demo", "--package", "hf_videovit[space]==9.9")
    assert again.exit_code == 0 and "/spaces/me/squares-demo" in again.output.replace("\n", "")
    assert hub.files("me/squares-demo", kind="spaces")["requirements.txt"] == b"hf_videovit[space]==9.9\n"


def test_licence_is_that_of_the_model(hub):
    hub.create("models", "me/squares", {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# Squares\n"})
    publish_space("me/squares", "me/demo", token=WRITER)
    assert b"license: cc-by-nc-4.0" in hub.files("me/demo", kind="spaces")["README.md"]


def test_commands_that_make_no_sense_are_refused(hub, folder):
    for words, message in (
        ([folder], "Pass --repo-id or --space"),
        ([folder, "--space", "me/demo"], "--repo-id is needed: a Space shows a model on the Hub"),
        ([folder, "--repo-id", "me/m", "--space", "me/demo", "--branch", "v2"], "omit --branch"),
        (["me/m", "--space", "a/b/c"], "`space_id` must be a Hub id"),
    ):
        done = publish_words(*words)
        assert done.exit_code == 2 and message in " ".join(done.output.split())
    assert not hub.repos


@pytest.mark.parametrize(
    ("failure", "token", "words"),
    [
        (None, "hf_wrong", "no valid token"),
        (None, READER, "no write access"),
        (Failure("GET /api/models", status=503), WRITER, r"server error \(503\)"),
        (Failure("GET /api/models", cut=0), WRITER, "connection to the Hub failed"),
        (Failure("HEAD /me/squares/resolve/main/README", status=500), WRITER, "could not be reached"),
        (Failure("repos/create", status=500), WRITER, r"server error \(500\)"),
        (Failure("commit/main", cut=0), WRITER, "connection to the Hub failed"),
    ],
)
def test_refusals_say_why_and_the_same_command_goes_on(hub, failure, token, words):
    hub.create("models", "me/squares", {"README.md": b""})
    if failure is not None:
        hub.failures.append(failure)
    with pytest.raises(PublishingError, match=words):
        publish_space("me/squares", "me/demo", token=token)
    assert not hub.repos.get(("spaces", "me/demo")) or not hub.files("me/demo", kind="spaces")
    hub.failures.clear()
    publish_space("me/squares", "me/demo", token=WRITER)
    assert set(hub.files("me/demo", kind="spaces")) == FILES


def test_a_space_needs_a_model(hub):
    with pytest.raises(PublishingError, match="me/squares: the repo does not exist, or the token has no read access"):
        publish_space("me/squares", "me/demo", token=WRITER)
    assert not hub.repos


def test_a_readme_that_a_person_edited_is_kept(hub):
    hub.create("models", "me/squares", {})
    publish_space("me/squares", "me/demo", token=WRITER)
    publish_space("me/squares", "me/demo", token=WRITER)
    files = dict(hub.files("me/demo", kind="spaces"))
    files["README.md"] += b"\nAsk me before you use it.\n"
    hub.repos["spaces", "me/demo"].add("main", "edit", files)
    with pytest.raises(ValueError, match="edited on the Hub"):
        publish_space("me/squares", "me/demo", token=WRITER)
    assert hub.files("me/demo", kind="spaces") == files
    publish_space("me/squares", "me/demo", token=WRITER, overwrite_card=True)
    assert b"Ask me" not in hub.files("me/demo", kind="spaces")["README.md"]


@pytest.mark.parametrize(("name", "content"), [("app.py", b"print('mine')\n"), ("requirements.txt", b"torch\n")])
def test_another_app_of_a_space_is_kept(hub, name, content):
    hub.create("models", "me/squares", {})
    publish_space("me/squares", "me/demo", token=WRITER)
    files = dict(hub.files("me/demo", kind="spaces")) | {name: content}
    hub.repos["spaces", "me/demo"].add("main", "edit", files)
    with pytest.raises(ValueError, match=f"`space_id` has files that hf_videovit did not write.*{name}"):
        publish_space("me/squares", "me/demo", token=WRITER, overwrite_card=True)
    assert hub.files("me/demo", kind="spaces") == files


@contextmanager
def running_app(hub, space_id, home):
    """The Space in a process of its own, in a folder with nothing but its files, with the model on the Hub."""
    space = home / "space"
    space.mkdir()
    for path, content in hub.files(space_id, kind="spaces").items():
        (space / path).write_bytes(content)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO_"))}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(free_port())}
    log = home / "log"
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stdout=file, stderr=file)
    try:
        address = f"http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}"
        wait_for(address, server, log)
        yield Client(address, verbose=False)
    finally:
        server.terminate()
        server.wait()


def test_the_app_runs_as_it_was_sent(hub, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert publish_words(folder, "--repo-id", "me/squares", "--space", "me/demo").exit_code == 0
    clip = str(write_clip(tmp_path / "clip.mp4", moving_square_clip()))
    with running_app(hub, "me/demo", tmp_path) as client:
        labels, *_ = client.predict(handle_file(clip), api_name="/classify")
    expected = pipeline("video-classification", model=str(folder))(clip, top_k=5)
    assert [(one["label"], one["confidence"]) for one in labels["confidences"]] == [
        (one["label"], one["score"]) for one in expected
    ]


def test_a_detector_is_published_with_its_code_card_and_space(hub, tmp_path, monkeypatch):
    """And the Space that was sent shows it."""
    monkeypatch.setenv("HF_TOKEN", WRITER)
    folder = save_tiny_detector(tmp_path / "people")
    done = publish_words(folder, "--repo-id", "me/people", "--space", "me/actions", "--with-code")
    assert done.exit_code == 0, done.output
    files = hub.files("me/people")
    assert {"README.md", "config.json", "model.safetensors", "video_preprocessor_config.json"} < set(files)
    assert {"modeling_videomae_v2.py", "modeling_action_detection.py", "modeling_code.json"} < set(files)
    mapped = json.loads(files["config.json"])["auto_map"]
    assert mapped["AutoModel"] == "modeling_videomae_v2.VideoMAEV2ForActionDetection"
    card = files["README.md"].decode()
    assert problems(card) == [] and "pipeline_tag" not in card.split("---")[1]
    assert 'pipeline("action-detection", model="me/people")' in card
    assert 'AutoModel.from_pretrained("me/people", trust_remote_code=True)' in card
    words = hub.files("me/actions", kind="spaces")["README.md"].decode()
    assert problems(words, "space") == [] and "names what each person does" in words and "classif" not in words
    clip = str(write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=20), fps=10))
    boxes = {1.0: [[4, 4, 20, 30]]}
    with running_app(hub, "me/actions", tmp_path) as client:
        _, table, _ = client.predict(handle_file(clip), json.dumps(boxes), 1.0, 0.0, api_name="/detect")
    (expected,) = pipeline("action-detection", model=str(folder))(clip, boxes=boxes, threshold=0.0, top_k=5)
    actions = [(one["label"], f"{one['score']:.4f}") for one in expected["people"][0]["actions"]]
    assert [(row[3], row[4]) for row in table["data"]] == actions


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address, server, log):
    """Until the page is up; an app that ends before that fails with what it wrote."""
    while True:
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            assert server.poll() is None, log.read_text()[-3000:]
            threading.Event().wait(0.3)  # the fixture of the Hub lets nobody sleep
