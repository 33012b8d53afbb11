"""Official VideoMAE V2 checkpoints: every layout and task, right or refused."""

import argparse
import json
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification, AutoVideoProcessor

from hf_videovit import (
    VideoMAEV2Config,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
    convert_checkpoint,
    published_config,
    published_labels,
)
from hf_videovit.convert import convert_to_folder
from hf_videovit.published import kinetics_710_rows
from tests.convert.layouts import (
    TINY,
    UNSHOWN,
    UNSHOWN_PRETRAINING,
    official_layout,
    same_weights,
    tiny_model,
)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "videomae_v2"
CLASSIFICATION, FEATURES, PRETRAINING = "video-classification", "feature-extraction", "pretraining"
TASKS = {
    VideoMAEV2ForVideoClassification: CLASSIFICATION,
    VideoMAEV2Model: FEATURES,
    VideoMAEV2ForPreTraining: PRETRAINING,
}
LOADERS = {
    CLASSIFICATION: AutoModelForVideoClassification,
    FEATURES: AutoModel,
    PRETRAINING: AutoModelForPreTraining,
}


def convert(checkpoint, task=CLASSIFICATION, **options):
    unshown = UNSHOWN_PRETRAINING if task == PRETRAINING else UNSHOWN
    return convert_checkpoint("videomae_v2", checkpoint, task=task, **{**unshown, **options})


@pytest.fixture
def classifier():
    return tiny_model(VideoMAEV2ForVideoClassification, num_labels=5)


@pytest.fixture
def pretrained():
    return tiny_model(VideoMAEV2ForPreTraining)


@st.composite
def shapes_of_models(draw):
    heads, decoder_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "num_attention_heads": heads,
        "hidden_size": heads * draw(st.integers(2, 5)),
        "intermediate_size": draw(st.integers(1, 20)),
        "num_hidden_layers": draw(st.integers(1, 11)),  # two digits too
        "patch_size": draw(st.sampled_from([1, 2, 4])),
        "tubelet_size": draw(st.sampled_from([1, 2])),
        "num_channels": draw(st.sampled_from([1, 3])),
        "qkv_bias": draw(st.booleans()),
        "use_cosine_attention": draw(st.booleans()),
        "layer_scale_init_value": draw(st.sampled_from([0.0, 0.1])),
        "decoder_num_attention_heads": decoder_heads,
        "decoder_hidden_size": decoder_heads * draw(st.integers(2, 5)),
        "decoder_intermediate_size": draw(st.integers(1, 20)),
        "decoder_num_hidden_layers": draw(st.integers(1, 3)),
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    fields=shapes_of_models(),
    model_class=st.sampled_from(list(TASKS)),
    mean_pooling=st.booleans(),
    num_labels=st.integers(1, 6),
)
def test_there_and_back(fields, model_class, mean_pooling, num_labels):
    """Whatever the sizes: our weights in the official layout come back as they were, and sizes are read off."""
    pooling = True if model_class is VideoMAEV2ForPreTraining else mean_pooling
    extra = {"num_labels": num_labels} if model_class is VideoMAEV2ForVideoClassification else {}
    model = tiny_model(model_class, **fields, **extra, use_mean_pooling=pooling)
    state = official_layout(model)
    if model_class is not VideoMAEV2ForPreTraining and not mean_pooling:
        extra |= {"use_mean_pooling": False}  # an encoder looks like one of pretraining, a classifier like a detector
    unshown = {name: fields[name] for name in ("num_attention_heads", "decoder_num_attention_heads")}
    if model_class is not VideoMAEV2ForPreTraining:
        unshown.pop("decoder_num_attention_heads")
    converted = convert(state, TASKS[model_class], **unshown, **extra)
    assert type(converted) is model_class
    assert same_weights(converted, model)
    hidden = ("decoder_",) if model_class is not VideoMAEV2ForPreTraining else ()
    for name, value in {**TINY, **fields}.items():
        if not name.startswith(hidden):
            assert getattr(converted.config, name) == value, name


def wrapped(state, how):
    training_state = {"epoch": 3, "optimizer": {"state": {0: {"step": 1}}}, "args": argparse.Namespace(lr=0.1)}
    prefixes = {"compiled": "_orig_mod.", "backbone": "backbone.", "remote": "model.", "distributed": "module."}
    if how in prefixes:
        return {prefixes[how] + name: tensor for name, tensor in state.items()}
    return {how: state, **training_state} if how in ("model", "module") else state


@pytest.mark.parametrize("how", ["bare", "model", "module", "compiled", "backbone", "remote", "distributed"])
@pytest.mark.parametrize("task", [CLASSIFICATION, PRETRAINING])
def test_wrappers_and_prefixes(how, task, classifier, pretrained, tmp_path):
    model = classifier if task == CLASSIFICATION else pretrained
    torch.save(wrapped(official_layout(model), how), tmp_path / "w.pth")
    assert same_weights(convert(tmp_path / "w.pth", task), model)


def test_average_of_weights(classifier, tmp_path):
    other = tiny_model(VideoMAEV2ForVideoClassification, seed=1, num_labels=5)
    torch.save({"model": official_layout(classifier), "model_ema": official_layout(other)}, tmp_path / "w.pth")
    assert same_weights(convert(tmp_path / "w.pth"), classifier)
    assert same_weights(convert(tmp_path / "w.pth", entry="model_ema"), other)


@pytest.mark.parametrize("task", [CLASSIFICATION, FEATURES, PRETRAINING])
def test_buffers_are_made(task, classifier, pretrained, tmp_path):
    """Position tables are in no checkpoint; a model built without memory must not be left with garbage."""
    model = pretrained if task == PRETRAINING else classifier
    fresh = type(model)(model.config)
    converted = convert(official_layout(model), task)
    buffers, expected = dict(converted.named_buffers()), dict(fresh.named_buffers())
    assert len(buffers) == (2 if task == PRETRAINING else 1)
    for name, buffer in buffers.items():
        wanted = expected.get(name, expected.get(f"videomae_v2.{name}"))
        assert torch.equal(buffer, wanted)
        assert buffer.device.type == "cpu"
        assert buffer.abs().max() <= 1


def test_features_are_those_of_the_classifier(classifier, caplog):
    features = convert(official_layout(classifier), FEATURES)
    clip = torch.randn(1, 4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(features(clip).pooler_output, classifier.videomae_v2(clip).pooler_output)


def test_dtypes(classifier):
    half = {name: tensor.half() for name, tensor in official_layout(classifier).items()}
    assert {parameter.dtype for parameter in convert(half).parameters()} == {torch.float32}
    assert convert(half).config.dtype == torch.float32
    kept = convert(half, dtype=None)
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.float16}
    assert convert(half, dtype="bfloat16").dtype == torch.bfloat16
    for name, parameter in convert(half).named_parameters():
        assert torch.equal(parameter, kept.get_parameter(name).float())
    with pytest.raises(ValueError, match="`dtype` must be one of float64, float32, float16, bfloat16, got 'int8'"):
        convert(half, dtype="int8")
    quantised = {**half, "head.bias": torch.ones(5, dtype=torch.int8)}
    with pytest.raises(ValueError, match="quantised"):
        convert(quantised)


def test_the_model_owns_its_weights(classifier, tmp_path):
    """Neither the given tensors nor the file can change under the model."""
    state = official_layout(classifier)
    converted = convert(state)
    for tensor in state.values():
        tensor.zero_()
    assert same_weights(converted, classifier)
    torch.save(official_layout(classifier), tmp_path / "w.pth")
    converted = convert(tmp_path / "w.pth")
    with (tmp_path / "w.pth").open("r+b") as file:
        file.write(bytes((tmp_path / "w.pth").stat().st_size))
    assert same_weights(converted, classifier)
    assert not any(parameter.is_shared() for parameter in converted.parameters())
    assert not converted.training


def test_files_of_parameters(classifier, tmp_path):
    state = {name: torch.nn.Parameter(tensor) for name, tensor in official_layout(classifier).items()}
    torch.save(state, tmp_path / "w.pth")
    assert same_weights(convert(tmp_path / "w.pth"), classifier)
    folder = convert_to_folder("videomae_v2", tmp_path / "w.pth", tmp_path / "made", task=CLASSIFICATION, **UNSHOWN)
    assert same_weights(VideoMAEV2ForVideoClassification.from_pretrained(folder), classifier)


# Keys that do not fit


def changed(state, **changes):
    state = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks__1__attn__v_bias": None}, r"1 missing from the checkpoint: .*layers\.1\.attention\.v_proj\.bias"),
        ({"fc_norm__bias": None}, r"missing from the checkpoint: fc_norm\.bias \(videomae_v2\.fc_norm\.bias\)"),
        ({"head__bias": None}, r"missing from the checkpoint: head\.bias \(classifier\.bias\)"),
        ({"surprise": torch.ones(3)}, r"1 left over in the checkpoint: surprise \(3,\)"),
        ({"blocks__0__attn__qkv__bias": torch.ones(72)}, r"left over .*blocks\.0\.attn\.qkv\.bias \(72,\)"),
        ({"blocks__0__attn__k_bias": torch.ones(24)}, r"left over .*blocks\.0\.attn\.k_bias"),
        ({"norm__weight": torch.ones(24)}, r"left over|missing|use_mean_pooling"),
        (
            {"blocks__1__mlp__fc1__weight": torch.ones(41, 24)},
            r"blocks\.1\.mlp\.fc1\.weight gives \(41, 24\).*needs \(40, 24\)",
        ),
        ({"blocks__0__attn__qkv__weight": torch.ones(71, 24)}, r"qkv\.weight gives \(23, 24\)"),
        ({"head__weight": torch.ones(6, 24)}, r"head\.bias gives \(5,\), classifier\.bias needs \(6,\)"),
        ({"patch_embed__proj__weight": torch.ones(24, 3, 2, 4, 2)}, "square patches"),
        (
            {"pos_embed": torch.ones(1, 8, 24)},
            "pos_embed is not the fixed table .* learnt positions are not supported",
        ),
        ({"pos_embed": torch.ones(1, 9, 24)}, "pos_embed has 9 positions, but clips of .* have 8 tokens"),
        ({"blocks__0__mlp__fc1__weight": torch.tensor(1.0)}, r"blocks\.0\.mlp\.fc1\.weight is a scalar"),
    ],
)
def test_keys_that_do_not_fit(changes, message, classifier):
    with pytest.raises(ValueError, match=message):
        convert(changed(official_layout(classifier), **changes))


def test_a_missing_block_is_named(classifier):
    state = {name: value for name, value in official_layout(classifier).items() if not name.startswith("blocks.0.")}
    with pytest.raises(ValueError, match=r"blocks\.0 is missing"):
        convert(state)


def test_a_decoder_without_a_tensor(pretrained):
    state = changed(official_layout(pretrained), decoder__norm__bias=None)
    with pytest.raises(ValueError, match=r"missing from the checkpoint: decoder\.norm\.bias"):
        convert(state, PRETRAINING)


def test_names_twice(classifier):
    state = official_layout(classifier)
    with pytest.raises(ValueError, match="twice"):
        convert({**state, "backbone.head.bias": torch.ones(5)})
    with pytest.raises(ValueError, match="with and without `encoder.`"):
        convert({**state, "encoder.fc_norm.bias": torch.ones(24)})


def test_something_else_altogether():
    with pytest.raises(ValueError, match=r"not a VideoMAE V2 checkpoint.*starts with conv1\.weight"):
        convert({"conv1.weight": torch.ones(2, 2)})


# Tasks that do not fit


def test_pretraining_file_asked_for_classification(pretrained):
    with pytest.raises(ValueError, match=r"is a pretraining checkpoint without a classifier.*pass `num_labels`"):
        convert(official_layout(pretrained))


def test_pretraining_file_with_a_fresh_classifier(pretrained, caplog):
    logging.getLogger("transformers").propagate = True
    model = convert(official_layout(pretrained), num_labels=7)
    assert model.config.num_labels == 7
    assert model.classifier.weight.std() < 1e-3  # the start of a new classifier
    assert torch.equal(model.videomae_v2.fc_norm.weight, torch.ones(24))
    assert not torch.equal(model.videomae_v2.fc_norm.weight, pretrained.videomae_v2.layernorm.weight)
    for name, parameter in pretrained.videomae_v2.encoder.named_parameters():
        assert torch.equal(model.videomae_v2.encoder.get_parameter(name), parameter)
    named = convert(official_layout(pretrained), labels=["up", "down", "left"])
    assert named.config.id2label == {0: "up", 1: "down", 2: "left"}
    by_config = VideoMAEV2Config(**TINY, num_labels=4)
    assert convert(official_layout(pretrained), config=by_config).config.num_labels == 4


def test_pretraining_file_asked_for_features(pretrained):
    """The encoder with its norm of every token; never with a pooling that nobody trained."""
    with pytest.raises(ValueError, match="`use_mean_pooling` cannot be True.*untrained layer"):
        convert(official_layout(pretrained), FEATURES, use_mean_pooling=True)
    encoder = convert(official_layout(pretrained), FEATURES)
    assert torch.equal(encoder.layernorm.weight, pretrained.videomae_v2.layernorm.weight)
    clip, mask = torch.randn(1, 4, 3, 8, 8), torch.tensor([[True, False, True, True, False, True, False, True]])
    with torch.no_grad():
        expected = pretrained(clip, mask).encoder_last_hidden_state
        assert torch.equal(encoder(clip, mask).last_hidden_state, expected)
    by_config = convert(official_layout(pretrained), FEATURES, config=VideoMAEV2Config(**TINY))
    assert same_weights(by_config, encoder)


@pytest.mark.parametrize("model_class", [VideoMAEV2Model, VideoMAEV2ForVideoClassification])
def test_no_decoder_no_pretraining(model_class):
    with pytest.raises(ValueError, match="has no decoder"):
        convert(official_layout(tiny_model(model_class)), PRETRAINING)


def test_headless_file_asked_for_classification():
    encoder = tiny_model(VideoMAEV2Model)
    with pytest.raises(ValueError, match="headless checkpoint without a classifier"):
        convert(official_layout(encoder))
    model = convert(official_layout(encoder), num_labels=3)
    assert torch.equal(model.videomae_v2.fc_norm.weight, encoder.fc_norm.weight)


# What is said of the configuration


def test_heads_must_be_told_for_unpublished_widths(classifier, pretrained):
    sizes = {"num_frames": 4, "image_size": 8}
    with pytest.raises(ValueError, match="`num_attention_heads` is needed.* hidden_size 24"):
        convert_checkpoint("videomae_v2", official_layout(classifier), task=CLASSIFICATION, **sizes)
    with pytest.raises(ValueError, match="`decoder_num_attention_heads` is needed.* decoder_hidden_size 16"):
        convert_checkpoint(
            "videomae_v2", official_layout(pretrained), task=PRETRAINING, num_attention_heads=3, **sizes
        )
    with pytest.raises(ValueError, match="`num_attention_heads` must divide"):
        convert(official_layout(classifier), num_attention_heads=5)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12)])
def test_heads_of_published_widths(width, heads):
    model = tiny_model(VideoMAEV2ForVideoClassification, hidden_size=width, num_attention_heads=heads)
    converted = convert_checkpoint(
        "videomae_v2", official_layout(model), task=CLASSIFICATION, num_frames=4, image_size=8
    )
    assert converted.config.num_attention_heads == heads


def test_frames_and_size_default_to_the_published_ones():
    model = tiny_model(VideoMAEV2ForVideoClassification, patch_size=16, num_frames=16, image_size=224)
    converted = convert_checkpoint("videomae_v2", official_layout(model), task=CLASSIFICATION, num_attention_heads=3)
    assert (converted.config.num_frames, converted.config.image_size) == (16, 224)
    assert same_weights(converted, model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 48}, "`hidden_size` is 48, but the given state dict has 24"),
        ({"num_hidden_layers": 3}, "`num_hidden_layers` is 3, but .* has 2"),
        ({"use_mean_pooling": False}, "`use_mean_pooling` is False, but .* has True"),
        ({"layer_scale_init_value": 0.1}, "no layer scales"),
        ({"num_labels": 9}, "has 5 classes, but 9 are given"),
        ({"labels": ["a", "b"]}, "has 5 classes, but 2 are given"),
        ({"labels": ["a", "b", "c", "d", "a"]}, "names a class twice"),
        ({"labels": "k400"}, "has 5 classes, but 'k400' has 400"),
        ({"labels": "ssv3"}, "`name` must be one of k400"),
        ({"labels": "ssv2"}, "has 5 classes, but 'ssv2' has 174"),
        ({"labels": "k600-mmaction2"}, "is an order of MMAction2's ports of UniFormerV2"),
        ({"hiden_size": 24}, "Did you mean `hidden_size`"),
        ({"colour": "red"}, "`colour` is not a field of VideoMAEV2Config"),
        ({"labels": list("abcde"), "num_labels": 5}, "Pass `labels` or `num_labels`, not both"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must divide `hidden_size`, got 0"),
        ({"published": "videomae-v2-base-k710-distilled"}, "`hidden_size` is 768"),
        ({"published": "videomae"}, "`name` must be one of"),
        ({"config": 3}, "`config` must be a VideoMAEV2Config, got int"),
    ],
)
def test_wrong_claims(fields, message, classifier):
    if "published" in fields:
        fields = {**fields, "num_attention_heads": 12}
    with pytest.raises(ValueError, match=message):
        convert(official_layout(classifier), **fields)


def test_config_is_used_and_kept(classifier):
    config = VideoMAEV2Config(**TINY, drop_path_rate=0.2, id2label={i: f"class {i}" for i in range(5)})
    before = config.to_dict()
    model = convert_checkpoint("videomae_v2", official_layout(classifier), task=CLASSIFICATION, config=config)
    assert model.config.drop_path_rate == 0.2
    assert model.config.id2label[4] == "class 4"
    assert config.to_dict() == before
    assert same_weights(model, classifier)
    with pytest.raises(ValueError, match="`config` or `published`"):
        convert(official_layout(classifier), config=config, published="videomae-v2-base-k710-distilled")


def test_the_file_must_be_the_published_one(pretrained, classifier):
    with pytest.raises(ValueError, match="has the fine-tuned layout, but the given state dict has the pretraining"):
        convert(official_layout(pretrained), published="videomae-v2-base-k710-distilled")
    with pytest.raises(ValueError, match="has the pretraining layout, but the given state dict has the fine-tuned"):
        convert(official_layout(classifier), published="videomae-v2-giant-pretrained")


def test_wrong_family_and_task(classifier):
    with pytest.raises(ValueError, match="`model_type` must be one of .*videomae_v2, got 'vit'"):
        convert_checkpoint("vit", {}, task=CLASSIFICATION)
    with pytest.raises(ValueError, match="`task` must be one of .* got 'detection'"):
        convert(official_layout(classifier), "detection")


# Kinetics heads


@pytest.fixture(scope="module")
def kinetics():
    return tiny_model(VideoMAEV2ForVideoClassification, num_labels=710)


def test_710_classes_have_names(kinetics):
    model = convert(official_layout(kinetics))
    assert [model.config.id2label[i] for i in range(710)] == published_labels("k710")
    assert model.config.label2id["riding a bike"] == 0


@pytest.mark.parametrize("name", ["k400", "k600", "k700", "k710"])
def test_rows_of_the_710_head(name, kinetics):
    model = convert(official_layout(kinetics), labels=name)
    names = published_labels(name)
    assert [model.config.id2label[i] for i in range(len(names))] == names
    rows = list(range(710)) if name == "k710" else kinetics_710_rows(name)
    assert torch.equal(model.classifier.weight, kinetics.classifier.weight[rows])
    assert torch.equal(model.classifier.bias, kinetics.classifier.bias[rows])
    clip = torch.randn(1, 4, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(model(clip).logits, kinetics(clip).logits[:, rows], atol=1e-5)


def test_other_sizes_stay_unnamed_unless_told():
    model = tiny_model(VideoMAEV2ForVideoClassification, num_labels=400)
    assert convert(official_layout(model)).config.id2label[0] == "LABEL_0"
    assert convert(official_layout(model), labels="k400").config.id2label[0] == "abseiling"


# MMAction2's ports


def ported(model):
    """The layout of MMAction2, which saves the position table."""
    renamed = (
        ("patch_embed.proj", "patch_embed.projection"),
        ("mlp.fc1", "mlp.layers.0.0"),
        ("mlp.fc2", "mlp.layers.1"),
    )
    state = {}
    for name, tensor in official_layout(model).items():
        for official, theirs in renamed:
            name = name.replace(official, theirs)
        state[f"cls_head.fc_cls.{name[5:]}" if name.startswith("head.") else f"backbone.{name}"] = tensor
    return {**state, "backbone.pos_embed": model.videomae_v2.embeddings.position_embeddings.table[None]}


def test_mmaction2(classifier, tmp_path):
    state = ported(classifier)
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "w.pth")
    assert same_weights(convert(tmp_path / "w.pth"), classifier)
    with pytest.raises(ValueError, match="pos_embed has 8 positions, but clips of `num_frames` 4 and `image_size` 16"):
        convert(state, image_size=16)
    state["backbone.pos_embed"] = state["backbone.pos_embed"] + 0.01
    with pytest.raises(ValueError, match="learnt positions are not supported"):
        convert(state)


def test_mmaction2_orders_classes_its_own_way(kinetics):
    assert convert(ported(kinetics)).config.id2label[0] == "LABEL_0"
    with pytest.raises(ValueError, match="another order than MMAction2's"):
        convert(ported(kinetics), labels="k710")
    with pytest.raises(ValueError, match="another order than MMAction2's"):
        convert(ported(kinetics), labels="k400")
    with pytest.raises(ValueError, match="has the fine-tuned layout, but .* has the MMAction2 layout"):
        convert(ported(kinetics), published="videomae-v2-base-k710-distilled")
    spoken = tiny_model(VideoMAEV2ForVideoClassification, num_labels=400)
    assert convert(ported(spoken), labels="k400").config.id2label[0] == "abseiling"


# Hub repositories with remote code


REMOTE = {"img_size": 8, "patch_size": 4, "in_chans": 3, "num_classes": 0, "embed_dim": 24, "depth": 2, "num_heads": 3}
REMOTE |= {"mlp_ratio": 4, "qkv_bias": True, "layer_norm_eps": 1e-6, "tubelet_size": 2, "use_mean_pooling": True}
REMOTE |= {"num_frames": 4, "cos_attn": False}


def remote_repository(folder, **fields):
    encoder = tiny_model(VideoMAEV2Model)
    save_file(
        {f"model.{name}": tensor for name, tensor in official_layout(encoder).items()}, folder / "model.safetensors"
    )
    config = {"model_type": "VideoMAEv2_Base", "auto_map": {}, "model_config": {**REMOTE, **fields}}
    (folder / "config.json").write_text(json.dumps(config))
    return encoder


def test_remote_code_repository(tmp_path):
    encoder = remote_repository(tmp_path)
    model = convert_checkpoint("videomae_v2", tmp_path, task=FEATURES)  # its config.json says the rest
    assert same_weights(model, encoder)
    assert (model.config.num_attention_heads, model.config.image_size, model.config.num_frames) == (3, 8, 4)
    assert same_weights(convert(tmp_path / "model.safetensors", FEATURES), encoder)


def test_remote_configuration_must_agree(tmp_path):
    remote_repository(tmp_path, depth=12)
    with pytest.raises(ValueError, match="config.json has depth=12, but the weights beside it have 2"):
        convert_checkpoint("videomae_v2", tmp_path, task=FEATURES)


# Folders


@pytest.mark.parametrize("shard_bytes", [5 * 10**9, 20000])
@pytest.mark.parametrize("task", [CLASSIFICATION, FEATURES, PRETRAINING])
def test_a_folder_is_what_convert_checkpoint_makes(task, shard_bytes, classifier, pretrained, tmp_path):
    torch.save({"module": official_layout(pretrained if task == PRETRAINING else classifier)}, tmp_path / "w.pth")
    fields = UNSHOWN_PRETRAINING if task == PRETRAINING else UNSHOWN
    folder = convert_to_folder(
        "videomae_v2", tmp_path / "w.pth", tmp_path / "made", task=task, max_shard_bytes=shard_bytes, **fields
    )
    in_memory = convert(tmp_path / "w.pth", task)
    loaded, info = LOADERS[task].from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is type(in_memory)
    assert same_weights(loaded, in_memory)
    assert not any(info.values())
    assert loaded.config.architectures == [type(loaded).__name__]
    difference = {"architectures", "_name_or_path"}
    ours, theirs = loaded.config.to_dict(), in_memory.config.to_dict()
    assert {k: v for k, v in ours.items() if k not in difference} == {
        k: v for k, v in theirs.items() if k not in difference
    }
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.size.shortest_edge, processor.frame_stride) == (4, 8, 4)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_bytes == 20000)
    assert all(file.stat().st_size < shard_bytes + 4096 for file in folder.glob("*.safetensors"))


def test_a_tensor_larger_than_a_shard_gets_a_file_of_its_own(classifier, tmp_path):
    state = official_layout(classifier)
    folder = convert_to_folder(
        "videomae_v2", state, tmp_path / "made", task=CLASSIFICATION, max_shard_bytes=3000, **UNSHOWN
    )
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    sizes = {name: tensor.nbytes for name, tensor in classifier.state_dict().items()}
    large = [name for name, size in sizes.items() if size > 3000]
    assert large and index["metadata"]["total_size"] == sum(sizes.values())
    for file in set(index["weight_map"].values()):
        held = [name for name, place in index["weight_map"].items() if place == file]
        assert len(held) == 1 or sum(sizes[name] for name in held) <= 3000
        assert load_file(folder / file).keys() == set(held)
    loaded = LOADERS[CLASSIFICATION].from_pretrained(folder)
    assert same_weights(loaded, classifier)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_written_weights_are_ordinary_safetensors(dtype, classifier, tmp_path):
    folder = convert_to_folder(
        "videomae_v2", official_layout(classifier), tmp_path / "made", task=CLASSIFICATION, dtype=dtype, **UNSHOWN
    )
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == classifier.state_dict().keys()
    for name, tensor in classifier.state_dict().items():
        assert weights[name].dtype == dtype
        assert torch.equal(weights[name], tensor.to(dtype))
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_a_folder_follows_the_published_protocol(tmp_path):
    """The whole of a small published checkpoint's path but its weights."""
    config = published_config("videomae-v2-small-k710-distilled")
    torch.manual_seed(0)
    state = official_layout(VideoMAEV2ForVideoClassification(config))
    torch.save({"module": {name: tensor.half() for name, tensor in state.items()}}, tmp_path / "w.pth")
    options = {"task": CLASSIFICATION, "published": "videomae-v2-small-k710-distilled"}
    folder = convert_to_folder("videomae_v2", tmp_path / "w.pth", tmp_path / "k710", **options)
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_clips, processor.num_crops, processor.frame_stride) == (5, 3, 4)
    assert (tmp_path / "w.pth").stat().st_size == pytest.approx(44334609, rel=1e-3)  # the listed size
    smaller = convert_checkpoint("videomae_v2", tmp_path / "w.pth", labels="k400", **options)
    assert smaller.config.num_labels == 400
    assert smaller.config.id2label[399] == published_labels("k400")[399]


def test_a_folder_that_holds_something_is_left_alone(classifier, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="`folder` .* is not empty"):
        convert_to_folder(
            "videomae_v2", official_layout(classifier), tmp_path / "made", task=CLASSIFICATION, **UNSHOWN
        )
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["notes.txt"]


def test_a_failed_conversion_leaves_nothing(classifier, tmp_path):
    state = changed(official_layout(classifier), fc_norm__bias=None)
    with pytest.raises(ValueError, match="missing"):
        convert_to_folder("videomae_v2", state, tmp_path / "made", task=CLASSIFICATION, **UNSHOWN)
    with pytest.raises(ValueError, match="`max_shard_bytes`"):
        convert_to_folder("videomae_v2", state, tmp_path / "made", task=CLASSIFICATION, max_shard_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_classifier_in_a_folder(pretrained, tmp_path):
    folder = convert_to_folder(
        "videomae_v2", official_layout(pretrained), tmp_path / "made", task=CLASSIFICATION, num_labels=3, **UNSHOWN
    )
    loaded = AutoModelForVideoClassification.from_pretrained(folder)
    assert torch.equal(loaded.videomae_v2.fc_norm.weight, torch.ones(24))
    assert loaded.classifier.weight.shape == (3, 24)


# The official code's own numbers (all of them: `python -m tests.parity`)


@pytest.mark.parametrize("case", ["finetune", "finetune_options"])
def test_official_logits(case):
    config = json.loads((FIXTURES / case / "config.json").read_text())
    expected = load_file(FIXTURES / case / "io.safetensors")
    model = convert_checkpoint(
        "videomae_v2",
        FIXTURES / case / "checkpoint.pth",
        task=CLASSIFICATION,
        num_attention_heads=config["num_heads"],
        image_size=config["img_size"],
        num_frames=config["all_frames"],
    )
    with torch.no_grad():
        logits = model(expected["pixel_values"].transpose(1, 2)).logits
    torch.testing.assert_close(logits, expected["logits"], atol=2e-5, rtol=1e-4)
