"""What tools that quantise, trace and export models need of them."""

import os
from datetime import timedelta

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments

from hf_videovit import AutoModelForJointClassification, TubeViTForImageClassification, TubeViTForJointClassification
from hf_videovit.modeling.layers import kept_indices, stable_order
from tests.families import FAMILIES, Case, cases


every_case = pytest.mark.parametrize("case", list(cases()), ids=str)
heads = pytest.mark.parametrize("case", list(cases(options=False)), ids=str)


@every_case
def test_linear_layers_have_the_exact_type(case: Case):
    kinds = {type(one) for one in case.model().modules() if isinstance(one, nn.Linear | nn.Conv2d | nn.Conv3d)}
    assert kinds <= {nn.Linear, nn.Conv2d, nn.Conv3d}


@every_case
def test_linear_layers_see_at_most_three_axes(case: Case):
    model, seen = case.model(), []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].ndim))
    with torch.no_grad():
        model(**case.inputs())
    assert seen and max(seen) <= 3


@every_case
def test_tuples_by_configuration(case: Case):
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).to_tuple()
        model.config.return_dict = False
        found = model(**inputs)
    assert isinstance(found, tuple) and len(found) == len(expected)
    torch.testing.assert_close(found, expected)


@heads
def test_traced_models_agree(case: Case):
    inputs = {name: value for name, value in case.inputs().items() if "label" not in name}
    if set(inputs) != {"pixel_values"}:
        pytest.skip("the head has more inputs than pixels")
    model = case.model()
    traced = torch.jit.trace(model, inputs["pixel_values"], strict=False)
    other = torch.randn_like(inputs["pixel_values"])
    with torch.no_grad():
        found, expected = traced(other), model(other)
    first = found[0] if isinstance(found, tuple) else found[case.head.output]
    torch.testing.assert_close(first, expected[0] if isinstance(found, tuple) else expected[case.head.output])


def test_orders_are_those_of_a_stable_sort():
    torch.manual_seed(0)
    for scores in (torch.rand(4, 33), torch.randint(3, (5, 40)).float(), torch.zeros(2, 7), torch.rand(3, 1)):
        torch.testing.assert_close(stable_order(scores), scores.argsort(dim=1, descending=True, stable=True))
    mask = torch.stack([torch.randperm(20) < 12 for _ in range(6)])
    expected = torch.stack([(~row).nonzero()[:, 0] for row in mask])
    torch.testing.assert_close(kept_indices(mask, 8), expected)


@pytest.mark.parametrize(
    "case",
    [case for case in cases() if str(case) in ("UniFormerForVideoClassification-light", "VideoMAEV2ForPreTraining")],
    ids=str,
)
def test_exported_orders_have_no_stable_sort(case: Case):
    inputs = {name: value for name, value in case.inputs().items() if "label" not in name}
    program = torch.export.export(case.model(), (), kwargs=inputs).run_decompositions()
    assert not [str(node.target) for node in program.graph.nodes if "stable" in str(node.target)]


def test_video_swin_exports_with_gradients():
    """Attention that is replaced by plain operators has other strides than its kernel."""
    case = next(case for case in cases(options=False) if str(case) == "BevtModel")
    model, inputs = case.model(), case.inputs()
    program = torch.export.export(model, (), kwargs=inputs, strict=False)
    table = torch.export.default_decompositions()
    program = program.run_decompositions(table)
    torch.testing.assert_close(program.module()(**inputs)[0], model(**inputs)[0])


def test_image_classifier_trains_in_parallel_without_a_search_for_idle_parameters(tmp_path):
    case = next(case for case in cases(options=False) if str(case) == "TubeViTForImageClassification")
    case.model().save_pretrained(tmp_path / "model")
    model = TubeViTForImageClassification.from_pretrained(tmp_path / "model").train()
    assert not model.has_idle_parameters()
    store = dist.FileStore(os.fspath(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=60))
    try:
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # the second pass stops if the first waits for a gradient
            parallel(**case.inputs()).loss.backward()
    finally:
        dist.destroy_process_group()
    unused = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not unused
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen and all(
        name.startswith(("tubevit.embeddings.tubes.0.", "tubevit.embeddings.tubes.1.")) for name in frozen
    )


def test_the_joint_head_has_an_auto_class(tmp_path):
    family = next(family for family in FAMILIES if family.name == "tubevit")
    model = TubeViTForJointClassification(family.config(datasets={"videos": {"num_labels": 5}}))
    model.save_pretrained(tmp_path)
    assert type(AutoModelForJointClassification.from_pretrained(tmp_path)) is TubeViTForJointClassification


def test_trainer_reports_the_loss_of_pose(tmp_path):
    case = next(case for case in cases(options=False) if str(case) == "UniFormerForPoseEstimation")
    inputs = case.inputs(batch_size=2)
    samples = [{name: value[index] for name, value in inputs.items()} for index in range(2)]
    arguments = TrainingArguments(output_dir=tmp_path, use_cpu=True, report_to=[], disable_tqdm=True)
    model = case.model()
    metrics = Trainer(model, arguments, eval_dataset=samples).evaluate()
    with torch.no_grad():
        assert metrics["eval_loss"] == pytest.approx(model(**inputs).loss.item(), rel=1e-4)


def test_integer_weights_of_the_image_tower_stay_frozen():
    case = next(case for case in cases() if str(case) == "UniFormerV2ForVideoClassification-motion")
    model = case.model()
    layer = model.uniformer_v2.encoder.layers[0].attention.q_proj
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight, dtype=torch.int8), requires_grad=False)
    model.set_image_tower_trainable(True)
    assert not layer.weight.requires_grad and layer.bias.requires_grad
    model.set_image_tower_trainable(False)
    assert not layer.bias.requires_grad
