"""TubeViT beyond the common tests: tubes on inputs of any size, positions, gate, pooling, several data sets."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_videovit import (
    TubeViTConfig,
    TubeViTForImageClassification,
    TubeViTForJointClassification,
    TubeViTForVideoClassification,
    TubeViTModel,
)
from hf_videovit.modeling.configuration_tubevit import TUBE_SETS, Tube, named_tubes, table_14_tubes
from tests.test_parity import FIXTURES


SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 32, "num_labels": 5}
DATASETS = {
    "kinetics": {"num_labels": 6},
    "imagenet": {"labels": ["cat", "dog", "bird"]},
    "charades": {"num_labels": 4, "problem_type": "multi_label_classification"},
}
SETS = {"main": "main", "core": "core", "charades": "charades", "patch_only": "patches"}


def small(model_class: type = TubeViTModel, seed: int = 0, **fields) -> torch.nn.Module:
    torch.manual_seed(seed)
    return model_class(TubeViTConfig(**{**SMALL, **fields})).eval()


def triples(least: int, most: int):
    return st.tuples(*[st.integers(least, most)] * 3)


@given(triples(1, 5), triples(1, 3), triples(1, 3), triples(0, 3), triples(1, 16))
def test_the_grid_counts_whole_groups_of_windows_that_fit(kernel, steps, factors, offset, size):
    tube = Tube(kernel, tuple(step * factor for step, factor in zip(steps, factors)), offset, factors)
    for axis in range(3):
        starts = [at for at in range(offset[axis], size[axis], steps[axis]) if at + kernel[axis] <= size[axis]]
        assert tube.grid(size)[axis] == len(starts) // factors[axis]


@pytest.mark.parametrize("theirs", SETS)
def test_named_sets(theirs):
    config = json.loads((FIXTURES / "tubevit" / "positions" / "config.json").read_text())
    names = {"kernel": "kernel", "stride": "stride", "offset": "offset", "s2d": "space_to_depth"}
    tubes = [{names[key]: value for key, value in tube.items()} for tube in config["tube_sets"][theirs]]
    assert list(TUBE_SETS[SETS[theirs]]) == [Tube.from_dict(tube) for tube in tubes]


def test_table_14_in_its_own_notation():
    assert table_14_tubes("(a+iv)+(h+v)") == (
        Tube((1, 16, 16), (16, 16, 16)),
        Tube((32, 8, 8), (32, 32, 32)),
    )
    with pytest.raises(ValueError, match="`row` must combine"):
        table_14_tubes("(z+iv)")


@pytest.mark.parametrize(
    "size", [(1, 224, 224), (8, 224, 224), (19, 64, 64), (20, 64, 96), (33, 45, 71), (32, 16, 16), (5, 300, 17)]
)
def test_any_length_and_size(size):
    """The tokens are those that the configuration counts; a tube that does not fit gives none."""
    model = small()
    frames, height, width = size
    outputs = model(torch.randn(1, frames, 3, height, width))
    assert outputs.last_hidden_state.shape == (1, model.config.num_tokens(size), 24)
    assert outputs.pooler_output.isfinite().all()


def test_an_input_without_any_token_is_refused():
    with pytest.raises(ValueError, match="`pixel_values` of 2 frames of 15 x 200 pixels gives no token"):
        small()(torch.randn(1, 2, 3, 15, 200))
    with pytest.raises(ValueError, match="no tube fits"):  # a set without the image patch
        small(tubes="(c+iv)+(e+v)+(g+iv)")(torch.randn(1, 3, 64, 64))


def test_an_image_is_a_clip_of_one_frame():
    model, images = small(), torch.randn(2, 3, 48, 64)
    assert torch.equal(model(images).last_hidden_state, model(images[:, None]).last_hidden_state)


def test_heads_for_images_and_videos_have_the_same_weights():
    video, image = small(TubeViTForVideoClassification), small(TubeViTForImageClassification, seed=1)
    image.load_state_dict(video.state_dict())
    pixel_values = torch.randn(2, 3, 32, 32)
    assert torch.equal(image(pixel_values).logits, video(pixel_values[:, None]).logits)
    with pytest.raises(ValueError, match="Use TubeViTForImageClassification for images"):
        video(pixel_values)
    with pytest.raises(ValueError, match="`pixel_values` must be images"):
        image(pixel_values[:, None])


def test_tokens_come_tube_by_tube_and_frame_by_frame():
    """What lies in one window changes one token of the first tube alone, and where it should."""
    model, clip = small(tubes="core"), torch.randn(1, 32, 3, 48, 48)
    changed = clip.clone()
    changed[:, 16:24, :, 32:40, 0:8] += 1.0  # second in time, third row, first column
    difference = (model.embeddings.tokens(changed) - model.embeddings.tokens(clip)).abs().sum(-1)[0]
    first = 2 * 3 * 3
    assert difference[:first].nonzero().flatten().tolist() == [9 + 2 * 3]
    # the patch tube looks at frames 0 and 16
    assert difference[first:].nonzero().flatten().tolist() == [9 + 2 * 3]


@pytest.mark.parametrize("field", ["position_frequencies", "position_centre"])
def test_open_choices_of_the_positions_change_them(field):
    other = {"position_frequencies": "literal", "position_centre": "middle"}[field]
    size, device = (32, 64, 64), torch.device("cpu")
    ours, theirs = (small(**fields).embeddings.positions(size, device) for fields in ({}, {field: other}))
    assert ours.shape == theirs.shape
    assert not torch.equal(ours, theirs)


def test_learnt_image_positions_leave_the_first_frame_as_the_image_vit_saw_it():
    model = small(image_position_grid=[3, 4], tubes=[{"kernel": [1, 16, 16], "stride": [8, 16, 16]}])
    positions = model.embeddings.positions((9, 48, 64), torch.device("cpu")).view(2, 12, 24)
    assert torch.equal(positions[0], model.embeddings.image_positions.table)
    assert not torch.equal(positions[1], positions[0])
    assert model.embeddings.positions((1, 64, 64), torch.device("cpu")).shape == (16, 24)


@pytest.mark.parametrize("gate_positions", [True, False])
def test_a_fresh_gate_changes_nothing_to_the_last_bit(gate_positions):
    plain, gated = small(seed=3), small(seed=4, gate_layer=2, gate_positions=gate_positions)
    gated.load_state_dict({**gated.state_dict(), **plain.state_dict()})
    clip = torch.randn(2, 32, 3, 48, 48)
    for one, other in zip(plain(clip).values(), gated(clip).values(), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        gated.encoder.gate.alpha += 0.5
    expected = plain.embeddings(clip)[0] if gate_positions else plain.embeddings.tokens(clip)
    states = gated(clip, output_hidden_states=True).hidden_states
    after = states[2] + torch.tensor(0.5).tanh() * expected
    torch.testing.assert_close(gated.encoder.layers[2](after), states[3])


@pytest.mark.parametrize("pooling", ["attention", "attention_mlp", "score"])
def test_pooling_weights(pooling):
    """They sum to one; equal tokens weigh alike."""
    model = small(pooling_type=pooling)
    weights = model.pooler.weights(torch.randn(2, 7, 24))
    assert weights.shape == (2, 1 if pooling == "score" else 3, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    torch.testing.assert_close(model.pooler.weights(torch.ones(1, 4, 24))[0, 0], torch.full((4,), 0.25))


def test_kernels_narrower_than_the_model_keep_the_first_channels():
    tubes = [{"kernel": [4, 4, 4], "stride": [8, 16, 16], "space_to_depth": [4, 1, 1], "channels": 8}]
    model = small(tubes=tubes)
    tube, clip = model.embeddings.tubes[0], torch.randn(1, 16, 3, 16, 16)
    windows = torch.nn.functional.conv3d(clip.transpose(1, 2), tube.weight, tube.bias, stride=(2, 16, 16))
    expected = windows[0, :, :4, 0, 0].T.flatten()[:24]  # four windows of 8 channels, 24 of the 32 kept
    torch.testing.assert_close(model.embeddings.tokens(clip)[0, 0], expected)


def test_joint_batches_leave_the_other_heads_without_gradient():
    model = small(TubeViTForJointClassification, datasets=DATASETS).train()
    inputs = {
        "kinetics": (torch.randn(2, 32, 3, 32, 32), torch.tensor([0, 5])),
        "imagenet": (torch.randn(2, 3, 32, 32), torch.tensor([2, 1])),
        "charades": (torch.randn(2, 32, 3, 32, 32), torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]])),
    }
    for name, (pixel_values, labels) in inputs.items():
        model.zero_grad(set_to_none=True)
        outputs = model(pixel_values, name, labels=labels)
        assert outputs.logits.shape == (2, model.config.datasets[name]["num_labels"])
        outputs.loss.backward()
        for other, head in model.classifiers.items():
            assert (head.weight.grad is not None) == (other == name)
        assert model.tubevit.encoder.layers[0].mlp.fc1.weight.grad is not None
    with pytest.raises(ValueError, match="`dataset` must be one of"):
        model(inputs["imagenet"][0], "nothing")


def test_a_data_set_alone(tmp_path):
    model = small(TubeViTForJointClassification, datasets=DATASETS)
    model.save_pretrained(tmp_path)
    model = TubeViTForJointClassification.from_pretrained(tmp_path).eval()
    clip, image = torch.randn(1, 16, 3, 32, 32), torch.randn(1, 3, 32, 32)
    video = model.single("kinetics")
    assert isinstance(video, TubeViTForVideoClassification)
    assert torch.equal(video(clip).logits, model(clip, "kinetics").logits)
    images = model.single("imagenet", images=True)
    assert images.config.id2label == {0: "cat", 1: "dog", 2: "bird"}
    assert torch.equal(images(image).logits, model(image, "imagenet").logits)
    several = model.single("charades")
    assert several.config.problem_type == "multi_label_classification"
    views = torch.randn(1, 3, 16, 3, 32, 32)
    assert torch.equal(several(views).logits, model(views, "charades").logits)
    torch.testing.assert_close(
        several(views).logits.sigmoid(), several(views[0]).logits.sigmoid().mean(0, keepdim=True)
    )
    images.save_pretrained(tmp_path / "alone")
    alone = TubeViTForImageClassification.from_pretrained(tmp_path / "alone").eval()
    assert torch.equal(alone(image).logits, images(image).logits)


def test_a_video_classifier_goes_on_from_a_joint_one(tmp_path):
    """As for Something-Something and Charades: everything but the classifier is there."""
    small(TubeViTForJointClassification, datasets=DATASETS).save_pretrained(tmp_path)
    _, info = TubeViTForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tubes": "mian"}, "`tubes` must be one of"),
        ({"tubes": []}, "`tubes` must name at least one"),
        ({"tubes": [{"kernel": [1, 16, 16]}]}, "`tubes` entries take the fields"),
        ({"tubes": [{"kernel": [1, 16], "stride": [1, 16, 16]}]}, "`kernel` of a tube must be three"),
        (
            {"tubes": [{"kernel": [8, 8, 8], "stride": [5, 8, 8], "space_to_depth": [2, 1, 1]}]},
            "`stride` of a tube must be divisible",
        ),
        ({"tubes": [{"kernel": [8, 8, 8], "stride": [7, 8, 8], "space_to_depth": [7, 1, 1]}]}, "must divide `hidden"),
        ({"gate_layer": 4}, "`gate_layer` must be between 0 and"),
        ({"pooling_type": "mean"}, "`pooling_type` must be one of"),
        ({"position_centre": "left"}, "`position_centre` must be one of"),
        ({"image_position_grid": [0, 2]}, "`image_position_grid` must be 2 positive"),
        ({"datasets": {"a.b": {"num_labels": 2}}}, "`datasets` must not be empty or contain a dot"),
        ({"datasets": {"a": {}}}, "`datasets` entries need `num_labels`"),
        ({"datasets": {"a": {"num_labels": 3, "labels": ["x"]}}}, "must have 3 names"),
        ({"datasets": {"a": {"num_labels": 3, "problem_type": "guess"}}}, "`problem_type` of data set"),
        ({"poling_type": "score"}, "Did you mean `pooling_type`"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(ValueError, match=message):
        TubeViTConfig(**{**SMALL, **fields})


def test_the_joint_model_needs_data_sets():
    with pytest.raises(ValueError, match="`datasets` of the configuration"):
        small(TubeViTForJointClassification)


def test_tubes_survive_the_configuration_file(tmp_path):
    config = TubeViTConfig(tubes="main")
    config.save_pretrained(tmp_path)
    assert TubeViTConfig.from_pretrained(tmp_path).tube_list == named_tubes("main")
