"""Publishing and loading against a Hub on this machine, by processes of their own: the endpoint is read at import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from hf_videovit.hub.asking import PublishingError
from hf_videovit.hub.cards import is_rendered, seal_card
from hf_videovit.hub.publishing import (
    check_access,
    eval_entries,
    finish_run,
    public_results,
    publish,
    stage,
    weight_files,
)
from hf_videovit.training.arguments import RunArguments
from tests.clips import moving_square_clip, write_clip
from tests.hub_server import READER, WRITER, Failure
from tests.saved_model import save_tiny_classifier


ROOT = Path(__file__).parents[2]
PUBLISH = """
import json, sys
from hf_videovit.hub.asking import PublishingError
from hf_videovit.hub.publishing import publish
folder, options = json.loads(sys.argv[1])
try:
    done = publish(folder, "owner/model", **options)
    print(json.dumps({"url": done.url, "files": [file.path for file in done.files], "deleted": list(done.deleted)}))
except (PublishingError, ValueError) as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__}))
"""
LOAD = """
import json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
package, video, options = json.loads(sys.argv[1])
if package:
    import hf_videovit
else:
    options["trust_remote_code"] = True
    sys.modules["hf_videovit"] = None
answer = pipeline("video-classification", model="owner/model", **options)(video, top_k=3)
model = AutoModelForVideoClassification.from_pretrained("owner/model", **options)
processor = AutoVideoProcessor.from_pretrained("owner/model", **options)
AutoModel.from_pretrained("owner/model", **options)
with torch.no_grad():
    logits = model(**processor(video, return_tensors="pt")).logits
file = sys.modules[type(model).__module__].__file__
print(json.dumps({"answer": answer, "logits": logits.double().tolist(), "file": file}))
"""


def run(hub, script, arguments, home, token=WRITER, expect=0, **environment):
    """What a script prints as JSON in its last line, in a process that knows only this Hub."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    known |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    known |= {"PYTHONPATH": str(ROOT), "HF_HUB_DOWNLOAD_TIMEOUT": "5", **environment}
    if token:
        known["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)], capture_output=True, text=True, env=known, cwd=home
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) if expect == 0 else done.stderr


def send(folder, token=WRITER, **options):
    return publish(folder, "owner/model", token=token, **options)


@pytest.fixture
def folder(tmp_path):
    path = save_tiny_classifier(tmp_path / "trained")
    clips = str(tmp_path / "private" / "clips")
    results = {"data": clips, "split": "val", "num_videos": 8, "metrics": {"top1": 0.5}}
    results |= {"protocol": {"num_clips": 1}, "environment": {"command": f"evaluate.py --data {clips}"}}
    (path / "results.json").write_text(json.dumps(results))
    (path / "optimizer.bin").write_bytes(b"not for others")
    return path


def test_staged_folder_holds_what_a_repo_needs_and_nothing_of_this_machine(folder, tmp_path):
    files = {file.path: file for file in stage(folder, tmp_path / "empty_not_there_yet", "owner/model")}
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "results.json",
        "video_preprocessor_config.json",
    }
    texts = [file.source.read_text() for name, file in files.items() if name.endswith(("json", "md"))]
    assert not any("private" in text or str(tmp_path) in text for text in texts)
    assert json.loads(files["results.json"].source.read_text())["environment"]["command"] == "evaluate.py --data clips"
    assert 'model="owner/model"' in files["README.md"].source.read_text()


def test_a_folder_that_is_no_whole_model_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        publish(tmp_path, "owner/model", dry_run=True)
    with pytest.raises(ValueError, match="`repo_id` must be a Hub id"):
        publish(folder, "owner/model/more", dry_run=True)
    with pytest.raises(ValueError, match="`max_shard_size` must be a number with a unit"):
        publish(folder, "owner/model", max_shard_size="much", dry_run=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no model.safetensors"):
        publish(folder, "owner/model", dry_run=True)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks the shards model-00001-of-00002.safetensors"):
        weight_files(folder)


def test_large_weights_are_divided(folder, tmp_path):
    files = {file.path: file for file in stage(folder, tmp_path / "staged", "owner/model", max_shard_size="40kB")}
    shards = [file for path, file in files.items() if path.startswith("model-")]
    assert len(shards) > 1 and "model.safetensors" not in files
    parts = {name: tensor for shard in shards for name, tensor in load_file(shard.source).items()}
    whole = load_file(folder / "model.safetensors")
    assert parts.keys() == whole.keys() and all(torch.equal(parts[name], whole[name]) for name in whole)


def test_results_name_no_folder_of_this_machine():
    public = public_results(
        {
            "command": "evaluate.py --data /data/my/clips --model hf://owner/model",
            "failed": [{"id": "a/b.mp4", "reason": "/data/my/clips/a/b.mp4 is empty"}],
            "value": 0.5,
        }
    )
    assert public["command"] == "evaluate.py --data clips --model hf://owner/model"
    assert public["failed"] == [{"id": "a/b.mp4", "reason": "b.mp4 is empty"}]


def test_only_results_on_data_of_the_hub_become_evaluation_entries():
    results = {
        "metrics": {"top1": 0.75},
        "num_videos": 8,
        "split": "test",
        "protocol": {"num_clips": 2, "num_crops": 3},
    }
    (entry,) = eval_entries({**results, "data": f"hf://datasets/owner/clips@{'a' * 40}"})
    assert (entry.dataset_id, entry.task_id, entry.value, entry.dataset_revision) == (
        "owner/clips",
        "top1",
        75.0,
        "a" * 40,
    )
    assert entry.notes == "8 videos of test, 2 clips x 3 crops"
    assert eval_entries({**results, "data": "clips"}) == []


def test_a_seal_is_broken_by_any_edit():
    card = seal_card("# Model\n\ntext\n")
    assert is_rendered(card) and is_rendered(seal_card(card)) and is_rendered(card.replace("\n", "\r\n"))
    assert not is_rendered(card.replace("text", "Text")) and not is_rendered(card + "more\n")
    assert not is_rendered("# Model\n")


def test_from_a_folder_to_the_pipeline_through_the_hub(hub, folder, tmp_path):
    """With and without the package: the same logits to the last bit."""
    video = str(write_clip(tmp_path / "clip.mp4", moving_square_clip("right")))
    sent = send(folder, with_code=True)
    repo = hub.repos["models", "owner/model"]
    assert [commit.title for commit in repo.commits.values()] == ["initial commit", "Publish with hf_videovit"]
    paths = [file.path for file in sent.files]
    assert sorted(paths) == sorted(hub.files("owner/model"))
    assert "modeling_videomae_v2.py" in paths and "optimizer.bin" not in paths

    model = AutoModelForVideoClassification.from_pretrained(folder)
    processor = AutoVideoProcessor.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**processor(video, return_tensors="pt")).logits.double().tolist()
    answer = pipeline("video-classification", model=str(folder))(video, top_k=3)
    for package in (True, False):
        there = run(hub, LOAD, [package, video, {}], tmp_path)
        assert there["logits"] == logits and there["answer"] == answer
        assert ("transformers_modules" in there["file"]) != package
    hub.failures.append(Failure(".*", status=503))
    assert run(hub, LOAD, [False, video, {}], tmp_path, HF_HUB_OFFLINE="1")["logits"] == logits


def test_branches_pull_requests_and_private_repos(hub, folder, tmp_path):
    send(folder, private=True, revision="v2")
    repo = hub.repos["models", "owner/model"]
    assert repo.private and "config.json" in hub.files("owner/model", "v2") and not hub.files("owner/model", "main")
    done = send(folder, create_pr=True)
    assert done.url.endswith("/discussions/1") and not hub.files("owner/model", "main")
    assert "model.safetensors" in hub.files("owner/model", "refs/pr/1")
    with pytest.raises(RepositoryNotFoundError, match="owner/model"):
        hf_hub_download("owner/model", "config.json", revision="v2", token=False)
    config = hf_hub_download("owner/model", "config.json", revision="v2", token=READER)
    assert Path(config).read_bytes() == (folder / "config.json").read_bytes()


def test_weights_of_another_shape_do_not_stay_behind(hub, folder, tmp_path):
    send(folder, max_shard_size="40kB")
    assert "model.safetensors.index.json" in hub.files("owner/model")
    done = send(folder)
    files = hub.files("owner/model")
    assert [path for path in files if "safetensors" in path] == ["model.safetensors"] and len(done.deleted) > 2


def test_a_card_that_a_person_edited_is_not_overwritten(hub, folder, tmp_path):
    send(folder)
    send(folder)  # as it was rendered: replaced
    files = dict(hub.files("owner/model"))
    files["README.md"] += b"\nDo not use this on Sundays.\n"
    hub.repos["models", "owner/model"].add("main", "edit", files)
    with pytest.raises(ValueError, match="edited on the Hub"):
        send(folder)
    assert hub.files("owner/model") == files
    send(folder, overwrite_card=True)
    assert b"Sundays" not in hub.files("owner/model")["README.md"]


@pytest.mark.parametrize(
    ("failure", "token", "words"),
    [
        (None, False, "no valid token"),
        (None, "hf_wrong", "no valid token"),
        (None, READER, "no write access"),
        (Failure("commit/main", status=412), WRITER, "another commit was made"),
        (Failure("commit/main", status=500), WRITER, r"server error \(500\)"),
        (Failure("PUT /_large", status=403), WRITER, "no write access"),
        (Failure("HEAD .*README.md", status=500), WRITER, "could not be reached"),
        (Failure("commit/main", cut=0), WRITER, "connection to the Hub failed"),
    ],
)
def test_refusals_say_why_and_leave_the_repo_as_it_was(hub, folder, tmp_path, failure, token, words):
    if failure is not None:
        files = {"config.json": b"{}", "README.md": b""}
        hub.create("models", "owner/model", files)
        hub.failures.append(failure)
    with pytest.raises(PublishingError, match=words):
        send(folder, token=token)
    if failure is not None:
        assert hub.files("owner/model") == files
        hub.failures.clear()
        send(folder)
        assert "model.safetensors" in hub.files("owner/model")


def test_a_finished_run_is_published_and_its_token_asked_for_first(hub, folder, monkeypatch):
    run = RunArguments(push_to_hub="owner/model", hub_private=True)
    for token in ("", "hf_wrong"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(PublishingError, match="no valid token"):
            check_access("owner/model")
    monkeypatch.setenv("HF_TOKEN", WRITER)
    check_access("owner/model")
    done = finish_run(folder, run, {"steps": 12})
    assert done.url.endswith(done.commit) and hub.repos["models", "owner/model"].private
    card = hub.files("owner/model")["README.md"].decode()
    assert 'model="owner/model"' in card and "| optimiser steps done | 12 |" in card
    assert finish_run(folder, RunArguments(), {}) is None


def test_an_interrupted_upload_goes_on_with_what_is_missing(hub, folder, tmp_path):
    hub.failures.append(Failure("PUT /_large", cut=0, skip=2))
    with pytest.raises(PublishingError, match="run the same command again"):
        send(folder, max_shard_size="30kB")
    assert not hub.files("owner/model")
    there = set(hub.large)
    assert there
    hub.failures.clear()
    hub.requests.clear()
    send(folder, max_shard_size="30kB")
    sent_again = {request.rpartition("/")[2] for request in hub.requests if request.startswith("PUT /_large")}
    assert sent_again and not sent_again & there
    assert "model.safetensors.index.json" in hub.files("owner/model")


def test_the_token_stands_in_no_log_and_no_file(hub, folder, tmp_path):
    canary = "hf_canary" + "x" * 20
    script = "import logging; logging.basicConfig(level=0)\n" + PUBLISH
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "HF_TOKEN": canary, "HF_HUB_VERBOSITY": "debug", "HF_DEBUG": "1"}
    environment |= {"TRANSFORMERS_VERBOSITY": "debug"}
    words = [sys.executable, "-c", script, json.dumps([str(folder), {}])]
    for failing in (False, True):
        if failing:
            hub.failures.append(Failure("create", status=500))
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert "PublishingError" in done.stdout and canary not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert not written
