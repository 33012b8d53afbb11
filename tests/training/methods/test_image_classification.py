"""Image classifiers through the training loop; token labelling with MixToken."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, pipeline

from hf_videovit import (
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerForVideoClassification,
)
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.methods.image_classification import build_image_model
from hf_videovit.training.optimization import layer_ids
from hf_videovit.training.planning import plan_run
from hf_videovit.training.tasks import ClassificationTask, TokenLabelTask
from hf_videovit.training.tasks.token_labels import random_box
from tests.families import FAMILIES


TINY = next(family.tiny for family in FAMILIES if family.name == "uniformer") | {"modality": "image"}
TOKEN_LABELS = {"use_auxiliary_head": True}
LIGHT = {"use_token_pruning": True, "stem": "conv_first"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """`{train,val}/{dark,light}/N.png`: 4 and 2 images of each of two classes, 48 x 40."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 4), ("val", 2)):
        for name, level in (("dark", 60), ("light", 200)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (48, 40), (level, level - 5 * index, level)).save(folder / f"{index}.png")
    return root


def run_fields(images, output_dir, **fields) -> dict:
    defaults = {
        "model_type": "uniformer",
        "config": TINY | {"image_size": 32} | fields.pop("config", {}),
        "data": str(images),
        "output_dir": str(output_dir),
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 1,
        "batch_size": 4,
    }
    return defaults | fields


def run(images, output_dir, **fields):
    return finetune(RunConfig.from_fields(**run_fields(images, output_dir, **fields)))


@pytest.mark.parametrize("options", [{}, TOKEN_LABELS, LIGHT])
def test_an_image_classifier_is_trained_and_answers(images, tmp_path, options):
    mixed = {} if options == TOKEN_LABELS else {"mixup": 0.8, "cutmix": 1.0}
    result = run(images, tmp_path / "model", config=options, random_erasing=0.25, **mixed)
    assert isinstance(result.model, UniFormerForImageClassification)
    assert result.facts["label_names"] == ["dark", "light"]
    assert result.evaluation.metrics["top1"] is not None
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert processor.crop_size["height"] == 32 and processor.size["shortest_edge"] == 36
    answers = pipeline("image-classification", model=str(tmp_path / "model"))(str(images / "val" / "dark" / "0.png"))
    assert {answer["label"] for answer in answers} == {"dark", "light"}


def test_a_checkpoint_keeps_its_head_where_the_labels_are_the_same(tmp_path):
    config = UniFormerConfig(**TINY, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    model = UniFormerForImageClassification(config)
    model.save_pretrained(tmp_path)
    arguments = ModelArguments(checkpoint=str(tmp_path))
    kept, _ = build_image_model(arguments, ["a", "b"])
    assert torch.equal(kept.classifier.weight, model.classifier.weight)
    for names in (["b", "a"], ["a", "b", "c"]):
        renewed, _ = build_image_model(arguments, names)
        assert renewed.config.num_labels == len(names)
        assert not torch.equal(renewed.classifier.weight[:2], model.classifier.weight)
        ours, theirs = (one.uniformer.state_dict() for one in (renewed, model))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_layers_are_frozen_and_attention_is_chosen(tmp_path):
    arguments = ModelArguments(model_type="uniformer", config=TINY, frozen_layers=1, attn_implementation="eager")
    scratch, _ = build_image_model(arguments, ["a", "b"])
    scratch.save_pretrained(tmp_path)
    loaded, _ = build_image_model(replace(arguments, checkpoint=str(tmp_path), config={}), ["a", "b"])
    for model in (scratch, loaded):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, depth in layer_ids(model).items() if depth > 1} == trained
        assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="`frozen_layers` must be at most"):
        build_image_model(replace(arguments, frozen_layers=99), ["a", "b"])


def test_a_checkpoint_of_videos_is_refused(tmp_path):
    UniFormerForVideoClassification(UniFormerConfig(**TINY | {"modality": "video"})).save_pretrained(tmp_path)
    arguments = ModelArguments(checkpoint=str(tmp_path), config={"modality": "image"})
    with pytest.raises(ValueError, match="`checkpoint` .* lacks uniformer.* of UniFormerForImageClassification"):
        build_image_model(arguments, ["a", "b"])


def test_token_labelling_is_the_loop_of_its_documentation():
    torch.manual_seed(0)
    model = UniFormerForImageClassification(UniFormerConfig(**TINY, **TOKEN_LABELS, num_labels=3)).train()
    task = TokenLabelTask(model, label_smoothing=0.1)
    batch = {"pixel_values": torch.randn(4, 3, 64, 64), "labels": torch.tensor([0, 1, 2, 2])}
    batch["token_labels"] = torch.randn(4, 4, 3).softmax(-1)
    torch.manual_seed(2)
    result = task(batch)
    torch.manual_seed(2)
    torch.rand(())  # whether the batch is mixed at all
    top, left, bottom, right = box = random_box(16, 16)
    outputs = model(batch["pixel_values"], mix_box=box)
    share = (bottom // 8 - top // 8) * (right // 8 - left // 8) / 4
    soft = F.one_hot(batch["labels"], 3) * 0.9 + 0.1 / 3
    total = 0.0
    for index in range(4):
        target = (1 - share) * soft[index] + share * soft[3 - index]
        total -= (target * outputs.logits[index].log_softmax(-1)).sum() / 4
        for token in range(4):
            logits = outputs.token_logits[index, token].log_softmax(-1)
            total -= (batch["token_labels"][index, token] * logits).sum() / 16
    torch.testing.assert_close(result["loss"], total, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="`use_auxiliary_head=True`"):
        TokenLabelTask(UniFormerForImageClassification(UniFormerConfig(**TINY)))


def test_boxes_are_uniform_in_share_and_lie_on_the_map():
    torch.manual_seed(0)
    boxes = [random_box(14, 10) for _ in range(200)]
    for top, left, bottom, right in boxes:
        assert 0 <= top <= bottom <= 14 and 0 <= left <= right <= 10
    areas = torch.tensor([(bottom - top) * (right - left) / 140 for top, left, bottom, right in boxes])
    assert areas.min() == 0 and 0.2 < areas.mean() < 0.45  # half, less what is cut off at the edges


def test_light_video_models_learn_from_their_class_token():
    torch.manual_seed(0)
    fields = {**TINY, **LIGHT, "modality": "video", "image_size": 32, "num_labels": 3}
    model = UniFormerForVideoClassification(UniFormerConfig(**fields)).train()
    batch = {"pixel_values": torch.randn(2, 4, 3, 32, 32), "labels": torch.tensor([0, 2])}
    loss = ClassificationTask(model)(batch)["loss"]
    torch.testing.assert_close(loss, model(**batch).loss, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert model.class_classifier.weight.grad is not None


def test_a_run_on_images_can_be_planned(images):
    fields = {"model_type": "uniformer", "config": TINY | TOKEN_LABELS, "data": str(images), "cpu": True}
    plan = plan_run(RunConfig.from_fields(**fields, batch_size=4, epochs=3))
    assert (plan.num_videos, plan.total_steps) == (8, 6)
