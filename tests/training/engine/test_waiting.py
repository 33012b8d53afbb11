"""Nothing in a step waits for the device: every method, on a device that writes down what a host waits for."""

import sys
from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.sources import SampleList
from hf_videovit.training.engine import loop
from hf_videovit.training.engine.sharding import WholeWeights
from hf_videovit.training.methods.choosing import METHODS, method_of
from tests.families import FAMILIES
from tests.training.engine.simulated_device import DEVICE, SimulatedDevice, overwriting_parameters
from tests.training.methods import test_action_detection as of_detection
from tests.training.methods import test_contrastive as of_contrast
from tests.training.methods import test_distillation as of_distillation
from tests.training.methods import test_end_to_end_localization as of_films
from tests.training.methods import test_image_classification as of_images
from tests.training.methods import test_image_tokenizer as of_tokenizers
from tests.training.methods import test_joint as of_joint
from tests.training.methods import test_objects as of_objects
from tests.training.methods import test_semantic_segmentation as of_pixels
from tests.training.methods import test_temporal_localization as of_features


pytestmark = pytest.mark.slow  # every method trains

NUM_STEPS, LOG_EVERY = 20, 5
RUN = {"max_steps": NUM_STEPS, "log_every": LOG_EVERY, "save_every": 0, "eval_every": 0, "cpu": True, "clip_grad": 1.0}

scenes, detection_fields = of_detection.scenes, of_detection.detection_fields
films, film_fields = of_films.films, of_films.fields
images = of_images.images
image_folder, joint_fields = of_joint.image_folder, of_joint.joint_fields
videos, feature_fields = of_features.videos, of_features.fields
tokenizer_fields = of_tokenizers.fields
pictures, object_fields = of_objects.pictures, of_objects.fields


class HostCopies:
    """Batches without streams, which the simulated device does not have."""

    def __init__(self, device, prepare_batch):
        self.device, self.prepare_batch = device, prepare_batch

    def prepare(self, rows):
        return self.prepare_batch(rows, self.device)


@pytest.fixture
def train(monkeypatch):
    """A function that trains on the simulated device and returns what the host waited for outside logging."""
    device = SimulatedDevice()
    checks = sys.modules[torch.optim.Optimizer.__module__]
    fused = checks._get_fused_kernels_supported_devices
    monkeypatch.setattr(checks, "_get_fused_kernels_supported_devices", lambda: [*fused(), DEVICE.type])
    monkeypatch.setattr(torch, DEVICE.type, torch.cpu, raising=False)  # the device's module
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **options: nullcontext() if kind == DEVICE.type else autocast(kind, **options)
    )
    monkeypatch.setattr(loop, "seed_device", lambda device, seed: torch.default_generator.manual_seed(seed))
    monkeypatch.setattr(loop, "BatchCopies", HostCopies)
    after_step, log_window = loop._Run._after_step, loop._Run._log_window

    def counted(self, *arguments):
        after_step(self, *arguments)
        device.counting = True  # constants of the first step are made once

    def logged(self):
        device.counting = False
        log_window(self)

    monkeypatch.setattr(loop._Run, "_after_step", counted)
    monkeypatch.setattr(loop._Run, "_log_window", logged)

    def run(goal, fields, **given):
        accelerator = Accelerator(cpu=True, device_placement=False)
        method = method_of(RunConfig.from_fields(**fields | RUN), goal, **given)
        method.begin(accelerator)
        task, stream = method.task(), method.stream()
        monkeypatch.setattr(Accelerator, "device", DEVICE)
        with device, overwriting_parameters():
            task.to(DEVICE)
            fitted = loop.fit(
                task,
                stream,
                method.config,
                accelerator=accelerator,
                prepare_batch=method.prepare_batch,
                ledger=method.ledger,
            )
        assert fitted.steps == NUM_STEPS
        return device.waits

    return run


@pytest.mark.parametrize(
    ("act", "count"),
    [
        (lambda numbers, mask: numbers.sum().item(), 1),
        (lambda numbers, mask: numbers.tolist(), 1),
        (lambda numbers, mask: bool(mask.any()), 1),
        (lambda numbers, mask: numbers.cpu(), 1),
        (lambda numbers, mask: numbers[mask], 1),
        (lambda numbers, mask: mask.nonzero(), 1),
        (lambda numbers, mask: numbers.masked_select(mask), 1),
        (lambda numbers, mask: torch.equal(numbers, numbers), 1),
        (lambda numbers, mask: numbers * torch.tensor([1.0, 2.0, 3.0], device=numbers.device), 1),
        (lambda numbers, mask: numbers * numbers.new_tensor([1.0, 2.0, 3.0]), 1),
        (lambda numbers, mask: torch.ones(3).to(numbers.device), 1),
        (lambda numbers, mask: numbers.copy_(torch.ones(3)), 1),
        (lambda numbers, mask: torch.ones(3).to(numbers.device, non_blocking=True), 0),
        (lambda numbers, mask: torch.where(mask, numbers, 0).sum() + numbers.new_full((), 2.0), 0),
        (lambda numbers, mask: numbers[numbers.argsort()], 0),
    ],
)
def test_the_simulated_device_sees_what_a_host_waits_for(act, count):
    with SimulatedDevice() as device:
        numbers = torch.arange(3.0).to(DEVICE)
        mask = numbers > 1
        device.counting = True
        act(numbers, mask)
    assert len(device.waits) == count


def test_one_number_that_is_read_is_noticed(train, tiny_fields, monkeypatch):
    step = WholeWeights.step

    def reading(self):
        norm = step(self)
        assert norm.item() > 0
        return norm

    monkeypatch.setattr(WholeWeights, "step", reading)
    waits = train("classifier", tiny_fields)
    assert len(waits) == NUM_STEPS - 1 and "assert norm.item() > 0" in waits[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_itself_sees_no_waiting(pretraining_fields, monkeypatch):
    after_step, log_window = loop._Run._after_step, loop._Run._log_window

    def watched(self, *arguments):
        after_step(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")

    def logged(self):
        torch.cuda.set_sync_debug_mode("default")
        log_window(self)

    monkeypatch.setattr(loop._Run, "_after_step", watched)
    monkeypatch.setattr(loop._Run, "_log_window", logged)
    try:
        fields = pretraining_fields | RUN | {"cpu": False, "mixed_precision": "bf16"}
        method = method_of(RunConfig.from_fields(**fields), "encoder")
        accelerator = Accelerator(mixed_precision="bf16")
        method.begin(accelerator)
        stream, ledger = method.stream(), method.ledger
        prepare_batch = method.prepare_batch
        loop.fit(
            method.task(), stream, method.config, accelerator=accelerator, prepare_batch=prepare_batch, ledger=ledger
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_every_method_is_covered():
    assert [method.name for method in METHODS if f"test_{method.name}" not in globals()] == []


def test_classification(train, tiny_fields):
    assert train("classifier", tiny_fields | {"num_sample": 2, "random_erasing": 0.25, "ema_decay": 0.9}) == []


def test_distillation(train, tiny_fields, tmp_path):
    teacher, processor = of_distillation.classifier(of_distillation.NAMES, 1)
    teacher.save_pretrained(tmp_path / "teacher")
    processor.save_pretrained(tmp_path / "teacher")
    assert train("classifier", tiny_fields | {"teacher": str(tmp_path / "teacher"), "accumulation": 2}) == []


def test_masked_pixels(train, pretraining_fields):
    assert train("encoder", pretraining_fields) == []


def test_masked_words(train, word_fields):
    assert train("encoder", word_fields) == []


def test_contrastive(train, tmp_path):
    source = SampleList(of_contrast.videos(), ["a", "b"])
    assert train("encoder", of_contrast.run_fields(tmp_path), train_source=source) == []


def test_action_detection(train, detection_fields):
    assert train("classifier", detection_fields) == []


def test_temporal_localization(train, feature_fields):
    assert train("classifier", feature_fields) == []


def test_end_to_end_localization(train, film_fields):
    assert train("classifier", of_films.adapted(film_fields)) == []


@pytest.mark.parametrize("options", [of_images.TOKEN_LABELS, of_images.LIGHT])
def test_image_classification(train, images, tmp_path, options):
    fields = of_images.run_fields(images, tmp_path, config=options)
    assert train("classifier", fields) == []


def test_image_tokenizer(train, tokenizer_fields):
    assert train("encoder", tokenizer_fields) == []


def test_object_detection(train, object_fields):
    """How many boxes are left has to be known, and torchvision's functions copy constants. Nothing else waits."""
    waits = train("classifier", of_objects.of_detection(object_fields))
    of_the_model = ("modeling_region_proposals.py", "modeling_region_heads.py")
    counting = ("nonzero.default", "index_put_.default")
    copying = ("coder.decode_single(", "coder.encode_single(", "batched_nms(", "sides.tolist()")
    others = [
        wait
        for wait in waits
        if not (any(one in wait for one in counting) and any(one in wait for one in of_the_model))
        and not any(one in wait for one in copying)
        and not ("index.Tensor" in wait and "[known]" in wait)
    ]
    assert waits and others == []


def test_pose(train, object_fields):
    assert train("classifier", of_objects.of_pose(object_fields) | {"rotation": 20.0}) == []


def test_semantic_segmentation(train, tmp_path):
    for split in ("training", "validation"):
        of_pixels.write_pictures(tmp_path / "pictures", split, 8)
    (tmp_path / "pictures" / "labels.json").write_text('["blue", "red"]')
    assert train("classifier", of_pixels.fields_of(tmp_path / "pictures", tmp_path / "output")) == []


@pytest.mark.parametrize("name", ["uniformer", "uniformer_v2", "tubevit", "bevt"])
def test_families_in_classification(train, tiny_fields, name):
    tiny = next(family.tiny for family in FAMILIES if family.name == name)
    fields = {"model_type": name, "config": dict(tiny), "processor": {}}
    assert train("classifier", tiny_fields | fields) == []


def test_joint_classification(train, joint_fields):
    assert train("classifier", joint_fields) == []


def test_augmentation_on_the_device(train, pretraining_fields):
    fields = {"augment_on_device": True, "random_erasing": 0.5, "crop_scale": [0.7, 1.0]}
    assert train("encoder", pretraining_fields | fields) == []
