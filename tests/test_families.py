"""What every model of every family must do, over the table of tiny configurations."""

import copy
import shutil
import sys

import pytest
import torch
import transformers
from torch.export import Dim
from transformers import AutoBackbone, AutoConfig, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import hf_videovit
from hf_videovit.modeling import layers
from hf_videovit.training.evaluation.evaluation import evaluate_model
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES, LONG, Case, cases, options_once


every_case = pytest.mark.parametrize("case", list(cases()), ids=str)
every_option = pytest.mark.parametrize("case", list(options_once()), ids=str)
every_head = pytest.mark.parametrize("case", list(cases(options=False)), ids=str)
every_loss = pytest.mark.parametrize("case", list(cases(trains=True)), ids=str)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_classifier = pytest.mark.parametrize(
    "case", list(cases(options=False, auto_class=AutoModelForVideoClassification)), ids=str
)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def answer(case: Case, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return case.head.answer(model(**inputs))


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, those included that are not saved."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@every_case
def test_forward(case):
    outputs = case.model()(**case.inputs())
    assert case.head.answer(outputs).isfinite().all()
    assert case.head.answer(outputs).shape[0] == 2
    if case.head.trains:
        assert outputs.loss.ndim == 0
        assert outputs.loss.isfinite()


@every_loss
def test_backward_reaches_every_parameter(case):
    model = case.model().train()
    model(**case.inputs()).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(case.head.idle):
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_case
def test_save_and_load_keep_every_parameter_and_buffer(case, tmp_path):
    """`from_pretrained` builds on the meta device: a table that is not saved must be made again."""
    model = case.model()
    model.save_pretrained(tmp_path)
    loaded, report = case.head.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    before, after = state(model), state(loaded)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype, name
        assert torch.equal(after[name], value), name
    assert torch.equal(answer(case, loaded.eval(), case.inputs()), answer(case, model, case.inputs()))


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(case, dtype, tmp_path):
    model = case.model()
    model.save_pretrained(tmp_path)
    half = case.head.model_class.from_pretrained(tmp_path, dtype=dtype).eval()
    saved = set(half.state_dict())
    for name, value in state(half).items():
        if name in saved:
            assert value.dtype == dtype or not value.is_floating_point(), name
        else:  # fixed tables keep their precision and are cast where they are used
            assert torch.equal(value, state(model)[name]), name
    inputs = case.inputs()  # pixels in float32: the model casts them
    result, expected = answer(case, half, inputs), answer(case, model, inputs)
    assert result.dtype == dtype
    relative = (result.float() - expected).norm() / expected.norm()
    assert relative < 0.05, relative


@every_head
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_raw_pixels_are_refused(case, dtype):
    model, inputs = case.model(), case.inputs()
    for name in [name for name in inputs if name.endswith("pixel_values")]:
        raw = {**inputs, name: (inputs[name].abs() * 50).to(dtype)}
        with pytest.raises(ValueError, match=f"`{name}` must be normalised floating-point pixels, got {dtype}"):
            model(**raw)


@every_classifier
def test_raw_pixels_of_several_views_are_refused(case):
    views = torch.randint(256, (1, 2, *case.inputs()["pixel_values"].shape[1:]), dtype=torch.uint8)
    with pytest.raises(ValueError, match="`pixel_values` must be normalised"):
        case.model()(views)


@every_case
def test_sdpa_equals_eager(case):
    model, inputs = case.model(), case.inputs()
    assert model.config._attn_implementation == "sdpa"
    expected = answer(case, model, inputs)
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    close(answer(case, model, inputs), expected)


@every_case
def test_a_batch_equals_its_samples(case):
    model, inputs = case.model(), case.inputs(batch_size=3)
    together = answer(case, model, inputs)
    for index in range(3):
        alone = answer(case, model, {name: value[index : index + 1] for name, value in inputs.items()})
        close(together[index], alone[0])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")  # the new name is not in transformers 5.20
@every_loss
def test_gradient_checkpointing_changes_nothing(case):
    """Same loss and gradients, with stochastic depth drawn alike in both passes."""
    start, inputs = case.model(drop_path_rate=0.5).train(), case.inputs()
    results = []
    for checkpointing in (False, True):
        model = copy.deepcopy(start)  # a pass moves running statistics and target branches
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert model.is_gradient_checkpointing
        torch.manual_seed(2)
        loss = model(**inputs).loss
        loss.backward()
        reached = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), reached))
    (loss, gradients), (checkpointed_loss, checkpointed) = results
    assert torch.equal(loss, checkpointed_loss)
    for name, gradient in gradients.items():
        close(checkpointed[name], gradient)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [*cases(options=False), *(pytest.param(one, marks=LONG) for one in options_once())], ids=str
)
def test_compiles_as_one_graph(case):
    """No graph break, in evaluation and with the loss's backward pass."""
    torch.compiler.reset()
    model, inputs = case.model(), case.inputs()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    close(answer(case, compiled, inputs), answer(case, model, inputs))
    if case.head.trains:
        torch.manual_seed(2)
        expected = model.train()(**inputs).loss
        torch.manual_seed(2)
        result = compiled.train()(**inputs).loss
        close(result, expected)
        expected.backward()
        result.backward()
        expected_gradients = [parameter.grad for parameter in model.parameters()]
        for (name, parameter), gradient in zip(compiled._orig_mod.named_parameters(), expected_gradients):
            if name.startswith(case.head.idle):
                assert parameter.grad is None, name
                continue
            assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs the compiler g++ on a CPU")
@every_classifier
def test_compiles_with_inductor(case):
    torch.compiler.reset()
    model, inputs = case.model(), case.inputs()
    expected = answer(case, model, inputs)
    close(answer(case, torch.compile(model, fullgraph=True), inputs), expected, 1e-4)


@pytest.mark.slow
@every_option
def test_exports_with_any_batch_size(case):
    """Of heads without options the common tests export all outputs."""
    model = case.model()
    inputs = {name: value for name, value in case.inputs(batch_size=2).items() if name != "labels"}
    program = torch.export.export(model, (), inputs, dynamic_shapes={name: {0: Dim.DYNAMIC} for name in inputs})
    for batch_size in (2, 5):
        inputs = {name: value for name, value in case.inputs(batch_size, seed=3).items() if name != "labels"}
        with torch.no_grad():
            close(case.head.answer(program.module()(**inputs)), answer(case, model, inputs))


@every_head
def test_auto_classes_give_our_class(case, tmp_path):
    model = case.model()
    model.save_pretrained(tmp_path)
    # AutoBackbone of transformers 5.23 takes every folder for the name of a timm model
    on_the_hub_only = case.head.auto_class is AutoBackbone
    loaded = (case.head.model_class if on_the_hub_only else case.head.auto_class).from_pretrained(tmp_path)
    assert type(case.head.auto_class.from_config(case.config())) is case.head.model_class
    assert type(loaded) is case.head.model_class
    assert type(AutoConfig.from_pretrained(str(tmp_path))) is case.family.config_class
    close(answer(case, loaded.eval(), case.inputs()), answer(case, model, case.inputs()))


@every_family
def test_auto_video_processor_gives_our_class(family, tmp_path):
    processor = family.processor_class(**family.processor)
    processor.save_pretrained(tmp_path)
    loaded = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is family.processor_class
    assert loaded.to_dict() == processor.to_dict()


@every_family
def test_processor_feeds_the_model(family):
    processor, config = family.processor_class(**family.processor), family.config()
    videos = [torch.randint(0, 256, (11, 3, 40, 56), dtype=torch.uint8) for _ in range(2)]
    batch = processor(videos, return_tensors="pt")
    size = config.image_size
    assert batch["pixel_values"].shape == (2, config.num_frames, config.num_channels, size, size)
    for head in family.heads:
        inputs = head.inputs(config, 1)
        if set(inputs) <= {"pixel_values", "labels"} and inputs["pixel_values"].ndim == 5:
            assert head.model_class(config).eval()(**batch)[head.output].shape[0] == 2


@every_head
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 1, 1), (2, 1, 2), (1, 2, 1), (3, 3, 2)])
def test_other_clip_lengths_and_frame_sizes(case, frames, height, width):
    """Frames and sides at multiples of the configured ones; the sizes of the answer come from the clip."""
    config, model = case.config(), case.model()
    shape = {
        "num_frames": frames * config.num_frames,
        "size": (height * config.image_size, width * config.image_size),
    }
    outputs = model(**case.inputs(**shape))
    assert case.head.answer(outputs).isfinite().all()
    if case.head.output == "last_hidden_state":
        special = config.num_frames * case.family.class_tokens_a_frame
        native = model(**case.inputs()).last_hidden_state.shape[1] - special - case.family.class_tokens
        expected = frames * (height * width * native + special) + case.family.class_tokens
        assert outputs.last_hidden_state.shape[1] == expected


@every_head
def test_a_clip_that_does_not_divide_is_refused(case):
    model = case.model()
    pixel_values = case.inputs()["pixel_values"]
    inputs = {name: value for name, value in case.inputs().items() if name != "pixel_values"}
    wrong = [pixel_values.narrow(-3, 0, 2), pixel_values[0, 0]]  # channels, axes
    any_size = case.family.any_size or case.head.any_size
    for bad in wrong if any_size else [*wrong, pixel_values[..., 1:], pixel_values[0]]:
        with pytest.raises(ValueError, match="`pixel_values`"):
            model(pixel_values=bad, **inputs)


@every_classifier
@pytest.mark.parametrize("merging", ["softmax_mean", "logits_mean"])
def test_several_views_are_merged_as_the_config_says(case, merging):
    model = case.model(view_merging=merging)
    views = torch.stack([case.inputs(seed=seed)["pixel_values"] for seed in range(3)], dim=1)
    one_by_one = torch.stack([answer(case, model, {"pixel_values": views[:, index]}) for index in range(3)])
    merged = answer(case, model, {"pixel_values": views})
    if merging == "softmax_mean":
        close(merged.softmax(-1), one_by_one.softmax(-1).mean(0))
    else:
        close(merged, one_by_one.mean(0))


@every_classifier
def test_soft_labels_are_cross_entropy(case):
    """Mixup labels; transformers' own loss would take them for a multi-label problem."""
    model, inputs = case.model(), case.inputs()
    hard = model(**inputs).loss
    soft = torch.nn.functional.one_hot(inputs["labels"], model.config.num_labels).float()
    close(model(pixel_values=inputs["pixel_values"], labels=soft).loss, hard)
    assert model.config.problem_type is None


@every_case
@pytest.mark.parametrize("tokens", [1, 11])
def test_tokens_in_parts_are_all_tokens(case, tokens, monkeypatch):
    """Without gradients MLPs and attention work in parts; single tokens and uneven parts give what the whole gives."""
    model, inputs = case.model(), case.inputs()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        monkeypatch.setattr(layers, "TOKENS_AT_ONCE", sys.maxsize)
        whole = model(**inputs, output_attentions=True)
        monkeypatch.setattr(layers, "TOKENS_AT_ONCE", tokens)
        parts = model(**inputs, output_attentions=True)
    close(case.head.answer(parts), case.head.answer(whole))
    for of_parts, of_whole in zip(parts.attentions or (), whole.attentions or (), strict=True):
        close(of_parts, of_whole)


@every_head
def test_hidden_states_and_attentions(case):
    model, inputs = case.model(), case.inputs()
    model.set_attn_implementation("eager")
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    tokens = outputs.hidden_states[0].shape[1]
    hidden_states, attentions = case.family.expected_shapes(model.config, 2, tokens)
    assert [tuple(one.shape) for one in outputs.hidden_states] == hidden_states
    assert [tuple(one.shape) for one in outputs.attentions] == attentions
    for one in outputs.attentions:
        close(one.sum(-1), torch.ones_like(one.sum(-1)))
    assert model(**inputs).hidden_states is None


@every_classifier
@pytest.mark.parametrize("views", [{}, {"num_clips": 2, "num_crops": 3}], ids=["one_view", "six_views"])
def test_pipeline_equals_evaluation(case, views, tmp_path):
    """The demonstration and the evaluation share one path: for the same file the same scores, bit for bit."""
    case.model().save_pretrained(tmp_path)
    case.family.processor_class(**case.family.processor, **views).save_pretrained(tmp_path)
    files = [
        str(write_clip(tmp_path / f"{seed}.mp4", moving_square_clip(height=40, width=56 + 8 * seed, seed=seed)))
        for seed in range(3)
    ]
    evaluated = evaluate_model(
        case.head.auto_class.from_pretrained(tmp_path),
        AutoVideoProcessor.from_pretrained(tmp_path),
        [(path, path, None) for path in files],
    )
    assert evaluated.ids == files
    classifier = pipeline("video-classification", model=str(tmp_path))
    for answers, probabilities in zip(classifier(files, top_k=None), evaluated.probabilities.tolist()):
        assert {one["label"]: one["score"] for one in answers} == dict(zip(evaluated.label_names, probabilities))


@every_case
def test_config_survives_json(case, tmp_path):
    config = case.config()
    config.save_pretrained(tmp_path)
    loaded = case.family.config_class.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert list(loaded.id2label.values()) == list(config.id2label.values())


@every_family
def test_names_are_free_in_transformers(family):
    """transformers finds classes by name: one that it has too would be taken for the other."""
    assert family.name == family.config_class.model_type
    assert family.name not in CONFIG_MAPPING_NAMES
    classes = [family.config_class, family.processor_class, *(head.model_class for head in family.heads)]
    for one in classes:
        assert not hasattr(transformers, one.__name__)
        assert getattr(hf_videovit, one.__name__) is one
