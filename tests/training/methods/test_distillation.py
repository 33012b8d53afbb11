"""A student learns a frozen teacher's answers."""

import pytest
import torch
from safetensors.torch import load_file

from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model, load_teacher
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.methods.classification import DistillationArguments
from hf_videovit.training.tasks import DistillationTask
from tests.clips import STEPS


NAMES = sorted(STEPS)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CLIP = {"image_size": 32, "num_frames": 4}


def classifier(names, seed, **fields):
    torch.manual_seed(seed)
    scaled = {"classifier_init_scale": 100.0}
    return build_model(
        ModelArguments(config={**TINY, **CLIP, **scaled, **fields}, processor={"frame_stride": 2}), names
    )


def test_loss_by_hand():
    (student, _), (teacher, _) = classifier(NAMES, 0), classifier(NAMES, 1)
    batch = {"pixel_values": torch.randn(3, 4, 3, 32, 32)}
    outputs = DistillationTask(student, teacher, temperature=2.0)(batch)
    wanted, given = (torch.softmax(model(**batch).logits / 2, dim=-1) for model in (teacher, student))
    by_hand = 4 * (wanted * (wanted.log() - given.log())).sum() / 3
    torch.testing.assert_close(outputs["loss"], by_hand)
    assert DistillationTask(student, student)(batch)["loss"].item() == pytest.approx(0, abs=1e-6)


def test_labels_are_matched_by_name():
    (student, _), (teacher, _) = classifier(NAMES, 0), classifier(NAMES, 0)
    order = [2, 0, 3, 1]
    teacher.classifier.weight.data = teacher.classifier.weight.data[order]
    teacher.config.id2label = {index: NAMES[old] for index, old in enumerate(order)}
    loss = DistillationTask(student, teacher)({"pixel_values": torch.randn(2, 4, 3, 32, 32)})["loss"]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    other, _ = classifier(["a", "b", "c", "d"], 0)
    with pytest.raises(ValueError, match="the model has 'a', 'b', 'c', 'd'"):
        DistillationTask(student, other)
    smaller, _ = classifier(["a", "b"], 0)
    with pytest.raises(ValueError, match="`teacher` must have the same 4 labels"):
        DistillationTask(student, smaller)


def test_teacher_is_frozen_quiet_and_no_part_of_the_checkpoint():
    (student, _), (teacher, _) = classifier(NAMES, 0), classifier(NAMES, 1, drop_path_rate=0.5)
    task = DistillationTask(student, teacher).train()
    assert not teacher.training
    assert task.state_dict().keys() == {f"model.{name}" for name in student.state_dict()}
    batch = {"pixel_values": torch.randn(2, 4, 3, 32, 32)}
    assert task(batch)["loss"].item() == task(batch)["loss"].item()
    task(batch)["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.classifier.weight.grad is not None


def test_a_run_brings_the_student_to_its_teacher(tiny_fields, tmp_path):
    teacher, processor = classifier(NAMES, 1)
    teacher.save_pretrained(tmp_path / "teacher")
    processor.save_pretrained(tmp_path / "teacher")
    fields = tiny_fields | {"teacher": str(tmp_path / "teacher"), "epochs": 8, "mixup": 0.8, "num_sample": 2}
    result = finetune(RunConfig.from_fields(**fields))
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert "agreement" in result.history[0]
    tensors = load_file(tmp_path / "teacher" / "model.safetensors")
    assert all(torch.equal(value, tensors[name]) for name, value in teacher.state_dict().items())
    for name, value in {"image_mean": [0.5, 0.5, 0.5], "do_grayscale": True}.items():
        _, other = build_model(ModelArguments(config=TINY | CLIP, processor={name: value}), NAMES)
        with pytest.raises(ValueError, match=f"was trained with `{name}`"):
            load_teacher(ModelArguments(), str(tmp_path / "teacher"), other)
    with pytest.raises(ValueError, match="`temperature` must be above 0"):
        DistillationArguments(temperature=0.0)
