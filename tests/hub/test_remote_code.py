"""Every family's code travels: a process that cannot import the package loads the models and answers alike."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_videovit import (
    AutoModelForActionDetection,
    UniFormerDetectorImageProcessor,
    UniFormerSegmenterImageProcessor,
)
from hf_videovit.hub.remote_code import MANIFEST, package_revision, write_remote_code
from hf_videovit.inference.temporal_localization import load_localizer
from tests.clips import moving_square_clip, write_clip
from tests.dense.test_whole_detectors import tiny_detector
from tests.dense.test_whole_segmenters import tiny_segmenter
from tests.families import FAMILIES
from tests.saved_model import save_tiny_localizer


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

# A detector comes by `AutoModel`: stock transformers has no auto class for the task.
DETECT = """
import json, sys
sys.modules["hf_videovit"] = None
import torch
from transformers import AutoModel, AutoVideoProcessor
video, boxes, folders = json.loads(sys.argv[1])
answers = []
for folder in folders:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = processor(video, key_frame=0.2, boxes=[boxes], return_tensors="pt")
    inputs.pop("kept_boxes")
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        outputs = model(**inputs)
    (answer,) = processor.post_process_action_detection(outputs, {**inputs, "original_sizes": sizes}, threshold=0.0)
    answers.append([type(model).__name__, outputs.logits.double().tolist(), answer["boxes"].tolist()])
    model.save_pretrained(folder + "-again")
print(json.dumps(answers))
"""
# So does a localiser. Frames are made features by the encoder in the repo.
LOCALIZE = """
import json, sys
sys.modules["hf_videovit"] = None
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoVideoProcessor
video, folders = json.loads(sys.argv[1])
answers = []
for folder in folders:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    if hasattr(model, "encode"):
        frames = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
        pixels = frames(video, num_frames=20, frame_stride=1, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            features = model.encode(pixels)[0]
    else:
        features = torch.arange(20.0 * processor.feature_size).sin().view(20, -1)
    with torch.no_grad():
        outputs = getattr(model, "localizer", model)(**processor(features))
    (found,) = processor.post_process_temporal_localization(outputs, [(25.0, 1.0)])
    answers.append([type(model).__name__, outputs.logits.double().tolist(), found["segments"].tolist()])
    model.save_pretrained(folder + "-again")
print(json.dumps(answers))
"""
BOXES = [[4, 4, 20, 30], [30, 8, 50, 36]]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """A tiny detector of every family with its processor and its code."""
    base, paths = tmp_path_factory.mktemp("detectors"), []
    for family in FAMILIES:
        folder = base / family.name
        torch.manual_seed(0)
        head = family.head(AutoModelForActionDetection)
        model = AutoModelForActionDetection.from_config(family.config(**head.fields)).eval()
        torch.nn.init.normal_(model.action_head.classifier.weight)
        model.save_pretrained(folder)
        fields = {**family.processor, "do_center_crop": False, "pad_multiple": 32}
        family.processor_class(**fields).save_pretrained(folder)
        write_remote_code(folder)
        paths.append(folder)
    return paths


def run_without_package(script, arguments, home):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, json.dumps(arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_detector_answers_alike_without_the_package(detectors, tmp_path):
    clip = moving_square_clip(height=40, width=56, num_frames=20)
    video = str(write_clip(tmp_path / "clip.mp4", clip))
    there = run_without_package(DETECT, [video, BOXES, [str(folder) for folder in detectors]], tmp_path)
    torch.set_num_threads(1)
    for folder, (name, logits, boxes) in zip(detectors, there, strict=True):
        model = AutoModelForActionDetection.from_pretrained(folder)
        inputs = AutoVideoProcessor.from_pretrained(folder)(video, key_frame=0.2, boxes=[BOXES], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**{key: inputs[key] for key in ("pixel_values", "boxes", "box_mask", "sizes")})
        assert name == type(model).__name__ == json.loads((folder / "config.json").read_text())["architectures"][0]
        assert outputs.logits.double().tolist() == logits, folder.name
        assert boxes == [pytest.approx(box, abs=1e-3) for box in BOXES]
        assert (folder.with_name(f"{folder.name}-again") / "config.json").is_file()


def test_only_a_detector_is_what_auto_model_loads(folders, detectors):
    for folder, detector in zip(folders, detectors):
        mapped, of_detector = (json.loads((one / "config.json").read_text())["auto_map"] for one in (folder, detector))
        assert of_detector["AutoModel"] == of_detector["AutoModelForActionDetection"]
        assert of_detector | {"AutoModel": mapped["AutoModel"]} == mapped
        assert mapped["AutoModel"].endswith("Model")


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
def test_localisers_answer_alike_without_the_package(tmp_path):
    whole = save_tiny_localizer(tmp_path / "whole")
    parts, features = load_localizer(whole), tmp_path / "features"
    parts["model"].localizer.save_pretrained(features)
    parts["feature_extractor"].save_pretrained(features)
    write_remote_code(whole), write_remote_code(features)
    auto_map = json.loads((whole / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_video_temporal_localizer.VideoTemporalLocalizer"
    clip = moving_square_clip(height=40, width=56, num_frames=20)
    video = str(write_clip(tmp_path / "clip.mp4", clip))
    there = run_without_package(LOCALIZE, [video, [str(whole), str(features)]], tmp_path)
    torch.set_num_threads(1)
    pixels = parts["video_processor"](video, num_frames=20, frame_stride=1, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        of_video = parts["model"].encode(pixels)[0]
        for (name, logits, segments), given in zip(there, (of_video, torch.arange(640.0).sin().view(20, -1))):
            outputs = parts["model"].localizer(**parts["feature_extractor"](given))
            torch.testing.assert_close(torch.tensor(logits), outputs.logits, check_dtype=False)
            assert len(segments) > 0 and name in (
                "VideoTemporalLocalizer",
                "ActionFormerForTemporalActionLocalization",
            )


@pytest.mark.slow
def test_every_family_answers_alike_without_the_package(folders, tmp_path):
    video = str(write_clip(tmp_path / "clip.mp4", moving_square_clip()))
    answers = run_without_package(LOAD, [video, [str(folder) for folder in folders]], tmp_path)
    torch.set_num_threads(1)
    for folder, there in zip(folders, answers, strict=True):
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


# Models of images, each by its own auto class.
DENSE = """
import json, sys
sys.modules["hf_videovit"] = None
import torch
import transformers
pixels, places = json.loads(sys.argv[1])
answers = []
for auto, folder, name in places:
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
    transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        answers.append(model(torch.tensor(pixels))[name].double().tolist())
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_detectors_and_segmenters_answer_alike_without_the_package(tmp_path):
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 32, 64)
    detector = (tiny_detector(), UniFormerDetectorImageProcessor(), "AutoModelForObjectDetection", "pred_boxes")
    segmenter = (tiny_segmenter(), UniFormerSegmenterImageProcessor(), "AutoModelForSemanticSegmentation", "logits")
    places, here = [], []
    for model, processor, auto, name in (detector, segmenter):
        folder = tmp_path / name
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_remote_code(folder)
        places.append([auto, str(folder), name])
        with torch.no_grad():
            here.append(model.eval()(pixels)[name].double().tolist())
    for there, wanted in zip(run_without_package(DENSE, [pixels.tolist(), places], tmp_path), here, strict=True):
        torch.testing.assert_close(torch.tensor(there), torch.tensor(wanted))
