"""What the official code computed, in steps of the engine itself: through loader, Accelerator and optimiser."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hf_videovit import VideoMAEV2Config, VideoMAEV2ForPreTraining, convert_checkpoint
from hf_videovit.training.arguments import AugmentationArguments, ModelArguments, RunConfig
from hf_videovit.training.building import build_pretraining_model
from hf_videovit.training.data.augmentation import ClipAugmentation
from hf_videovit.training.data.bad_videos import BadVideoLedger
from hf_videovit.training.data.loaders import MaskedClipLoader
from hf_videovit.training.data.masking import dual_masks
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.data.streaming import ClipStream
from hf_videovit.training.engine.loop import fit
from hf_videovit.training.methods.masked_pixels import masks_of, prepare_masked
from hf_videovit.training.tasks import MaskedModelingTask
from tests.parity.videomae_v2 import official_layout


FIXTURES = Path(__file__).parents[2] / "fixtures" / "videomae_v2"
GRID = (8, 14, 14)


class Rows:
    """A loader that hands out rows of given tensors."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __call__(self, record):
        return {name: value[int(record.sample.id)] for name, value in self.tensors.items()}


def to_device(rows, device):
    return {name: value.to(device) for name, value in rows.items()}


class Recorder(MaskedModelingTask):
    """Keeps the masks that reach the model."""

    def forward(self, batch):
        self.masks = {name: batch[f"{name}_mask"].clone() for name in ("encoder", "decoder")}
        return super().forward(batch)


def one_step(task, samples, load, prepare_batch, folder, **fields):
    """One step in the data's own order. Returns the log's line and the gradients that the optimiser was given."""
    config = RunConfig.from_fields(
        output_dir=str(folder), cpu=True, progress=False, max_steps=1, log_every=1, save_every=0, **fields
    )
    stream = ClipStream(samples, load, config.optimization.batch_size, seed=None)
    gradients = {}

    def keep(optimizer, arguments, options):
        gradients.update({name: value.grad.clone() for name, value in task.model.named_parameters()})

    handle = register_optimizer_step_pre_hook(keep)
    try:
        result = fit(
            task,
            stream,
            config,
            accelerator=Accelerator(cpu=True),
            prepare_batch=prepare_batch,
            ledger=BadVideoLedger(),
        )
    finally:
        handle.remove()
    return result.history[0], gradients


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 1), (1, 2)])
def test_loss_and_gradients_of_the_official_pretraining_step(tmp_path, batch_size, accumulation):
    tensors = load_file(FIXTURES / "pretrain" / "io.safetensors")
    model = convert_checkpoint(
        "videomae_v2",
        FIXTURES / "pretrain" / "checkpoint.pth",
        task="pretraining",
        image_size=32,
        num_frames=8,
        num_attention_heads=3,
        decoder_num_attention_heads=2,
    )
    rows = {name: tensors[name].bool() for name in ("encoder_mask", "decoder_mask")}
    load = Rows(rows | {"pixel_values": tensors["pixel_values"].transpose(1, 2).contiguous()})
    samples = SampleList([Sample(str(index), "", None) for index in range(2)])
    fields = {"batch_size": batch_size, "accumulation": accumulation}
    line, gradients = one_step(MaskedModelingTask(model), samples, load, to_device, tmp_path, **fields)
    assert line["loss"] == pytest.approx(tensors["loss"].item(), rel=1e-4, abs=1e-5)
    squares = sum(gradient.double().square().sum() for gradient in gradients.values())
    assert line["grad_norm"] == pytest.approx(squares.sqrt().item(), rel=1e-5)
    official = official_layout(gradients)
    expected = {name.removeprefix("grad."): value for name, value in tensors.items() if name.startswith("grad.")}
    assert expected
    for name, value in expected.items():
        largest = value.abs().max().item()
        torch.testing.assert_close(official[name], value, rtol=1e-4, atol=1e-4 * largest, msg=name)


@pytest.fixture
def mask_step(tmp_path):
    """A step over five clips of a model with the fixture's grid; returns the masks that it trained on."""
    encoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    sizes = {"image_size": 28, "patch_size": 2, "num_frames": 16, "decoder_num_hidden_layers": 1}
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**encoder, **decoder, **sizes))
    _, processor = build_pretraining_model(ModelArguments(config=model.config.to_dict()))
    video = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    samples = SampleList([Sample(str(index), video, None) for index in range(5)])

    def step(masks=None, num_sample=1):
        augmentation = ClipAugmentation(AugmentationArguments(), (28, 28))
        processor.frame_stride = 1
        load = MaskedClipLoader(processor, augmentation, 0, num_sample, masks or masks_of(model.config))
        task = Recorder(model)
        one_step(
            task,
            samples,
            load,
            partial(prepare_masked, processor=processor, augmentation=augmentation),
            tmp_path,
            batch_size=5,
        )
        return {name: mask.reshape(-1, *GRID).numpy() for name, mask in task.masks.items()}

    return step


def test_a_step_trains_on_the_official_masks(mask_step):
    tensors = load_file(FIXTURES / "masks" / "io.safetensors")
    draw = partial(dual_masks, GRID, 0.9, 0.5)
    official = np.random.RandomState(1)  # numpy_seed + 1, as the fixture says
    found = mask_step(lambda rng: draw(official))
    for name, mask in found.items():
        np.testing.assert_array_equal(mask.reshape(5, -1), tensors[f"g14.pair_{name}"].numpy().astype(bool))


def test_a_step_with_masks_of_its_own_has_what_the_official_ones_have(mask_step):
    phases = load_file(FIXTURES / "masks" / "io.safetensors")["g14.running_cell_all.0.5"].numpy().astype(bool)
    found = mask_step(num_sample=2)
    assert len(found["encoder"]) == len(found["decoder"]) == 10
    assert (found["encoder"] == found["encoder"][:, :1]).all()  # a tube
    assert (found["encoder"].sum(axis=(2, 3)) == 176).all()
    assert len({mask.tobytes() for mask in found["encoder"]}) == 10
    official = {phase.tobytes() for phase in phases.reshape(4, *GRID)}
    drawn = {mask.tobytes() for mask in found["decoder"]}
    assert len(official) == 4 and drawn <= official and len(drawn) > 1
