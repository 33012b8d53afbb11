"""Dense labels by a teacher: written by the command, read by training, and what is refused."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
from typer.testing import CliRunner

from hf_videovit import (
    TubeViTConfig,
    TubeViTForImageClassification,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerImageProcessor,
)
from hf_videovit.cli import app
from hf_videovit.inference.dense_scores import open_teacher
from hf_videovit.training.arguments import AugmentationArguments, RunConfig
from hf_videovit.training.data.augmentation import ClipAugmentation
from hf_videovit.training.data.images import open_images, read_image
from hf_videovit.training.data.token_labels import TokenLabelFolder, crop_token_labels, map_file, write_map
from hf_videovit.training.methods.choosing import finetune
from tests.families import FAMILIES


TINY = next(family.tiny for family in FAMILIES if family.name == "uniformer") | {"modality": "image", "image_size": 64}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def images(tmp_path):
    """`train/{dark,light}/N.png`: three images of each class, 48 x 40."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 200)):
        folder = tmp_path / "images" / "train" / name
        folder.mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(level - 50, level + 50, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def save_teacher(folder, names=("none", "light", "dark"), **options):
    """A teacher with the classes of the data in another order, and one more."""
    torch.manual_seed(0)
    labels = dict(enumerate(names))
    config = UniFormerConfig(**TINY, **options, id2label=labels, label2id={name: key for key, name in labels.items()})
    model = UniFormerForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    UniFormerImageProcessor(size={"shortest_edge": 73}, crop_size=size).save_pretrained(folder)
    return model


def command(*words):
    return CliRunner().invoke(app, ["prepare", "token-labels", *map(str, words)])


def direct(model, path, side):
    """Logits `(rows, columns, [dark, light])` of an image that is stretched to a square."""
    image = v2.functional.pil_to_tensor(read_image(path))
    image = v2.functional.resize(image, [side, side], InterpolationMode.BICUBIC, antialias=True)
    pixels = (image / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    with torch.inference_mode():
        tokens = model.uniformer(pixels[None]).last_hidden_state[0]
        return model.classifier(tokens)[:, [2, 1]].unflatten(0, (side // 32, side // 32))


def test_the_command_writes_what_training_reads(images, tmp_path):
    model = save_teacher(tmp_path / "teacher")
    (images / "train" / "dark" / "bad.png").write_bytes(b"no image")
    output = tmp_path / "labels"
    words = ("--teacher", tmp_path / "teacher", "--data", images, "--output", output, "--size", 128)
    result = command(*words, "--batch-size", 4)
    assert result.exit_code == 1 and "bad" in result.output
    facts = json.loads((output / "token_labels.json").read_text())
    assert facts["finished"] and facts["images"] == 6 and facts["grid"] == [4, 4] and len(facts["failures"]) == 1
    source, _ = open_images(images)
    folder = TokenLabelFolder(output, ["light", "dark"])  # training may number the classes in another order
    for index in range(len(source)):
        sample = source[index]
        if "bad" in sample.id:
            continue
        expected = direct(model, sample.video, 128)
        scores, classes = folder.read(sample.id)
        assert scores.shape == classes.shape == (2, 4, 4) and (scores[0] >= scores[1]).all()
        ours = torch.zeros(2, 4, 4).scatter_(0, classes, scores)[[1, 0]]  # dark, light
        torch.testing.assert_close(ours, expected.permute(2, 0, 1), atol=2e-2, rtol=2e-3)  # float16 on disk
        assert torch.equal(scores.half().float(), scores)
    first = map_file(output, source[0].id)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    first.unlink()
    assert "(5 were done)" in command(*words).output
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    assert {path for path in before if before[path] != after[path]} == {first}
    assert "`output`" in command(*words, "--top-k", 1).output
    assert command(*words, "--top-k", 1, "--overwrite").exit_code == 1
    assert load_file(first)["classes"].shape == (1, 4, 4)


def test_classes_that_do_not_fit_are_refused(images, tmp_path):
    save_teacher(tmp_path / "teacher", names=("n1", "n2"))
    words = ("--teacher", tmp_path / "teacher", "--data", images, "--output", tmp_path / "labels")
    lacking = command(*words)
    assert lacking.exit_code == 2 and "lacks 2 of the 2 classes" in lacking.output
    assert command(*words, "--same-order").exit_code == 0
    with pytest.raises(ValueError, match="must have the 2 classes of the data"):
        TokenLabelFolder(tmp_path / "labels", ["dark", "grey"])
    with pytest.raises(ValueError, match="no labels of the image 'other'"):
        TokenLabelFolder(tmp_path / "labels", ["dark", "light"]).read("other")
    facts = tmp_path / "labels" / "token_labels.json"
    facts.write_text(facts.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(ValueError, match="is not finished"):
        TokenLabelFolder(tmp_path / "labels", ["dark", "light"])
    assert map_file("a", "../b").parent == map_file("a", "b").parent


def test_a_part_of_an_image_has_the_labels_of_its_places():
    torch.manual_seed(0)
    scores, classes = torch.randn(4, 2, 4, 4).topk(2, dim=1)
    dense = torch.zeros(4, 3, 4, 4).scatter_(1, classes, scores)
    regions = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0], [1.0, 0.0, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0]])
    expected = (dense[0], dense[1][..., 2:], dense[2][..., 2:].flip(-1), dense[3][:, 2:, :2])
    for index, part in enumerate(expected):
        one = slice(index, index + 1)
        labels = crop_token_labels(scores[one], classes[one], regions[one], tuple(part.shape[1:]), 3)
        torch.testing.assert_close(labels[0], F.softmax(part.flatten(1).T, dim=-1))


def test_an_augmentation_says_which_part_is_left():
    columns, rows = torch.meshgrid(torch.arange(200), torch.arange(100), indexing="xy")
    clip = torch.stack([columns, rows, rows]).to(torch.uint8)[None]
    arguments = AugmentationArguments(crop_scale=[0.2, 0.8], flip=0.5, rand_augment_ops=0)
    augmentation = ClipAugmentation(arguments, (50, 50))
    mirrored = 0
    for seed in range(12):
        crop, (left, top, right, bottom) = augmentation.follow(clip, seed)
        assert torch.equal(crop, augmentation(clip, seed))
        edges = crop[0, 0, 0, [0, -1]].tolist() + crop[0, 1, [0, -1], 0].tolist()
        expected = [200 * left, 200 * right, 100 * top, 100 * bottom]
        assert np.abs(np.subtract(edges, expected)).max() < 6
        mirrored += left > right
    assert 0 < mirrored < 12


@pytest.mark.parametrize("wanted", ["dark", "light"])
def test_tokens_learn_the_labels_of_the_teacher(images, tmp_path, wanted):
    names, source = ["dark", "light"], open_images(images)[0]
    for index in range(len(source)):
        scores = torch.full((1, 2, 2), 20.0)
        write_map(map_file(tmp_path, source[index].id), scores, torch.full((1, 2, 2), names.index(wanted)))
    (tmp_path / "token_labels.json").write_text(json.dumps({"finished": True, "label_names": names}))
    fields = {
        "model_type": "uniformer",
        "config": TINY | {"use_auxiliary_head": True},
        "data": str(images),
        "output_dir": str(tmp_path / "model"),
        "token_labels": str(tmp_path),
        "learning_rate": 1e-2,
        "warmup_epochs": 0,
        "epochs": 3,
        "batch_size": 3,
        "flip": 0.5,
        "num_sample": 2,
    }
    quiet = {"cpu": True, "num_workers": 0, "progress": False, "curves": False}
    model = finetune(RunConfig.from_fields(**fields, **quiet)).model
    bias = model.auxiliary_classifier.bias.detach()
    assert bias[names.index(wanted)] > bias[1 - names.index(wanted)] + 0.02
    for wrong, message in (
        ({"crop": "multi_scale"}, "`crop` must be 'area'"),
        ({"mixup": 0.8}, "`mixup` and `cutmix` must be 0"),
        ({"augment_on_device": True}, "`augment_on_device` must be false"),
        ({"config": TINY}, "use_auxiliary_head: true"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(RunConfig.from_fields(**fields | quiet | wrong | {"output_dir": str(tmp_path / "other")}))


def test_a_teacher_with_a_head_for_tokens_uses_it(tmp_path):
    model = save_teacher(tmp_path, use_auxiliary_head=True)
    teacher = open_teacher(str(tmp_path))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    pixels = (v2.functional.pil_to_tensor(image) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    with torch.inference_mode():
        expected = model(pixels[None]).token_logits
    torch.testing.assert_close(teacher([image]).flatten(1, 2), expected, atol=1e-4, rtol=1e-4)


def test_teachers_without_dense_scores_are_refused(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**small, image_size=32)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    tiny = next(family.tiny for family in FAMILIES if family.name == "tubevit")
    TubeViTForImageClassification(TubeViTConfig(**tiny)).save_pretrained(tmp_path / "tubevit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "tubevit")
    for name in ("vit", "tubevit"):
        with pytest.raises(ValueError, match="Teachers that work"):
            open_teacher(str(tmp_path / name))


def test_a_teacher_of_timm_applies_its_head_to_each_place(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    timm.models.save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    teacher = open_teacher(f"timm:{tmp_path / 'folder'}", size=64)
    scores = teacher([image])
    assert scores.shape == (1, 2, 2, 3)
    pixels = (v2.functional.pil_to_tensor(image) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(scores.mean(dim=(1, 2)), model(pixels[None]), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="has no weights in the cache: set `download`"):
        open_teacher("timm:dm_nfnet_f6")
    with pytest.raises(ValueError, match="`weights` must be a safetensors file"):
        open_teacher("timm:dm_nfnet_f6", weights=tmp_path / "folder" / "pytorch_model.bin")
