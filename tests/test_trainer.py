"""
Losses under the `Trainer` of transformers: four clips are one optimiser step, however they are split over passes that
accumulate gradients.
"""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import hf_videovit as package
from hf_videovit.dense import freeze_batch_norms
from tests.families import FAMILIES, Case, cases


SPLITS = ((4, 1), (2, 2), (1, 4))
with_labels = pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases(trains=True)
        if not any(other in str(case) for other in ("PreTraining", "ActionDetection"))
        and case.options in ("", "light", "token_labels")
    ],
    ids=str,
)


class _Gradients(TrainerCallback):
    """Keeps the gradients of the step."""

    def __init__(self):
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


class _InOrder(Trainer):
    """Reads the samples in order: which clips meet in a pass matters to some losses."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def joined(samples: list[dict]) -> dict:
    """A batch of samples; what is not a tensor is the same in all of them."""
    first = samples[0]
    return {
        name: torch.stack([one[name] for one in samples]) if isinstance(value, torch.Tensor) else value
        for name, value in first.items()
    }


def one_step(model: nn.Module, samples: list[dict], split: tuple[int, int], folder) -> tuple[float, dict]:
    """Loss that the trainer logs and gradients of one step over all samples."""
    gradients = _Gradients()
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=split[0],
        gradient_accumulation_steps=split[1],
        max_steps=1,
        learning_rate=0.0,
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = _InOrder(
        model, arguments, train_dataset=samples, data_collator=joined, callbacks=[gradients], processing_class=None
    )
    trainer.train()
    return trainer.state.log_history[0]["loss"], gradients.found


def assert_all_splits_agree(model: nn.Module, inputs: dict, folder) -> None:
    """4 x 1, 2 x 2 and 1 x 4 give the loss and the gradients of one call on all four samples."""
    freeze_batch_norms(model)  # statistics of a batch differ from those of its parts
    samples = [
        {name: value[index] if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        for index in range(4)
    ]
    results = [one_step(model, samples, split, folder) for split in SPLITS]
    model.zero_grad()
    loss = model.train()(**inputs).loss
    loss.backward()
    direct = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    for logged, gradients in results:
        assert logged == pytest.approx(loss.item(), rel=1e-4)
        assert gradients.keys() == direct.keys()
        for name, gradient in gradients.items():
            scale = direct[name].abs().max().clamp(min=1e-3)  # of a key's bias it is zero but for rounding
            torch.testing.assert_close(gradient / scale, direct[name] / scale, atol=2e-4, rtol=0, msg=name)


@with_labels
def test_splits_agree_for_every_head_with_labels(case: Case, tmp_path):
    assert_all_splits_agree(case.model(), case.inputs(batch_size=4), tmp_path)


@pytest.mark.parametrize("kind", ["soft", "multi_label", "regression", "one_ignored"])
def test_splits_agree_for_every_kind_of_label(kind, tmp_path):
    case = next(case for case in cases(options=False) if str(case) == "VideoMAEV2ForVideoClassification")
    torch.manual_seed(2)
    labels, fields = {
        "soft": (torch.rand(4, 5).softmax(dim=-1), {}),
        "multi_label": ((torch.rand(4, 5) < 0.4).long(), {"problem_type": "multi_label_classification"}),
        "regression": (torch.randn(4, 5), {"problem_type": "regression"}),
        "one_ignored": (torch.tensor([0, 3, 2, -100]), {}),
    }[kind]
    inputs = {**case.inputs(batch_size=4), "labels": labels}
    assert_all_splits_agree(case.model(**fields), inputs, tmp_path)


@pytest.mark.parametrize("name", ["images", "videos"])
def test_splits_agree_for_the_joint_head(name, tmp_path):
    family = next(family for family in FAMILIES if family.name == "tubevit")
    datasets = {"videos": {"num_labels": 5}, "images": {"num_labels": 3, "problem_type": "multi_label_classification"}}
    torch.manual_seed(0)
    model = package.TubeViTForJointClassification(family.config(datasets=datasets))
    labels = torch.tensor([0, 4, 2, 2]) if name == "videos" else (torch.rand(4, 3) < 0.5).float()
    shape = (4, 3, 32, 32) if name == "images" else (4, 8, 3, 32, 32)
    assert_all_splits_agree(model, {"pixel_values": torch.randn(shape), "labels": labels, "dataset": name}, tmp_path)


def test_splits_agree_for_pose_with_weights(tmp_path):
    case = next(case for case in cases(options=False) if str(case) == "UniFormerForPoseEstimation")
    inputs = case.inputs(batch_size=4)
    weights = (torch.rand(4, inputs["labels"].shape[1]) < 0.6).float()
    assert_all_splits_agree(case.model(), {**inputs, "keypoint_weights": weights}, tmp_path)


@pytest.mark.parametrize("reduction", ["mean_over_boxes", "sum_over_boxes"])
@pytest.mark.parametrize(
    "case", [case for case in cases(options=False) if str(case).endswith("ActionDetection")], ids=str
)
def test_splits_agree_for_boxes(case, reduction, tmp_path):
    """Clips have different numbers of boxes; labels are -100 where there is none."""
    inputs = case.inputs(batch_size=4)
    assert len(set(inputs["box_mask"].sum(dim=1).tolist())) > 1
    inputs["labels"] = inputs["labels"].where(inputs["box_mask"][..., None], -100)
    head = {"box_jitter": [0.0] * 4, "loss_reduction": reduction}
    assert_all_splits_agree(case.model(detection_config=head), inputs, tmp_path)


@pytest.mark.parametrize("with_decoder_mask", [True, False])
def test_splits_agree_for_masked_pixels(with_decoder_mask, tmp_path):
    """Clips have different numbers of tokens that count: reconstructed, and hidden from the encoder."""
    case = next(case for case in cases(options=False) if str(case) == "VideoMAEV2ForPreTraining")
    inputs = case.inputs(batch_size=4)
    if not with_decoder_mask:
        del inputs["decoder_mask"]
    else:
        counts = (inputs["encoder_mask"] & ~inputs["decoder_mask"]).sum(dim=1)
        assert len(set(counts.tolist())) > 1
    assert_all_splits_agree(case.model(), inputs, tmp_path)


@pytest.mark.parametrize("options", ["clips", "images", ""])
def test_splits_agree_for_masked_words(options, tmp_path):
    """The same number of places is masked in all clips, and in all images."""
    case = next(case for case in cases() if str(case) == "-".join(filter(None, ("BevtForPreTraining", options))))
    inputs = case.inputs(batch_size=4)
    for name in {"mask", "image_mask"} & inputs.keys():
        shape = inputs[name].shape
        order = torch.rand(shape[0], inputs[name][0].numel()).argsort(dim=1)
        inputs[name] = (order < order.shape[1] // 2).view(shape)
    assert_all_splits_agree(case.model(), inputs, tmp_path)


def test_unequal_masks_of_words_agree_with_ignored_labels(tmp_path):
    """Labels of -100 where nothing is masked: the trainer then counts the masked places of the whole step."""
    case = next(case for case in cases() if str(case) == "BevtForPreTraining-clips")
    inputs = case.inputs(batch_size=4)
    assert len(set(inputs["mask"].flatten(1).sum(dim=1).tolist())) > 1
    masked = inputs["mask"].repeat_interleave(2, dim=1)
    inputs["labels"] = inputs["labels"].where(masked, -100)
    assert_all_splits_agree(case.model(), inputs, tmp_path)


def test_unequal_masks_of_words_agree_with_all_labels(tmp_path):
    """Every clip counts the same then, and the loss is the mean of the clips' own."""
    case = next(case for case in cases() if str(case) == "BevtForPreTraining-clips")
    inputs, model = case.inputs(batch_size=4), case.model()
    samples = [{name: value[index] for name, value in inputs.items()} for index in range(4)]
    results = [one_step(model, samples, split, tmp_path) for split in SPLITS]
    alone = [model(**joined([sample])).loss.item() for sample in samples]
    for loss, gradients in results:
        assert loss == pytest.approx(sum(alone) / 4, rel=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("framework", ["moco_v3", "byol", "simsiam"])
def test_contrastive_passes_are_averaged(framework, tmp_path):
    """The clips of a pass are compared with each other: a step is the mean of its passes, not one large batch."""
    case = next(case for case in cases(options=False) if str(case) == "LstclForPreTraining")
    fields = {"framework": framework, **({} if framework == "simsiam" else {"target_momentum": 1.0})}
    inputs = case.inputs(batch_size=4)
    model = case.head.model_class(case.family.config(**{**case.head.fields, **fields}))
    samples = [{name: value[index] for name, value in inputs.items()} for index in range(4)]
    logged, gradients = one_step(model, samples, (2, 2), tmp_path)
    model.train().zero_grad()
    losses = [model(**joined(samples[start : start + 2])).loss for start in (0, 2)]
    (sum(losses) / 2).backward()
    assert logged == pytest.approx(sum(losses).item() / 2, rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, atol=1e-6, rtol=1e-3, msg=name)
