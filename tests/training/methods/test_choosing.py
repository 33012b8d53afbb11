"""Which method a run is, and which fields it reads."""

import dataclasses

import pytest

from hf_videovit import BevtConfig, LstclConfig, UniFormerConfig, VideoMAEV2Config
from hf_videovit.training.arguments import FIELD_GROUP, RunConfig
from hf_videovit.training.methods.choosing import METHODS, choose, method_of


def chosen(goal, **fields):
    return choose(RunConfig.from_fields(**fields), goal).name


@pytest.mark.parametrize(
    ("goal", "fields", "name"),
    [
        ("classifier", {}, "classification"),
        ("classifier", {"teacher": "folder"}, "distillation"),
        ("classifier", {"model_type": "tubevit", "image_data": "images"}, "joint_classification"),
        ("classifier", {"model_type": "uniformer", "config.modality": "image"}, "image_classification"),
        ("classifier", {"model_type": "bevt"}, "classification"),
        ("encoder", {}, "masked_pixels"),
        ("encoder", {"model_type": "bevt", "image_data": "images"}, "masked_words"),
        ("encoder", {"model_type": "lstcl"}, "contrastive"),
        (None, {"method": "contrastive", "model_type": "lstcl"}, "contrastive"),
        (None, {}, "classification"),
    ],
)
def test_the_model_and_the_fields_choose(goal, fields, name):
    assert chosen(goal, **fields) == name


@pytest.mark.parametrize(
    ("config", "goal", "name"),
    [
        (VideoMAEV2Config(), "encoder", "masked_pixels"),
        (BevtConfig(), "encoder", "masked_words"),
        (LstclConfig(), "encoder", "contrastive"),
        (UniFormerConfig(modality="image"), "classifier", "image_classification"),
    ],
)
def test_a_checkpoint_chooses_like_its_family(tmp_path, config, goal, name):
    config.save_pretrained(tmp_path)
    assert chosen(goal, checkpoint=str(tmp_path), model_type="tubevit") == name


@pytest.mark.parametrize(
    ("goal", "fields", "message"),
    [
        (
            "classifier",
            {"method": "masked_pixels"},
            "`method` 'masked_pixels' is a method of `pretrain`, not of `train`",
        ),
        ("encoder", {"method": "distillation"}, "`method` 'distillation' is a method of `train`, not of `pretrain`"),
        (None, {"method": "masked_pixel"}, "Unknown `method` 'masked_pixel'; did you mean `masked_pixels`"),
        (None, {"method": "contrastive"}, "`method` 'contrastive' trains models of type lstcl, got 'videomae_v2'"),
        ("encoder", {"model_type": "tubevit"}, "`pretrain` has no method for models of type 'tubevit'"),
        # a field of another method
        ("encoder", {"mixup": 0.8}, "Unknown field `mixup` in the method `masked_pixels`"),
        ("encoder", {"teacher": "folder"}, "Unknown field `teacher` in the method `masked_pixels`"),
        ("encoder", {"label_smoothing": 0.1}, "`label_smoothing` in the method `masked_pixels`"),
        (
            "encoder",
            {"model_type": "bevt", "image_loss_weight": 0.5},
            "`image_loss_weight` in the method `masked_words`",
        ),
        ("encoder", {"model_type": "lstcl", "word_cache": "words"}, "`word_cache` in the method `contrastive`"),
        ("classifier", {"tokenizer": "words"}, "Unknown field `tokenizer` in the method `classification`"),
        (
            "classifier",
            {"teacher": "folder", "label_smoothing": 0.1},
            "`label_smoothing` in the method `distillation`",
        ),
        # a shared field that the method does not read
        ("encoder", {"image_model": "vit"}, "`image_model` is not read by the method `masked_pixels`, got 'vit'"),
        ("encoder", {"head": "new"}, "`head` is not read by the method `masked_pixels`"),
        ("classifier", {"picture_every": 1}, "`picture_every` is not read by the method `classification`"),
        (
            "encoder",
            {"model_type": "bevt", "augment_on_device": True},
            "`augment_on_device` is not read by",
        ),
        ("classifier", {"image_data": "images", "probe": ["knn"]}, "`probe` is not read by the method `joint_class"),
        ("classifier", {"config.modality": "image", "label_column": "x"}, "`label_column` is not read by the method"),
        ("classifier", {"config.modality": "image", "holdout": 0.5}, "`holdout` is not read by the method"),
        # a field that another one switches off
        ("encoder", {"model_type": "bevt", "word_copies": 2}, "`word_copies` is not read .* `word_cache` is needed"),
        *(
            ("encoder", {"model_type": "bevt", "config.image_stream": False, name: value}, f"`{name}` .*image_stream")
            for name, value in (("image_data", "images"), ("image_batch_size", 2), ("image_jitter", 0.1))
        ),
        *(
            ("encoder", {"model_type": "bevt", "config.video_stream": False, name: value}, f"`{name}` .*video_stream")
            for name, value in (
                *(("probe", ["knn"]), ("holdout", 0.5), ("eval_data", "clips"), ("eval_split", "val")),
                *(("label_column", "x"), ("train_split", "learn"), ("max_train_samples", 5), ("data_root", "clips")),
            )
        ),
        (
            "encoder",
            {"model_type": "bevt", "config.video_stream": False, "data": "clips", "image_data": "images"},
            "`data` is not read .* those of `image_data`",
        ),
        ("encoder", {"probe_data": "clips"}, "`probe_data` is not read .* `probe` is needed"),
        ("classifier", {"device_area": 100}, "`device_area` is not read .* `augment_on_device` is needed"),
        ("classifier", {"hub_private": True}, "`hub_private` is not read .* `push_to_hub` is needed"),
        # a value
        ("classifier", {"mixup": -1.0}, "`mixup` must be at least 0"),
        ("classifier", {"label_smoothing": 2.0}, "`label_smoothing` must be between"),
        ("classifier", {"flip_labels": "all"}, "`flip_labels` must be one of alike, any"),
        ("classifier", {"image_data": "images", "image_ratio": 0.0}, "`image_ratio` must be above 0"),
        (None, {"method": "distillation"}, "`teacher` is needed"),
        (None, {"method": "joint_classification"}, "`image_data` is needed"),
    ],
)
def test_no_field_is_ignored_in_silence(goal, fields, message):
    with pytest.raises(ValueError, match=message):
        method_of(RunConfig.from_fields(**fields), goal)


def test_the_run_that_is_saved_states_every_field_of_its_method():
    method = method_of(RunConfig.from_fields(mixup="0.8"), "classifier")
    assert method.config.method == {
        "name": "classification",
        "mixup": 0.8,
        "cutmix": 0.0,
        "mix_probability": 1.0,
        "mix_switch": 0.5,
        "label_smoothing": 0.0,
        "flip_labels": "alike",
    }
    again = method_of(RunConfig.from_dict(method.config.to_dict()))
    assert again.config == method.config


def test_a_resumed_run_must_not_change_its_method():
    earlier = method_of(RunConfig.from_fields(mixup=0.8)).config.to_dict()
    now = method_of(RunConfig.from_fields(mixup=0.4)).config
    assert now.changed_fields(earlier) == ["`mixup` was 0.8, is 0.4"]


def test_every_method_has_a_name_of_its_own_and_known_fields():
    assert len({method.name for method in METHODS}) == len(METHODS)
    known = RunConfig().to_dict()
    shared = {name for group in known.values() for name in group}
    for method in METHODS:
        assert set(method.unread) <= shared, method.name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_methods_fields_have_names_of_their_own(method):
    """A plain name that a shared group has too would never reach the method."""
    assert not {one.name for one in dataclasses.fields(method.arguments_class)} & FIELD_GROUP.keys()


def test_whole_sequences_by_a_plain_name():
    config = RunConfig.from_fields(model_type="actionformer", window_ratio=[])
    assert config.method["window_ratio"] == [] and choose(config).arguments_class(window_ratio=[]).window_ratio == []
