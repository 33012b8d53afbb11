"""Every family's code travels: a process that cannot import the package loads the models and answers alike."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_videovit.hub.remote_code import MANIFEST, package_revision, write_remote_code
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES


LOAD = """
import json, sys
sys.modules["hf_videovit"] = None
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
video, folders = json.loads(sys.argv[1])
logits = []
for folder in folders:
    model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True)
    inputs = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)(video, return_tensors="pt")
    with torch.no_grad():
        logits.append(model(**inputs).logits.double().tolist())
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(folder + "-again")
print(json.dumps(logits))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny classifier of every family with its processor and its code."""
    base, paths = tmp_path_factory.mktemp("repos"), []
    for family in FAMILIES:
        folder = base / family.name
        torch.manual_seed(0)
        model = AutoModelForVideoClassification.from_config(family.config()).eval()
        model.save_pretrained(folder)
        family.processor_class(**family.processor).save_pretrained(folder)
        write_remote_code(folder)
        paths.append(folder)
    return paths


@pytest.mark.slow
def test_every_family_answers_alike_without_the_package(folders, tmp_path):
    video = str(write_clip(tmp_path / "clip.mp4", moving_square_clip()))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", LOAD, json.dumps([video, [str(folder) for folder in folders]])]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.set_num_threads(1)
    for folder, there in zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True):
        inputs = AutoVideoProcessor.from_pretrained(folder)(video, return_tensors="pt")
        with torch.no_grad():
            here = AutoModelForVideoClassification.from_pretrained(folder)(**inputs).logits.double().tolist()
        assert here == there, folder.name
        assert (folder.with_name(f"{folder.name}-again") / "config.json").is_file()


def test_manifest_names_every_file_with_its_hash(folders):
    folder = folders[0]
    named = json.loads((folder / MANIFEST).read_text())
    assert named["package"] == "hf_videovit" and named["version"]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.py")}
    assert named["files"] == hashes


def test_revision_is_that_of_the_checkout_or_none():
    revision = package_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) == 40


def test_models_of_others_have_no_code_here(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        write_remote_code(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="has a model of type 'bert', must be one of"):
        write_remote_code(tmp_path)
