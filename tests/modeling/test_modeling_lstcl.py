"""What is special to LSTCL: encoders, branches, losses, and several processes that act as one."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import TimesformerConfig, TimesformerModel, VideoMAEConfig

from hf_videovit import LstclConfig, LstclForPreTraining, LstclForVideoClassification, LstclModel
from hf_videovit.modeling.modeling_lstcl_heads import contrastive_loss
from tests.families import FAMILIES, LABELS
from tests.two_processes import run_in_processes, training_step


TINY = next(family for family in FAMILIES if family.name == "lstcl").tiny
SWIN = {
    "backbone": "video_swin",
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "num_attention_heads": [2, 4],
    "window_size": [2, 2, 2],
    "image_size": 32,
    "num_frames": 4,
}


def pretraining(**fields) -> LstclForPreTraining:
    torch.manual_seed(0)
    model = LstclForPreTraining(LstclConfig(**{**TINY, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def clips(count: int = 4, frames: int = 4, size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


# Encoders


def test_a_fresh_encoder_does_not_look_across_frames():
    torch.manual_seed(0)
    model = LstclModel(LstclConfig(**TINY)).eval()
    frame = clips(2, 1)
    one = model(frame.expand(-1, 4, -1, -1, -1)).pooler_output
    torch.testing.assert_close(model(frame).pooler_output, one, atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model(clips()[:, order]).pooler_output, model(clips()).pooler_output, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_times_are_resized(interpolation):
    model = LstclModel(LstclConfig(**TINY, time_interpolation=interpolation)).eval()
    table = model.backbone.embeddings.time_embeddings
    with torch.no_grad():
        table.copy_(torch.arange(4.0)[None, :, None].expand(-1, -1, table.shape[-1]))
        model.backbone.embeddings.position_embeddings.zero_()
        for parameter in model.backbone.embeddings.patch_embeddings.parameters():
            parameter.zero_()
        tokens = model.backbone.embeddings(clips(1, 8), (8, 4, 4))[0, 1:9, 0]
    expected = [0, 0, 1, 1, 2, 2, 3, 3] if interpolation == "nearest" else [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    torch.testing.assert_close(tokens, torch.tensor(expected, dtype=torch.float32))


def test_divided_swin_attends_over_time():
    torch.manual_seed(0)
    model = LstclModel(LstclConfig(**{**SWIN, "window_size": [1, 2, 2]}, temporal_attention="divided")).eval()
    changed = clips(1)
    changed[:, 0] += 1
    before, after = (model(one).last_hidden_state.view(1, 4, -1) for one in (clips(1), changed))
    assert torch.equal(before[:, 3], after[:, 3])  # the projection of a fresh model is zero
    with torch.no_grad():
        for stage in model.backbone.encoder.stages:
            for layer in stage.layers:
                layer.temporal_fc.weight.normal_()
    before, after = (model(one).last_hidden_state.view(1, 4, -1) for one in (clips(1), changed))
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


ENCODERS = [family.config() for family in FAMILIES if family.name != "lstcl"] + [
    config_class(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        patch_size=8,
        image_size=32,
        num_frames=4,
    )
    for config_class in (TimesformerConfig, VideoMAEConfig)
]


@pytest.mark.parametrize("config", ENCODERS, ids=lambda config: config.model_type)
def test_any_encoder(config, tmp_path):
    heads = {"projection_size": 8, "projection_hidden_size": 12, "prediction_hidden_size": 12}
    model = LstclForPreTraining(LstclConfig(backbone_config=config, **heads)).train()
    assert model.config.backbone == config.model_type
    frames = config.num_frames
    model(clips(frames=frames), clips(frames=frames, seed=2)).loss.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.lstcl.parameters())
    assert not any(parameter.requires_grad for parameter in model.target.parameters())
    model.eval().save_pretrained(tmp_path)
    encoder = LstclModel.from_pretrained(tmp_path).eval()
    assert type(encoder.config.backbone_config) is type(config)
    expected = model.lstcl(clips(frames=frames)).pooler_output
    assert torch.equal(encoder(clips(frames=frames)).pooler_output, expected)
    groups = model.layer_groups()
    assert all(name.startswith(tuple(prefix for depth in groups for prefix in depth)) for name in model.state_dict())


def test_transformers_timesformer_takes_only_what_it_was_built_for():
    """It takes frames and size from its configuration, and answers wrongly for others."""
    model = LstclModel(LstclConfig(backbone_config=ENCODERS[-2]))
    assert isinstance(model.backbone, TimesformerModel)
    with pytest.raises(ValueError, match="4 frames"):
        model(clips(frames=8))


# What TimeSformer spares


def watched(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose modules are all watched, so that each is called."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"drop_path_rate": 0.5},
        {"hidden_dropout_prob": 1e-9},  # dropout that drops nothing, yet stands between layers
        {"attention_type": "joint_space_time"},
        {"attention_type": "space_only"},
        {"feature_pooling": "mean"},
        {"qkv_bias": False},
        {"attention_probs_dropout_prob": 1e-9},
    ],
    ids=str,
)
def test_spared_work_changes_nothing(fields):
    torch.manual_seed(0)
    model = LstclForVideoClassification(LstclConfig(**{**TINY, **fields}, num_labels=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other, pixel_values, labels = watched(model), clips(), torch.tensor([0, 1, 2, 0])
    for training in (True, False):
        for either in (model, other):
            torch.manual_seed(1)
            either.train(training).zero_grad()
            either(pixel_values, labels=labels).loss.backward()
        for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-4, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values).logits, other(pixel_values).logits, atol=1e-6, rtol=1e-5)


# Branches and losses


def test_infonce_as_a_loop():
    query, key, temperature = torch.randn(5, 8), torch.randn(5, 8), 0.3
    expected = 0.0
    for index in range(5):
        cosines = torch.stack([F.cosine_similarity(query[index], other, dim=0) for other in key])
        expected -= torch.log_softmax(cosines / temperature, dim=0)[index] * 2 * temperature / 5
    torch.testing.assert_close(contrastive_loss(query, key, temperature), expected)


@pytest.mark.parametrize("framework", ["moco_v3", "byol", "simsiam"])
def test_one_way_is_a_part_of_the_symmetric_loss(framework):
    short, long = clips(), clips(seed=2)
    losses = {}
    for symmetric in (False, True):
        model = pretraining(framework=framework, symmetric=symmetric).train()
        losses[symmetric] = model(short, long).loss
    model = pretraining(framework=framework).train()
    back = model(long, short).loss
    expected = (losses[False] + back) * (0.5 if framework == "simsiam" else 1)
    torch.testing.assert_close(losses[True], expected, atol=1e-5, rtol=1e-5)


def test_the_target_follows_before_the_keys_and_in_training_only():
    model = pretraining(framework="byol").train()
    online = [parameter.clone() for parameter in model.lstcl.parameters()]
    before = [parameter.clone() for parameter in model.target.lstcl.parameters()]
    model(clips(), clips(seed=2), target_momentum=0.25)
    for kept, old, new in zip(model.target.lstcl.parameters(), before, online):
        torch.testing.assert_close(kept, 0.25 * old + 0.75 * new)
    moved = [parameter.clone() for parameter in model.target.parameters()]
    model(clips(), clips(seed=2), update_target=False)
    model.eval()(clips(), clips(seed=2))
    assert all(torch.equal(now, then) for now, then in zip(model.target.parameters(), moved))
    still = pretraining(framework="byol").train()
    expected = still(clips(), clips(seed=2), target_momentum=torch.tensor(1.0)).long_key
    assert torch.equal(still(clips(), clips(seed=2), update_target=False).long_key, expected)


def test_the_target_keeps_its_own_batch_statistics():
    """In training it normalises by the batch; its running statistics are not the online branch's."""
    model = pretraining(framework="byol").train()
    model(clips(), clips(seed=2))
    assert model.target.training
    online, target = (head[1].running_mean for head in (model.projector, model.target.projector))
    assert target.any() and not torch.equal(online, target)


def test_half_precision_does_not_stop_the_target():
    model = pretraining(framework="byol").bfloat16()
    with torch.no_grad():
        for kept, new in zip(model.target.parameters(), [*model.lstcl.parameters(), *model.projector.parameters()]):
            kept.zero_()
            new.fill_(1.0)
    model.update_target(0.996)
    assert all(torch.allclose(one.float(), torch.tensor(0.004), rtol=0.01) for one in model.target.parameters())


def test_frozen_patches_still_enter_the_target():
    model = pretraining(freeze_patch_embeddings=True).train()
    patches = model.get_input_embeddings().projection
    model.target.lstcl.backbone.embeddings.patch_embeddings.projection.weight.zero_()
    model(clips(), clips(seed=2), target_momentum=0.5).loss.backward()
    assert patches.weight.grad is None and patches.bias.grad is None
    moved = model.target.lstcl.backbone.embeddings.patch_embeddings.projection.weight
    torch.testing.assert_close(moved, 0.5 * patches.weight)
    assert LstclConfig().freeze_patch_embeddings and not LstclConfig(framework="byol").freeze_patch_embeddings
    classifier = LstclForVideoClassification(LstclConfig(**TINY))
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_drop_path_is_the_online_branch_s_alone():
    model = pretraining(drop_path_rate=0.5)
    rates = [[layer.drop_path.p for layer in one.backbone.encoder.layers] for one in (model.lstcl, model.target.lstcl)]
    assert rates == [[0.0, 0.5], [0.0, 0.0]]


def test_simsiam_has_no_target_and_stops_gradients():
    model = pretraining(framework="simsiam").train()
    assert model.target is None and model.projector[0].weight.shape[0] == TINY["projection_hidden_size"]
    assert LstclConfig(framework="simsiam").projection_hidden_size == 768
    outputs = model(clips(), clips(seed=2))
    assert not outputs.long_key.requires_grad
    expected = -F.cosine_similarity(outputs.short_query, outputs.long_key, dim=1).mean()
    torch.testing.assert_close(outputs.loss, expected)


def test_clips_of_other_lengths():
    model = pretraining(symmetric=True).train()
    assert model(clips(frames=2), clips(frames=8, seed=2)).loss.isfinite()


def test_an_encoder_s_checkpoint_starts_both_branches(tmp_path):
    torch.manual_seed(0)
    config = LstclConfig(**TINY, framework="byol", id2label=dict(enumerate(LABELS)))
    LstclForVideoClassification(config).save_pretrained(tmp_path)
    model = LstclForPreTraining.from_pretrained(tmp_path)
    for online, target in ((model.lstcl, model.target.lstcl), (model.projector, model.target.projector)):
        for name, value in online.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"framework": "dino"}, "framework"),
        ({"backbone": "vivit"}, "backbone_config"),
        ({"target_momentum": 1.5}, "target_momentum"),
        ({"temperature": 0}, "temperature"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"attention_type": "axial"}, "attention_type"),
        ({**SWIN, "temporal_attention": "divided", "window_size": [2, 2, 2]}, "window_size"),
        ({"backbone_config": {"hidden_size": 3}}, "model_type"),
        ({"temprature": 0.1}, "temperature"),
    ],
)
def test_bad_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LstclConfig(**{**TINY, **fields})


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["moco_v3", "simsiam"])
def test_two_processes_step_as_one(framework):
    """
    Loss, gradients, target and running statistics of two processes are those of one with all clips. The encoder is in
    double precision, for norms over six clips make much of last digits; the heads' norms and losses are in single.
    """
    fields = {**TINY, "framework": framework, "symmetric": True, "num_hidden_layers": 1}
    arguments = {"fields": fields, "state": pretraining(**fields).state_dict()}
    arguments |= {"short": clips(6).double(), "long": clips(6, seed=2).double()}
    alone = training_step(0, 1, **arguments)
    for answer in run_in_processes("training_step", 2, arguments):
        assert answer.keys() == alone.keys()
        for name, expected in alone.items():
            tolerance = 5e-5 * max(1.0, expected.abs().max().item())
            torch.testing.assert_close(answer[name], expected, atol=tolerance, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_processes_must_bring_as_many_clips():
    assert all(answer["refused"] for answer in run_in_processes("uneven_keys", 2, {}))


@pytest.mark.parametrize("framework", ["moco_v3", "byol", "simsiam"])
@pytest.mark.parametrize("counts", [(2, 1), (2, 4), (1, 2)])
def test_long_clips_of_other_videos_are_refused(framework, counts):
    """Losses would compare the first clips, or repeat a single one."""
    model = pretraining(framework=framework)
    with pytest.raises(ValueError, match="`long_pixel_values` must have as many clips as `pixel_values`"):
        model(clips(counts[0]), clips(counts[1]))
