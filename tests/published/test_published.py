"""Facts about the official checkpoints: complete, consistent, and usable for conversion."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from hf_videovit import list_published, published_config, published_labels
from hf_videovit.convert.detectors import MMACTION2_HEAD, OFFICIAL_HEAD, detection_processor
from hf_videovit.hub.cards import AUTO_CLASSES
from hf_videovit.modeling.configuration_actionformer import ACTIONFORMER_SIZES
from hf_videovit.modeling.configuration_bevt import BEVT_SIZES
from hf_videovit.modeling.configuration_lstcl import LSTCL_SIZES
from hf_videovit.modeling.configuration_tubevit import TUBEVIT_SIZES
from hf_videovit.modeling.configuration_uniformer import UNIFORMER_SIZES
from hf_videovit.modeling.configuration_uniformer_v2 import UNIFORMER_V2_SIZES
from hf_videovit.modeling.configuration_videomae_v2 import VIDEOMAE_V2_SIZES
from hf_videovit.published import (
    IMAGE_TASKS,
    KINETICS_710_SUBSETS,
    LABEL_LISTS,
    LOCALIZATION,
    PublishedFile,
    PublishedProtocol,
    PublishedResult,
    _entry,
    ava_rows,
    kinetics_710_rows,
    kinetics_spellings,
    published_entry,
    published_processor_kwargs,
)


FIXTURE = Path(__file__).parents[1] / "fixtures" / "videomae_v2" / "label_maps" / "label_maps.json"
SIZES = {
    "actionformer": ACTIONFORMER_SIZES,
    "bevt": BEVT_SIZES,
    "lstcl": LSTCL_SIZES,
    "tubevit": TUBEVIT_SIZES,
    "uniformer": UNIFORMER_SIZES,
    "uniformer_v2": UNIFORMER_V2_SIZES,
    "videomae_v2": VIDEOMAE_V2_SIZES,
}
GIVEN_APART = ("num_frames", "num_labels")  # in the entry's protocol, and beside its configuration
NESTED = {"detection_config", "encoder_config", "localizer_config"}
# The zoo's files that a listing shows, with the sizes that it gives to the byte.
FILES = {
    "mae-g/vit_g_hybrid_pt_1200e.pth": 4105433973,
    "mae-g/vit_g_hybrid_pt_1200e_k710_ft.pth": None,
    "mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth": None,
    "mae-g/vit_g_ps14_ak_ft_ckpt_7_clean.pth": None,
    "distill/vit_s_k710_dl_from_giant.pth": 44334609,
    "distill/vit_b_k710_dl_from_giant.pth": 173574417,
    "mae-b/pytorch_model.bin": None,
    "mae-l/pytorch_model.bin": None,
    "mae-h/pytorch_model.bin": None,
}


def test_names():
    names = list_published()
    assert set(list_published("videomae_v2")) | set(list_published("uniformer_v2")) <= set(names)
    assert "videomae-v2-base-k710-distilled" in list_published("videomae_v2")
    with pytest.raises(ValueError, match="`model_type` must be one of .*videomae_v2.*, got 'vit'"):
        list_published("vit")
    with pytest.raises(ValueError, match="`name` must be one of the .* checkpoints that .* lists, got 'videomae-v3'"):
        published_entry("videomae-v3")
    with pytest.raises(ValueError, match="got 'videomae-v2-base'. Did you mean videomae-v2-base-encoder or "):
        published_entry("videomae-v2-base")


def test_every_file_of_the_zoo_is_there():
    entries = [published_entry(name) for name in list_published("videomae_v2")]
    zoo = {one.file.path: one.file.bytes for one in entries if one.file.repository == "OpenGVLab/VideoMAE2"}
    assert zoo == FILES
    remote = {one.file.repository for one in entries if one.name.endswith("-encoder")}
    assert remote == {f"OpenGVLab/VideoMAEv2-{size}" for size in ("Base", "Large", "Huge", "giant")}


def backbone_of(config):
    """Configuration of the family: that of the backbone of a detector or segmenter."""
    return getattr(config, "backbone_config", None) or config


@pytest.mark.parametrize("name", list_published())
def test_entries_are_consistent(name):
    entry, config = published_entry(name), published_config(name)
    base, fields = backbone_of(config), entry.config.get("backbone_config", entry.config)
    assert base.model_type == entry.model_type
    encoder = getattr(config, "encoder_config", None)
    for field, value in SIZES["videomae_v2" if encoder else entry.model_type][entry.size].items():
        assert getattr(encoder or base, field) == fields.get(field, value) or field in GIVEN_APART
    for field, value in type(base).from_size(entry.size, **fields).to_dict().items():
        assert field not in {*fields} - NESTED or base.to_dict()[field] == value
    unmerged = (*IMAGE_TASKS, LOCALIZATION)
    assert entry.task in unmerged or config.view_merging == entry.protocol.view_merging
    if entry.num_labels is not None:
        assert config.num_labels == entry.num_labels
    if entry.labels is not None:
        assert [config.id2label[index] for index in range(config.num_labels)] == published_labels(entry.labels)
        assert config.label2id[config.id2label[3]] == 3
    if entry.file.availability == "listed":
        assert any(licence.covers == "weights" for licence in entry.licences)
    if entry.task == LOCALIZATION:
        assert all(result.views is None and "tIoU" in result.note for result in entry.results)
        return
    mapping = IMAGE_PROCESSOR_MAPPING if entry.task in IMAGE_TASKS else VIDEO_PROCESSOR_MAPPING
    registered = mapping[type(config)]
    processor = (registered["torchvision"] if isinstance(registered, dict) else registered)(
        **published_processor_kwargs(name)
    )
    assert tuple(processor.image_mean) == entry.protocol.image_mean
    for result in entry.results:
        if entry.task in IMAGE_TASKS:
            assert result.views is None
            continue
        frames, clips, crops = map(int, result.views.split("x"))
        assert (frames, processor.num_clips) == (entry.protocol.num_frames, entry.protocol.num_clips)
        if entry.task == "video-classification" and result.note != "one view":
            assert (clips, crops) == (entry.protocol.num_clips, entry.protocol.num_crops)


DETECTORS = [name for name in list_published() if published_entry(name).task == "action-detection"]


def test_every_action_detector_is_there():
    """8 of VideoMAE's model zoo and 2 of its README, 2 of MMAction2, InternVideo's, and that of VideoMAE V2."""
    entries = [published_entry(name) for name in DETECTORS]
    assert Counter(one.results[0].source for one in entries) == {
        "VideoMAE-Action-Detection": 10,
        "mmaction2": 2,
        "InternVideo": 1,
        "VideoMAE V2 paper": 1,
    }
    assert Counter(one.file.availability for one in entries) == {
        "cloud drive": 4,
        "never released": 6,
        "listed": 3,
        "dead link": 1,
    }
    verified = {one.name for one in entries if one.results[0].kind == "zoo"}
    assert set(DETECTORS) - verified == {
        "videomae-v2-giant-ava-kinetics",
        "videomae-huge-ava-kinetics-internvideo",
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_a_published_detector_has_the_protocol_of_its_layout(name):
    """What the converter reads off the layout, and what the entry says."""
    config, port = published_config(name), name.endswith("mmaction2")
    for field, value in (MMACTION2_HEAD if port else OFFICIAL_HEAD).items():
        assert getattr(config.detection_config, field) == value, field
    assert config.detection_config.evaluated_labels == ava_rows("evaluated")
    assert (config.num_labels, config.id2label[79], config.id2label[0]) == (
        80,
        "watch (a person)",
        "bend/bow (at the waist)",
    )
    of_layout = detection_processor(config, port)
    assert type(of_layout)(**published_processor_kwargs(name)).to_dict() == of_layout.to_dict()


def test_every_file_of_the_uniformer_v2_zoo_is_there():
    entries = [published_entry(name) for name in list_published("uniformer_v2")]
    official = [entry for entry in entries if entry.file.wrapper is None]
    # K710 4; K400, K600, K700 10 each; Moments in Time 3; Something-Something 4 each; ActivityNet, HACS 2 each
    assert len(official) == 4 + 3 * 10 + 3 + 2 * 4 + 2 * 2
    on_the_hub = {one.file.path for one in official if one.file.availability == "listed"}
    assert on_the_hub == {"k400+k710_uniformerv2_b16_8x224.pyth", "mit_uniformerv2_b16_8x224.pyth"}
    ports = [entry for entry in entries if entry.file.wrapper == "state_dict"]
    assert len(ports) == len(entries) - len(official) == 23
    assert len({one.file.url for one in ports}) == 23
    for entry in entries:
        assert entry.name.endswith("-mmaction2") == (entry in ports)
        assert list(entry.protocol.image_mean) == [0.45] * 3
        assert (entry.protocol.frame_sampling, entry.protocol.antialias) == ("sparse", False)


def test_what_was_released_of_bevt_and_what_never_was():
    entries = {name: published_entry(name) for name in list_published("bevt") if name.startswith("bevt")}
    released = {name for name, entry in entries.items() if entry.file.availability == "listed"}
    assert released == {"bevt-base-images", "bevt-base-pretrained"}
    top1 = {(name, one.value) for name, entry in entries.items() for one in entry.results}
    assert top1 == {
        ("bevt-base-k400", 80.6),
        ("bevt-base-k400-peco", 81.1),
        ("bevt-base-k400-peco", 81.5),
        ("bevt-base-ssv2", 70.6),
        ("bevt-base-ssv2-peco", 71.4),
    }


UNIFORMER_COUNTS = {
    # 5 plain, 6 light, 7 token-labelled at 224 and 4 at 384
    "image-classification": 5 + 6 + 7 + 4,
    # Kinetics-400 8 and 600 5, Something-Something 8 each, UCF101, HMDB51, 8 light, 3 ports
    "video-classification": 8 + 5 + 8 + 8 + 2 + 8 + 3,
    "object-detection": 6 + 2,  # Mask R-CNN, Cascade Mask R-CNN
    "semantic-segmentation": 6 + 4,  # Semantic FPN, UperNet
    "keypoint-detection": 6,
}


# Millions of parameters and GMACs of the whole models in the authors' tables, by size: detectors at 800 x 1280 pixels,
# segmenters at 512 x 2048, pose estimators at their own size. Of FPN with hybrid attention see tests/test_counts.py.
DENSE_COUNTS = {
    "mask-rcnn-1x": {"small": (41, 269), "base": (69, 399)},
    "mask-rcnn-3x": {"small": (41, 269), "base": (69, 399)},
    "cascade-mask-rcnn-3x": {"small": (79, 747), "base": (107, 878)},
    "fpn": {"small": (25, 247), "base": (54, 471)},
    "upernet-h14": {"small": (52, 947), "base": (80, 1085)},
    "upernet": {"small": (52, 1004), "base": (80, 1227)},
    "pose-256x192": {"small": (25, 4.7), "base": (54, 9.2)},
    "pose-384x288": {"small": (25, 11.1)},
    "pose-448x320": {"small": (25, 14.8), "base": (54, 29.6)},
}
BACKBONES = {"small": 21_033_280, "base": 49_264_576}  # parameters without heads, exactly
LABELS = {"object-detection": "coco", "semantic-segmentation": "ade20k", "keypoint-detection": "coco-keypoints"}


def test_dense_models_have_the_costs_of_the_authors_tables():
    for kind, sizes in DENSE_COUNTS.items():
        for size, (millions, gmacs) in sizes.items():
            entry = published_entry(f"uniformer-{size}-{'ade20k' if kind[0] in 'fu' else 'coco'}-{kind}")
            assert round(entry.parameters / 1e6 - 0.2) <= millions <= round(entry.parameters / 1e6 + 0.2), entry.name
            assert entry.gmacs == pytest.approx(gmacs, rel=0.005, abs=0.05), entry.name


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize(
    "kind", ["coco-mask-rcnn-1x", "coco-cascade-mask-rcnn-3x", "ade20k-fpn-h14", "ade20k-upernet"]
)
def test_the_configuration_of_a_dense_model_builds_it_whole(kind, size):
    name = f"uniformer-{size}-{kind}"
    entry, config = published_entry(name), published_config(name)
    with torch.device("meta"):
        model = AUTO_CLASSES[entry.task].from_config(config)
    assert sum(one.numel() for one in model.parameters()) == entry.parameters
    assert sum(one.numel() for one in model.backbone.parameters()) == BACKBONES[size]
    assert list(config.id2label.values()) == published_labels(LABELS[entry.task])
    backbone = config.backbone_config
    hybrid = "coco" in kind or kind.endswith("h14")
    attention = ("hybrid", 14) if hybrid else ("global", 32)
    assert (backbone.head_dim, backbone.attention_type, backbone.window_size) == (64, *attention)
    fields = published_processor_kwargs(name)
    sizes = (
        {"shortest_edge": 800, "longest_edge": 1333}
        if "coco" in kind
        else {"shortest_edge": 512, "longest_edge": 2048}
    )
    assert fields["size"] == sizes and fields.get("size_divisor") == (None if kind == "ade20k-upernet" else 32)


def test_every_file_of_the_uniformer_zoo_is_there():
    entries = [published_entry(name) for name in list_published("uniformer")]
    assert {task: sum(one.task == task for one in entries) for task in UNIFORMER_COUNTS} == UNIFORMER_COUNTS
    assert len(entries) == sum(UNIFORMER_COUNTS.values())
    gone = {one.name for one in entries if one.file.availability == "not listed"}
    hybrids = {
        "uniformer-small-ade20k-fpn-h14",
        "uniformer-small-ade20k-upernet-h14",
        "uniformer-base-ade20k-upernet-h14",
    }
    assert gone == {"uniformer-small-k400-32x4", *hybrids}
    hub = [one for one in entries if one.file.repository is not None]
    assert sum(one.file.repository == "Sense-X/uniformer_video" for one in hub) == 8
    assert {one.file.availability for one in hub} == {"listed"}
    drive = [one for one in entries if one.file.availability == "cloud drive"]
    assert all(one.file.url.startswith("https://drive.google.com/") for one in drive)
    linked = [one.file.url for one in drive if "/file/" in one.file.url]
    assert len(set(linked)) == len(linked)


@pytest.mark.parametrize("name", list_published("uniformer"))
def test_width_of_uniformer_heads(name):
    """Nothing else in the package knows it, and nothing in the files shows it."""
    entry, config = published_entry(name), backbone_of(published_config(name))
    light = {"xxs": 28, "xs": 32}
    narrow = "dim64" not in name and ("-tl-" in name and entry.size != "large" or name == "uniformer-small-plus-in1k")
    given = entry.config.get("backbone_config", entry.config)
    assert given["head_dim"] == config.head_dim == light.get(entry.size, 32 if narrow else 64)
    assert config.use_auxiliary_head == ("-tl-" in name)
    assert config.modality == ("image" if entry.task in IMAGE_TASKS else "video")


def test_protocols_of_uniformer():
    kinetics = published_processor_kwargs("uniformer-small-k400-16x8")
    assert (kinetics["frame_sampling"], kinetics["frame_stride"], kinetics["num_clips"]) == ("span", 8, 4)
    assert (kinetics["image_mean"], kinetics["num_crops"]) == ([0.45] * 3, 1)
    something = published_processor_kwargs("uniformer-base-k600-ssv2-32f")
    assert [something[name] for name in ("frame_sampling", "num_clips", "num_crops")] == ["sparse", 1, 3]
    light = published_processor_kwargs("uniformer-xxs-k400-16f-128")
    assert [light[name] for name in ("frame_sampling", "num_clips", "num_crops")] == ["sparse", 1, 1]
    assert light["crop_size"]["height"] == 128
    configs = {name: backbone_of(published_config(name)) for name in list_published("uniformer")}
    scaled = {name for name, config in configs.items() if config.layer_scale_init_value == 0.1}
    assert scaled == {f"uniformer-xxs-k400-{one}" for one in ("4f-128", "4f-160", "8f-128")}
    large = published_processor_kwargs("uniformer-base-tl-384")
    assert (large["size"], large["crop_size"]["width"]) == ({"shortest_edge": 438}, 384)
    merging = {config.view_merging for config in configs.values()}
    assert merging == {"logits_mean"}


def test_protocols_of_the_scripts():
    assert published_processor_kwargs("bevt-base-k400")["frame_sampling"] == "dense_cyclic"
    assert published_processor_kwargs("bevt-base-ssv2")["frame_sampling"] == "sparse_middle"
    assert published_processor_kwargs("uniformer-v2-large-activitynet-16f")["num_clips"] == 10
    assert published_processor_kwargs("uniformer-v2-large-336-k710-k400-64f")["crop_size"]["height"] == 336
    assert published_processor_kwargs("videomae-v2-giant-ssv2")["frame_sampling"] == "segment"
    assert published_processor_kwargs("videomae-v2-giant-hmdb51")["frame_stride"] == 2
    kinetics = published_processor_kwargs("videomae-v2-base-k710-distilled")
    assert (kinetics["num_clips"], kinetics["num_crops"], kinetics["frame_stride"]) == (5, 3, 4)
    assert kinetics["antialias"] is False


def test_labels_are_the_published_ones():
    fixture = json.loads(FIXTURE.read_text(encoding="utf-8"))
    for name in ("k400", "k600", "k700", "k710"):
        assert published_labels(name) == fixture[name]
    for name in ("k400", "k600", "k700"):
        assert kinetics_710_rows(name) == fixture[f"k710_to_{name}"]
    assert kinetics_spellings() == fixture["identical_label_merge"]


# Classes that a part of Kinetics spells otherwise than its Kinetics-710.
OTHER_SPELLINGS = {"k400-uniformer": 13, "k400-mmaction2": 13, "k600-mmaction2": 3, "k700-mmaction2": 1}


@pytest.mark.parametrize("name", KINETICS_710_SUBSETS)
def test_rows_and_names_of_the_parts_of_kinetics_agree(name):
    whole = published_labels("k710-mmaction2" if name.endswith("mmaction2") else "k710")
    rows, names = kinetics_710_rows(name), published_labels(name)
    assert len(set(rows)) == len(rows) == len(names) == int(name[1:4])
    assert sum(whole[row] != label for row, label in zip(rows, names)) == OTHER_SPELLINGS.get(name, 0)


@pytest.mark.parametrize("name", LABEL_LISTS)
def test_no_class_is_named_twice(name):
    assert len(set(published_labels(name))) == len(published_labels(name))


def test_labels_cannot_be_spoilt():
    published_labels("k400").clear()
    kinetics_710_rows("k400").clear()
    assert len(published_labels("k400")) == len(kinetics_710_rows("k400")) == 400
    for function, name in ((published_labels, "ssv3"), (kinetics_710_rows, "k710"), (published_labels, "../x")):
        with pytest.raises(ValueError, match="`name` must be one of k400"):
            function(name)


ROW = yaml.safe_load("{size: base, summary: s, task: pretraining, file: {availability: not listed}}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "detection"}, "`task` must be one of"),
        ({"lables": "k400"}, "unknown fields lables"),
        ({"num_labels": 5}, "`num_labels`"),
        ({"task": "video-classification"}, "`num_labels`"),
        ({"task": "action-detection"}, "`num_labels`"),
        ({"task": "temporal-action-localization"}, "`num_labels`"),
        ({"task": "video-classification", "num_labels": 5, "labels": "k400"}, "does not have 5 names"),
        ({"file": {"availability": "listed"}}, "needs `repository` and `path`"),
        ({"file": {"availability": "here"}}, "`availability` must be one of"),
        ({"protocol": {"num_clips": 0}}, "`num_clips` must be at least 1"),
    ],
)
def test_wrong_rows_are_refused(change, message):
    _entry("x", "videomae_v2", [], ROW)
    with pytest.raises(ValueError, match=message):
        _entry("x", "videomae_v2", [], {**ROW, **change})


def test_wrong_facts_are_refused():
    with pytest.raises(ValueError, match="`dtype`"):
        PublishedFile(repository="a/b", path="c", dtype="int4")
    with pytest.raises(ValueError, match="`view_merging`"):
        PublishedProtocol(view_merging="max")
    with pytest.raises(ValueError, match="`kind`"):
        PublishedResult("K", "top1", 80.0, "me", "measured")
    with pytest.raises(ValueError, match="in percent"):
        PublishedResult("K", "top1", 801, "me", "zoo")
