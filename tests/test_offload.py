"""
Models whose weights are elsewhere while they run: accelerate brings the weights of a module to the device when the
module is called, so no weight may be read past its module.
"""

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from hf_videovit import TubeViTForJointClassification
from tests.dense.test_whole_detectors import tiny_detector
from tests.families import FAMILIES, Case, cases


every_case = pytest.mark.parametrize("case", list(cases()), ids=str)


def check_offloaded(model: torch.nn.Module) -> None:
    """All parameters are elsewhere."""
    assert all(parameter.is_meta for parameter in model.parameters())


@every_case
@pytest.mark.parametrize("kind", ["cpu", "disk"])
@torch.no_grad()
def test_offloaded_weights_give_the_same_answer(case: Case, kind: str, tmp_path):
    model, inputs = case.model(), case.inputs()
    expected = model(**inputs)
    if kind == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    check_offloaded(model)
    for _ in range(2):  # a first pass must not leave anything behind
        found = model(**inputs)
        assert torch.equal(case.head.answer(found), case.head.answer(expected))
        if case.head.trains:
            assert torch.equal(found.loss, expected.loss)


@every_case
@torch.no_grad()
def test_a_device_map_gives_the_same_answer(case: Case, tmp_path):
    """The model's own parameters and its last part stay in memory, all else is read from the disk while it runs."""
    model, inputs = case.model(), case.inputs()
    expected = case.head.answer(model(**inputs))
    model.save_pretrained(tmp_path / "model")
    own, parts = [
        [name for name, _ in found] for found in (model.named_parameters(recurse=False), model.named_children())
    ]
    device_map = dict.fromkeys(parts, "disk") | dict.fromkeys([*own, parts[-1]], "cpu")
    loaded = case.head.model_class.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=str(tmp_path / "offloaded")
    )
    assert torch.equal(case.head.answer(loaded.eval()(**inputs)), expected)


@torch.no_grad()
def test_an_offloaded_joint_model_gives_the_same_answer():
    family = next(family for family in FAMILIES if family.name == "tubevit")
    datasets = {"videos": {"num_labels": 5}, "images": {"num_labels": 3}}
    model = TubeViTForJointClassification(family.config(datasets=datasets, tube_kernels="interpolated")).eval()
    inputs = [(torch.randn(1, 8, 3, 32, 32), "videos"), (torch.randn(1, 3, 32, 32), "images")]
    expected = [model(*one).logits for one in inputs]
    cpu_offload(model, execution_device=torch.device("cpu"))
    check_offloaded(model)
    for one, logits in zip(inputs, expected):
        assert torch.equal(model(*one).logits, logits)


@torch.no_grad()
def test_an_offloaded_detector_gives_the_same_answer():
    detector, image = tiny_detector().eval(), torch.rand(1, 3, 64, 64)
    expected = detector(image)
    cpu_offload(detector, execution_device=torch.device("cpu"))
    check_offloaded(detector)
    found = detector(image)
    assert all(torch.equal(found[name], expected[name]) for name in ("scores", "pred_boxes", "pred_masks"))
