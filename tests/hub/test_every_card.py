"""Every card of `model_cards/`: metadata that the Hub takes, and usage lines that run when the model is on the Hub."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    metadata_load,
    metadata_save,
)
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from PIL import Image
from transformers import VitPoseImageProcessor

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    TemporalLocalizationProcessor,
    TubeViTImageProcessor,
    UniFormerDetectorConfig,
    UniFormerDetectorImageProcessor,
    UniFormerForObjectDetection,
    UniFormerForSemanticSegmentation,
    UniFormerImageProcessor,
    UniFormerSegmenterConfig,
    UniFormerSegmenterImageProcessor,
    VideoTemporalLocalizer,
    VideoTemporalLocalizerConfig,
)
from hf_videovit.hub.cards import (
    ACTIONS,
    AUTO_CLASSES,
    IMAGE_TASKS,
    KEYPOINTS,
    LOCALIZATION,
    render_published_card,
    write_model_card,
)
from hf_videovit.hub.publishing import publish
from hf_videovit.hub.space import write_space
from hf_videovit.inference.temporal_localization import save_localizer
from hf_videovit.published import OBJECTS, SEMANTICS, list_published, published_entry
from tests.card_rules import problems
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES, LABELS
from tests.hub_server import WRITER
from tests.saved_model import save_tiny_classifier


ROOT = Path(__file__).parents[2]
CARDS = sorted((ROOT / "model_cards").glob("*.md"), key=lambda path: path.stem)
IMAGE_PROCESSORS = {"uniformer": UniFormerImageProcessor, "tubevit": TubeViTImageProcessor}
FEATURE_SIZE = 8
SMALL = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
RUN = """
import contextlib, io, json, sys
printed = {}
for name, code in json.load(sys.stdin).items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    printed[name] = out.getvalue()
print(json.dumps(printed))
"""


def test_every_published_checkpoint_has_a_card():
    assert [path.stem for path in CARDS] == sorted(list_published())


def test_the_hub_takes_the_metadata_of_every_card(hub):
    """By `huggingface_hub`'s own `validate`, which asks the Hub."""
    for path in CARDS:
        ModelCard.load(path).validate()
    assert hub.requests == ["POST /api/validate-yaml"] * len(CARDS)


def test_metadata_survives_reading_and_writing(tmp_path):
    for path in CARDS:
        metadata = metadata_load(path)
        card = ModelCard.load(path)
        assert card.data.to_dict() == metadata, path.name
        assert ModelCardData(**metadata).to_dict() == metadata, path.name
        copy = tmp_path / path.name
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        metadata_save(copy, metadata)
        assert metadata_load(copy) == metadata and ModelCard.load(copy).text == card.text, path.name
        if "model-index" in metadata:
            name, results = model_index_to_eval_results(metadata["model-index"])
            assert name == path.stem and eval_results_to_model_index(name, results) == metadata["model-index"]
            assert card.data.eval_results == results and all(isinstance(result, EvalResult) for result in results)
            assert all(0 < result.metric_value <= 100 for result in results), path.name


def test_cards_of_trained_models_and_spaces_are_taken_too(hub, tmp_path):
    folder = save_tiny_classifier(tmp_path / "squares")
    results = {"metrics": {"top1": 0.5}, "data": "hf://datasets/me/Clips of mine", "num_videos": 4}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "run.yaml").write_text(yaml.safe_dump({"model": {"checkpoint": "org/base-model"}}))
    ModelCard.load(write_model_card(folder, licence="cc-by-nc-4.0", datasets=["me/clips"])).validate()
    write_space(tmp_path / "space", "me/squares", licence="mit")
    ModelCard.load(tmp_path / "space" / "README.md").validate(repo_type="space")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"license": "do what you like"}, '"license" must be one of the list'),
        ({"license": "other"}, 'needs "license_name"'),
        ({"tags": "video"}, '"tags" must be a list of words'),
        ({"datasets": ["Kinetics 400"]}, '"datasets" has no id'),
        ({"base_model": "a/b/c"}, '"base_model" has no id'),
        ({"pipeline_tag": "watching"}, '"pipeline_tag" must be one of the list'),
        ({"model-index": [{"name": "x"}]}, 'needs "results"'),
        ({"model-index": [{"name": "x", "results": [{"task": {"type": "watching"}}]}]}, '"dataset" needs "type"'),
    ],
)
def test_what_the_hub_would_refuse_is_found(hub, change, words):
    """The check itself can fail, also where a card is about to be published."""
    text = f"---\n{yaml.safe_dump({**metadata_load(CARDS[0]), **change})}---\n# Model\n"
    assert any(words in problem for problem in problems(text))
    operations = [CommitOperationAdd("README.md", text.encode())]
    hub.create("models", "org/model")
    with pytest.raises(ValueError, match=re.escape(words)):
        HfApi(token=WRITER).create_commit("org/model", operations, commit_message="card")
    assert not hub.files("org/model")


def usage(text: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return code


def shapes() -> dict[tuple[str, str, str], list[str]]:
    """The cards by family, task and usage lines, apart from the model's name."""
    found = defaultdict(list)
    for path in CARDS:
        entry, code = published_entry(path.stem), usage(path.read_text(encoding="utf-8"))
        assert f'"{path.stem}"' in code
        found[entry.model_type, entry.task, code.replace(f'"{path.stem}"', '"NAME"')].append(path.stem)
    return dict(found)


def save_tiny(folder: Path, model_type: str, task: str) -> None:
    """A tiny model of a family for a task, with its processor and the official one's card."""
    card = (ROOT / "model_cards" / f"{folder.name}.md").read_text(encoding="utf-8")
    if task == LOCALIZATION:
        save_tiny_localizer(folder, with_encoder=model_type != "actionformer")
        (folder / "README.md").write_text(card, encoding="utf-8")
        return
    if task in (OBJECTS, SEMANTICS):
        save_tiny_dense(folder, task)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return
    family = next(one for one in FAMILIES if one.name == model_type)
    head = family.head(AUTO_CLASSES[task])
    fields = {**head.fields, "id2label": {0: "left_eye", 1: "right_eye"}} if task == KEYPOINTS else head.fields
    head.model_class(family.config(**fields)).save_pretrained(folder)
    if task == KEYPOINTS:
        VitPoseImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    elif task in IMAGE_TASKS:
        IMAGE_PROCESSORS[model_type](**SMALL).save_pretrained(folder)
    elif task == ACTIONS:
        family.processor_class(**{**family.processor, "do_center_crop": False}).save_pretrained(folder)
    else:
        family.processor_class(**family.processor).save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def save_tiny_dense(folder: Path, task: str) -> None:
    """A detector that is sure of what it finds, or a segmenter."""
    backbone = {"modality": "image", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "head_dim": 8}
    small = {
        "backbone_config": {"model_type": "uniformer", "out_indices": [1, 2, 3, 4], **backbone},
        "id2label": dict(enumerate(LABELS)),
    }
    if task == OBJECTS:
        model = UniFormerForObjectDetection(
            UniFormerDetectorConfig(**small, pyramid_size=8, box_hidden_size=8, num_proposals=8)
        )
        torch.nn.init.constant_(model.heads.box_heads[0].classifier.bias[:1], 9.0)
        processor = UniFormerDetectorImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    else:
        model = UniFormerForSemanticSegmentation(UniFormerSegmenterConfig(**small, hidden_size=8))
        processor = UniFormerSegmenterImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_tiny_localizer(folder: Path, with_encoder: bool) -> None:
    """A localiser that finds something everywhere, for features or with an encoder."""
    family = next(one for one in FAMILIES if one.name == "videomae_v2")
    encoder = family.config()
    config = ActionFormerConfig(
        feature_size=encoder.hidden_size if with_encoder else FEATURE_SIZE,
        hidden_size=16,
        head_hidden_size=16,
        num_branch_layers=1,
        classifier_prior=0.5,
        num_labels=3,
    )
    localizer = model = ActionFormerForTemporalActionLocalization(config)
    video_processor = None
    if with_encoder:
        whole = VideoTemporalLocalizerConfig(encoder_config=encoder, localizer_config=config, feature_stride=2)
        model, video_processor = VideoTemporalLocalizer(whole), family.processor_class(**family.processor)
        localizer = model.localizer
    torch.nn.init.ones_(localizer.offset_head.offsets.bias)  # segments have a length, whatever the features
    processor = TemporalLocalizationProcessor(
        feature_size=config.feature_size, feature_stride=2, feature_window=encoder.num_frames, max_segments=3
    )
    save_localizer(folder, model, processor, video_processor)


def run_usage(hub, codes: dict[str, str], home: Path) -> dict[str, str]:
    """What the usage lines print in a new process that knows this Hub only, beside a clip and an image."""
    write_clip(home / "clip.mp4", moving_square_clip(height=96, width=128, num_frames=20), fps=10)
    write_clip(home / "film.mp4", moving_square_clip(height=96, width=128, num_frames=40), fps=10)
    np.save(home / "film.npy", np.random.default_rng(0).standard_normal((30, FEATURE_SIZE), np.float32))
    Image.fromarray(moving_square_clip()[0]).save(home / "image.jpg")
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    known |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "home"), "HF_HUB_DISABLE_XET": "1"}
    known |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(codes), capture_output=True, text=True, env=known, cwd=home
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_usage_lines_of_every_card_run(hub, tmp_path):
    """
    Of each family and task one card is published with a tiny model, and the lines of the card that the Hub then shows
    are run; the others of its kind have the same lines but for the name.
    """
    kinds, codes = shapes(), {}
    for (model_type, task, lines), names in kinds.items():
        name = names[0]
        save_tiny(tmp_path / name, model_type, task)
        publish(tmp_path / name, f"org/{name}", token=WRITER)
        codes[name] = usage(hub.files(f"org/{name}")["README.md"].decode())
        for other in names:
            there = usage(str(render_published_card(other, model_id=f"org/{other}")))
            assert there == lines.replace('"NAME"', f'"org/{other}"')
        assert codes[name] == lines.replace('"NAME"', f'"org/{name}"')
    assert sorted(name for names in kinds.values() for name in names) == [path.stem for path in CARDS]

    printed = run_usage(hub, codes, tmp_path)
    assert printed.keys() == {names[0] for names in kinds.values()}
    for (_, task, _), names in kinds.items():
        text = printed[names[0]]
        if task.endswith("classification"):
            assert re.fullmatch(r"(\d\.\d{3} \w+\n){3}", text) and sum(label in text for label in LABELS) == 3
        elif task == OBJECTS:
            assert re.search(rf"^[01]\.\d{{3}} {LABELS[0]} {{'xmin': \d+", text), text
        elif task == SEMANTICS:
            assert re.fullmatch(r"(\w+ \(\d+, \d+\)\n)+", text), text
        elif task == ACTIONS:
            assert re.fullmatch(r"1\.0 \[\[.*\]\]\n", text), text
        elif task == KEYPOINTS:
            assert "keypoints" in text and "scores" in text, text
        elif task == LOCALIZATION:
            assert len(text.splitlines()) == 3 and "LABEL_" in text, text
        else:
            assert "torch.Size([1, " in text, names[0]
    downloads = {request.split("/resolve/")[0] for request in hub.requests if "GET /org/" in request}
    assert downloads == {f"GET /org/{names[0]}" for names in kinds.values()}
