"""Images and videos in turn: the order of batches, what each kind reaches, a run and its folder, two processes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from hf_videovit import (
    TubeViTForImageClassification,
    TubeViTForJointClassification,
    TubeViTVideoProcessor,
)
from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_joint_model
from hf_videovit.training.data.bad_videos import BadVideo
from hf_videovit.training.data.images import image_processor, image_reader, open_images, read_image
from hf_videovit.training.data.joint import IMAGE_PLACE, JointStream
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.data.streaming import ClipStream
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.planning import plan_run
from hf_videovit.training.tasks import JointClassificationTask
from tests.clips import STEPS
from tests.families import FAMILIES
from tests.training.engine.test_many_processes import curve, do_runs, weights


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
TINY = next(family for family in FAMILIES if family.name == "tubevit").tiny
BROKEN = 10**6


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """`{train,val}/{colour}/N.png`: 4 and 2 images of each of three colours."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                size = (40 + 8 * index, 36)
                Image.new("RGB", size, colour).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture
def joint_fields(tiny_fields, image_folder):
    """A joint run of 20 clips and 12 images."""
    config = {"model_type": "tubevit", "config": TINY, "processor": {"frame_stride": 1}}
    return tiny_fields | config | {"image_data": str(image_folder), "image_batch_size": 3, "epochs": 1}


def numbers(label: int):
    """A loader that hands on the number in a sample's name; those that are `BROKEN` cannot be read."""

    def load(record):
        if record.sample.label == BROKEN:
            raise VideoDecodingError(record.sample.id, "test", "broken")
        return {"kind": torch.tensor(label), "number": torch.tensor(int(record.sample.id))}

    return load


def stream(num_videos=20, num_images=7, ratio=1.0, broken=(), bad=None, **options):
    videos = SampleList([Sample(str(i), "", BROKEN if i in broken else 0) for i in range(num_videos)])
    images = SampleList([Sample(str(i), "", BROKEN if -i in broken else 0) for i in range(num_images)])
    options = {"on_bad_video": (bad if bad is not None else []).append, **options}
    return JointStream(
        ClipStream(videos, numbers(0), 4, 0, **options),
        ClipStream(images, numbers(1), 3, 0, drop_last=True, **options),
        ratio,
    )


def taken(batches):
    return [(int(batch.rows["kind"][0]), batch.rows["number"].tolist()) for batch in batches]


@pytest.mark.parametrize(
    ("ratio", "kinds"), [(1.0, "0101010101"), (0.5, "01001001"), (2.0, "011011011011011"), (0.25, "0100001")]
)
def test_batches_take_turns_as_the_ratio_says(ratio, kinds):
    joint = stream(ratio=ratio)
    found = taken(joint.epoch(0))
    assert "".join(str(kind) for kind, _ in found) == kinds
    assert len(found) == joint.num_batches()
    assert sorted(number for kind, row in found if kind == 0 for number in row) == list(range(20))
    assert all(len(row) == 3 for kind, row in found if kind == 1)


def test_images_begin_anew_in_another_order_when_they_run_out():
    images = [row for kind, row in taken(stream(num_videos=80).epoch(0)) if kind == 1]
    passes = [[number for row in images[at : at + 2] for number in row] for at in range(0, 20, 2)]
    assert all(len(set(one)) == 6 for one in passes)  # seven images, batches of three: one is left out
    assert len({tuple(one) for one in passes}) > 5
    again = [row for kind, row in taken(stream(num_videos=80).epoch(1)) if kind == 1]
    assert again != images


@pytest.mark.parametrize("broken", [(), (3, 11, -2)])
def test_a_run_goes_on_from_any_batch(broken):
    """With unreadable files too; each is then reported as often as it is met."""
    whole = stream(broken=broken)
    batches, places = [], []
    for batch in whole.epoch(2):
        batches.append(batch)
        places.append(whole.position)
    for index, place in enumerate(places[:-1]):
        rest = stream(broken=broken)
        assert taken(rest.epoch(2, place)) == taken(batches[index + 1 :])
    bad: list[BadVideo] = []
    assert len(taken(stream(broken=broken, bad=bad).epoch(2))) == len(batches)
    assert {one.id for one in bad} <= {"3", "11", "2"}
    read = whole.num_read(places[-1])
    assert read == places[-1] % IMAGE_PLACE + places[-1] // IMAGE_PLACE


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="`image_data` needs at least a batch of 3 images"):
        stream(num_images=2)
    with pytest.raises(RuntimeError, match="None of the training images can be read"):
        taken(stream(num_images=3, broken=(0, -1, -2)).epoch(0))


def test_each_kind_reaches_its_own_head_and_no_other():
    arguments = ModelArguments(model_type="tubevit", config=TINY)
    model, _ = build_joint_model(arguments, sorted(STEPS), list(COLOURS))
    task = JointClassificationTask(model, "videos", "images", label_smoothing=0.1, image_weight=0.5).train()
    assert task.idle_parameters
    for pixel_values, own, other in (
        (torch.randn(2, 8, 3, 32, 32), "videos", "images"),
        (torch.randn(2, 3, 32, 32), "images", "videos"),
    ):
        task.zero_grad(set_to_none=True)
        outputs = task({"pixel_values": pixel_values, "labels": torch.tensor([0, 2])})
        outputs["loss"].backward()
        assert model.classifiers[own].weight.grad.abs().sum() > 0
        assert model.classifiers[other].weight.grad is None
        first_tube = model.tubevit.embeddings.tubes[0].weight.grad
        assert (first_tube is None) == (own == "images")
    logits = model(pixel_values, "images").logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]), label_smoothing=0.1)
    torch.testing.assert_close(outputs["loss"], 0.5 * loss)
    with pytest.raises(ValueError, match="`nothing` must be one of the model's data sets"):
        JointClassificationTask(model, "videos", "nothing")


def test_a_run_leaves_three_models(joint_fields, image_folder):
    result = finetune(RunConfig.from_fields(**joint_fields, mixup=0.4, rand_augment_ops=1))
    folder = result.output_dir
    assert result.facts["steps"] == 5 + 5  # 20 clips in batches of 4, a batch of images after each
    assert set(result.facts["image_metrics"]) == {"image_top1", "image_mean_class_accuracy"}
    lines = [line for line in result.history if "image_top1" in line.get("validation", {})]
    assert len(lines) == 1
    assert json.loads((folder / "results.json").read_text())["image_metrics"] == result.facts["image_metrics"]
    joint = TubeViTForJointClassification.from_pretrained(folder / "joint").eval()
    assert joint.config.datasets["images"]["labels"] == sorted(COLOURS)
    images = TubeViTForImageClassification.from_pretrained(folder / "images").eval()
    processor = AutoImageProcessor.from_pretrained(folder / "images")
    pixels = processor(read_image(image_folder / "val" / "red" / "1.png"), return_tensors="pt").pixel_values
    with torch.no_grad():
        assert torch.equal(images(pixels).logits, joint(pixels, "images").logits)
    classify = pipeline("video-classification", model=str(folder))
    video = Path(joint_fields["data"]) / "val" / result.evaluation.ids[0]
    assert {row["label"] for row in classify(str(video), top_k=len(STEPS))} == set(STEPS)
    record = json.loads((folder / "logs" / "run.json").read_text())["files"]
    saved = {path for path in folder.rglob("*") if path.is_file() and not {"logs", "checkpoints"} & set(path.parts)}
    assert {path.relative_to(folder).as_posix() for path in saved} - {".lock"} == set(record)


def test_training_goes_on_from_a_joint_model_or_from_its_encoder(joint_fields):
    result = finetune(RunConfig.from_fields(**joint_fields))
    trained = TubeViTForJointClassification.from_pretrained(result.output_dir / "joint")
    checkpoint = ModelArguments(checkpoint=str(result.output_dir / "joint"))
    names = (sorted(STEPS), sorted(COLOURS))
    same, _ = build_joint_model(checkpoint, *names)
    other, _ = build_joint_model(checkpoint, names[0], ["a", "b"])
    for name, tensor in trained.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor)
        if name.startswith("tubevit."):
            assert torch.equal(other.state_dict()[name], tensor)
    assert other.classifiers["images"].out_features == 2
    assert not torch.equal(other.classifiers["videos"].weight, trained.classifiers["videos"].weight)
    with pytest.raises(ValueError, match="`image_data` is supported by TubeViT only"):
        build_joint_model(ModelArguments(model_type="videomae_v2", size="small"), *names)


@pytest.mark.slow
def test_two_processes_that_are_stopped_go_on(joint_fields, tmp_path):
    """Different parameters wait for a gradient in each step; the other classifier must not be waited for."""
    fields = joint_fields | {"batch_size": 2, "image_batch_size": 2, "resume": True, "save_steps": 1, "save_every": 0}
    fields |= {"eval_every": 0, "num_workers": 1}
    killed = fields | {"output_dir": str(tmp_path / "killed")}
    runs = [{"world": 2, "fields": killed, "kill": ("step", 4), "victim": 0}]
    runs += [{"world": 2, "fields": each} for each in (killed, fields)]
    answers = do_runs(tmp_path, runs)
    assert [answer["statuses"] for answer in answers[1:]] == [[0, 0]] * 2, answers[-1]["said"]
    whole = tmp_path / "output"
    assert len(curve(whole)) == 10
    assert curve(tmp_path / "killed") == curve(whole)
    assert weights(tmp_path / "killed") == weights(whole)


def test_images_are_files_that_look_like_frames(image_folder, tmp_path):
    train, held_out = open_images(image_folder)
    assert (len(train), len(held_out), train.label_names) == (12, 6, sorted(COLOURS))
    videos = TubeViTVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, num_clips=4)
    path = train[0].video
    as_clip = image_reader(videos)(path, return_tensors="pt").pixel_values
    assert as_clip.shape == (1, 1, 3, 32, 32)
    alone = image_processor(videos)(read_image(path), return_tensors="pt").pixel_values
    torch.testing.assert_close(as_clip[:, 0], alone, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="do_grayscale"):
        image_processor(TubeViTVideoProcessor(do_grayscale=True))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(VideoDecodingError, match=r"broken.png.*\[decoder: PIL\]"):
        read_image(tmp_path / "broken.png")
    with pytest.raises(VideoDecodingError, match="no such file"):
        read_image(tmp_path / "gone.png")
    rows = "\n".join(f"{path},{name}" for path in (image_folder / "val").rglob("*.png") for name in [path.parent.name])
    (tmp_path / "list.csv").write_text(f"file,label\n{rows}")
    assert len(open_images(tmp_path / "list.csv")[0]) == 6
    with pytest.raises(ValueError, match="nothing. must be a folder of classes of images"):
        open_images(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must be one of train, val in .*, got 'test'"):
        open_images(image_folder, "test")


@pytest.mark.parametrize(("ratio", "drop_last"), [(2.0, False), (0.5, True)])
def test_a_plan_counts_the_batches_of_images(joint_fields, ratio, drop_last):
    fields = joint_fields | {"image_ratio": ratio, "drop_last": drop_last, "eval_every": 0, "save_every": 0}
    config = RunConfig.from_fields(**fields)
    plan = plan_run(config, device=torch.device("cpu"))
    assert plan.total_steps == finetune(config).facts["steps"]
    images = plan.others["image"]
    assert images.samples_per_step == pytest.approx(3 * ratio / (1 + ratio))
    assert 0 < images.macs < plan.forward_macs
