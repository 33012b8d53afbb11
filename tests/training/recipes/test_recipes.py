"""Recipes that come with the package: each can be read, says what it promises, and its model can be built."""

from pathlib import Path

import pytest
import torch

import hf_videovit.training
from hf_videovit import UniFormerForObjectDetection, UniFormerForPoseEstimation, VideoTemporalLocalizer
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import build_model, build_pretraining_model
from hf_videovit.training.methods.action_detection import build_detector
from hf_videovit.training.methods.choosing import choose
from hf_videovit.training.methods.image_classification import build_image_model
from hf_videovit.training.methods.semantic_segmentation import build_segmenter
from hf_videovit.training.methods.temporal_localization import FeatureFacts, build_localizer


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
OBJECT_MODELS = {"object_detection": UniFormerForObjectDetection, "pose": UniFormerForPoseEstimation}
PROMISES = {"reproduces", "hardware", "cost", "expected", "departures"}


def test_there_are_recipes():
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_says_what_it_promises(path):
    about = RunConfig.from_yaml(path).about
    assert about.keys() >= PROMISES
    assert all(str(about[name]).strip() for name in PROMISES)
    assert not str(about["expected"]).startswith("see ")  # a wheel has no pages


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_its_model_can_be_built(path):
    config = RunConfig.from_yaml(path)
    if config.model.checkpoint is not None:
        pytest.skip("starts from a checkpoint")
    config.model.needs_checkpoint = False  # its sizes are asked for, not its weights
    config.model.image_model = None
    kind = choose(config).name
    if kind == "temporal_localization":
        with torch.device("meta"):
            model, processor = build_localizer(config.model, ["a", "b"], FeatureFacts())
        assert (model.config.model_type, sum(model.config.feature_sizes)) == ("actionformer", processor.feature_size)
        return
    if kind == "end_to_end_localization":
        config.method["needs_encoder"] = False
        model_config, processor = choose(config)(config).describe()
        with torch.device("meta"):
            model = VideoTemporalLocalizer(model_config)
        assert model.encoder.config.hidden_size == processor.feature_size == model.localizer.config.feature_size
        return
    if kind == "semantic_segmentation":
        with torch.device("meta"):
            model, processor = build_segmenter(config.model, ["a", "b"], choose(config)(config).arguments)
        aligned = 32 if model.config.decode_head == "fpn" else 1
        assert (model.config.num_labels, processor.size_divisor, processor.do_reduce_labels) == (2, aligned, True)
        return
    if kind in ("object_detection", "pose"):
        model_config, processor = choose(config)(config).describe()
        with torch.device("meta"):
            model = OBJECT_MODELS[kind](model_config)
        assert model.main_input_name == "pixel_values" and processor.size
        return
    builders = {"image_classification": build_image_model, "action_detection": build_detector}
    builders["image_tokenizer"] = lambda arguments, _: build_pretraining_model(arguments)
    with torch.device("meta"):
        model, processor = builders.get(kind, build_model)(config.model, ["a", "b"])
    assert (
        model.config.model_type.partition("_image_codebook")[0] == path.parent.name
    )  # a tokenizer is beside its model
    assert processor.num_frames == (1 if kind == "image_classification" else model.config.num_frames)
