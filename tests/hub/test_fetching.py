from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from hf_videovit import VideoMAEV2Model
from hf_videovit.cli import app
from hf_videovit.hub.downloading import download_published
from hf_videovit.hub.fetching import fetch_weights
from hf_videovit.published import PublishedCheckpoint, PublishedFile
from tests.convert.test_convert_videomae_v2 import remote_repository
from tests.hub_server import Failure
from tests.saved_model import save_tiny_classifier


@pytest.fixture
def repo(hub, tmp_path):
    """A repo with weights, and with code and a pickle that must never come here."""
    folder = save_tiny_classifier(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    traps = {"modeling_other.py": b"raise SystemExit('run')", "pytorch_model.bin": b"pickle"}
    hub.create("models", "owner/model", {**files, **traps})
    return hub


def test_only_weights_and_configuration_are_fetched(repo, tmp_path):
    folder = fetch_weights("owner/model")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert not any(name in request for request in repo.requests for name in ("modeling_other", "pytorch_model"))


def test_what_cannot_be_fetched_says_why(repo, hub):
    hub.create("models", "owner/empty", {"README.md": b""})
    for name, revision, words in (
        ("owner/none", None, "owner/none at main is not available"),
        ("owner/model", "no-such-branch", "at no-such-branch"),
        ("owner/empty", None, "has no complete safetensors"),
        ("a/b/c", None, "must be a Hub id"),
    ):
        with pytest.raises(ValueError, match=words):
            fetch_weights(name, revision)


@pytest.mark.parametrize("failure", [Failure(".*", cut=0), Failure(".*", status=503), Failure("GET .*safe", cut=99)])
def test_a_hub_that_is_not_well_is_a_connection_error(repo, failure):
    repo.failures.append(failure)
    with pytest.raises(ConnectionError, match="owner/model"):
        fetch_weights("owner/model")
    repo.failures.clear()
    whole = repo.files("owner/model")["model.safetensors"]
    assert (fetch_weights("owner/model") / "model.safetensors").read_bytes() == whole  # what was cut off is not taken


def test_repositories_of_today_convert_without_their_code(hub, tmp_path):
    (tmp_path / "theirs").mkdir()
    encoder = remote_repository(tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    hub.create("models", "Other/VideoMAEv2-Tiny", {**files, "modeling_videomaev2.py": b"raise SystemExit('run')"})
    words = ["--from-hub", "Other/VideoMAEv2-Tiny", "--model-type", "videomae_v2", "--task", "feature-extraction"]
    done = CliRunner().invoke(app, ["convert", *words, "--output", str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    ours = VideoMAEV2Model.from_pretrained(tmp_path / "ours").state_dict()
    theirs = encoder.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_convert_from_the_hub_needs_one_source(tmp_path):
    for words in (["--output", str(tmp_path / "new")], ["--checkpoint", "a", "--from-hub", "b/c", "--output", "d"]):
        done = CliRunner().invoke(app, ["convert", *words])
        assert done.exit_code == 2 and "--from-hub" in done.output


def test_a_published_file_of_the_hub_is_checked_by_its_hash(hub, tmp_path):
    content = bytes(range(256)) * 9000
    hub.create("models", "owner/zoo", {"sub/model.safetensors": content})
    file = PublishedFile(repository="owner/zoo", path="sub/model.safetensors")
    entry = PublishedCheckpoint("own", "uniformer", "small", "A test.", "pretraining", file)
    hub.failures.append(Failure("GET .*safetensors", cut=1000, times=1))
    with pytest.raises(ConnectionError):
        download_published(entry, tmp_path)
    done = download_published(entry, tmp_path)
    assert done.path == tmp_path / "model.safetensors" and done.path.read_bytes() == content
    assert done.checked == "size and SHA-256"
    gone = replace(entry, file=replace(file, path="sub/other.safetensors"))
    with pytest.raises(ValueError, match="no longer in owner/zoo"):
        download_published(gone, tmp_path)
