"""Exported models: the same answers from another runtime."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packaging import version
from PIL import Image
from transformers import AutoConfig
from typer.testing import CliRunner

from hf_videovit import UniFormerImageProcessor
from hf_videovit.cli import app
from hf_videovit.modeling.video_decoding import VideoDecodingError
from tests.clips import moving_square_clip, write_clip
from tests.families import LONG, Case, cases
from tests.saved_model import save_tiny_classifier, tiny_processor


pytest.importorskip("transformers.exporters", reason="this transformers has no exporters")
if version.parse(torch.__version__) < version.parse("2.11"):
    pytest.skip("the exporters of transformers need torch 2.11", allow_module_level=True)

from hf_videovit.inference.export_runtimes import export_graph
from hf_videovit.inference.exported_model import ExportedClassifier, export_report, load_export
from hf_videovit.inference.exporting import export_model


NEEDED = {
    "torch": (),
    "onnx": ("nncf", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "executorch": ("executorch",),
}


VIDEO = [one for one in cases(options=False) if str(one).endswith("ForVideoClassification")]


def skip_without(to: str, dtype: str = "float32") -> None:
    needed = (*NEEDED[to], *(("torchao",) if (to, dtype) == ("torch", "int8") else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier", num_clips=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index, name in enumerate(("right", "up", "left", "down")):
        write_clip(folder / f"{name}.mp4", moving_square_clip(name, seed=index, height=96, width=128))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "dtype", "tolerance", "options"),
    [
        ("torch", "bfloat16", 0.2, ()),
        ("onnx", "float32", 1e-4, ("--with-processing",)),
        ("onnx", "int8", 0.5, ("--dynamic", "batch,frames")),
        ("openvino", "float32", 1e-4, ("--with-processing", "--dynamic", "none")),
        ("openvino", "int8", 0.5, ()),
        ("openvino", "float16", 0.1, ("--frames", "6", "--size", "48")),
        pytest.param("executorch", "float32", 1e-4, (), marks=LONG),
    ],
)
def test_the_command_exports_compares_and_classifies(model, clips, tmp_path, to, dtype, tolerance, options):
    skip_without(to)
    output = tmp_path / "export"
    command = ["export", str(model), "--output", str(output), "--to", to, "--dtype", dtype, *options]
    result = CliRunner().invoke(app, [*command, "--calibrate", str(clips), "--json"])
    assert result.exit_code == 0, result.output
    report = export_report(output)
    assert json.loads(result.stdout) == report
    calibrated = dtype == "int8"
    assert (report["videos"], report["calibrated_on"]) == ((2, 2) if calibrated else (4, 0))
    assert report["max_difference"] < tolerance and report["top1_agreement"] >= 0.5
    assert report["milliseconds"]["export"] > 0 and report["megabytes"] > 0
    assert all(value > 0 for value in report["peak_megabytes"].values())
    card = (output / "README.md").read_text()
    assert f"{report['milliseconds']['export']}" in card and report["versions"]["torch"] in card
    if to == "torch":
        with pytest.raises(ValueError, match="runs code of the file"):
            load_export(output)
        assert load_export(output, trust=True).shape == [None, 4, 3, 32, 32]
        return
    answers = CliRunner().invoke(app, ["classify", str(clips), "--model", str(output), "--json", "--batch-size", "2"])
    if options and "none" in options:  # one clip at a time was asked for
        assert answers.exit_code == 2 and "export's shape 2 x 4" in answers.output
        return
    assert answers.exit_code == 0, answers.output
    assert len(json.loads(answers.stdout)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("case", VIDEO, ids=str)
def test_processing_in_the_graph_is_that_of_the_processor(case: Case):
    """The graph of torch, which is exact, from decoded frames to logits."""
    from hf_videovit.inference.exporting import _WithProcessing

    processor = case.family.processor_class(**case.family.processor)
    clip = torch.randint(256, (case.config().num_frames, 3, 90, 120), dtype=torch.uint8)
    model = case.model()
    exported = export_graph(_WithProcessing(model, processor).eval(), {"pixel_values": clip[None]}, "torch")
    with torch.no_grad():
        expected = model(processor(clip, return_tensors="pt")["pixel_values"]).logits
    torch.testing.assert_close(exported(pixel_values=clip[None]).logits, expected, atol=2e-3, rtol=1e-3)


# Steps between the values of an axis that a graph serves. Others have windows or tubes of one grid.
STEPS = {
    "frames": {"LstclFor": 1, "UniFormerFor": 1, "UniFormerV2For": 1, "VideoMAEV2For": 2},
    "size": {"LstclFor": 8, "TubeViTFor": 1, "UniFormerFor": 1, "UniFormerV2For": 8, "VideoMAEV2For": 8},
}


def test_tubes_of_a_shared_kernel_get_their_own():
    case = next(one for one in cases() if str(one) == "TubeViTForVideoClassification-interpolated")
    model, inputs = case.model(), {"pixel_values": case.inputs()["pixel_values"]}
    exported = export_graph(model, inputs, "torch")
    assert not [name for name in exported.program.state_dict if "shared_kernel" in name]
    assert model.tubevit.embeddings.shared_kernel is not None  # the model stays as it was
    with torch.no_grad():
        torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["frames", "size"])
@pytest.mark.parametrize(
    "case",
    [pytest.param(one, marks=[] if one.family.name == "videomae_v2" else [LONG]) for one in VIDEO],
    ids=str,
)
def test_open_axes_are_tried(case: Case, axis, tmp_path):
    case.model().save_pretrained(tmp_path / "model")
    case.family.processor_class(**case.family.processor).save_pretrained(tmp_path / "model")
    arguments = {"model": tmp_path / "model", "output": tmp_path / "export", "to": "torch", "dynamic": ("batch", axis)}
    step = STEPS[axis].get(str(case).removesuffix("VideoClassification"))
    if step is None:
        with pytest.raises(ValueError, match=f"`dynamic` cannot hold '{axis}'.*export a folder for each"):
            export_model(**arguments)
        assert not (tmp_path / "export").exists()
        return
    report = export_model(**arguments)
    assert report["dynamic"] == {"batch": 1, axis: step}
    assert report["input_shape"].count(None) == (2 if axis == "frames" else 3)
    assert report["videos"] == 0 and report["max_difference"] < 1e-3  # one made clip


@pytest.mark.slow
def test_image_classifiers_are_compared_on_images(tmp_path):
    skip_without("onnx")
    case = next(one for one in cases(options=False) if str(one) == "UniFormerForImageClassification")
    case.model().save_pretrained(tmp_path / "model")
    UniFormerImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        tmp_path / "model"
    )
    images = [np.full((80, 90, 3), level, dtype=np.uint8) for level in (30, 200)]
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    command = ["export", str(tmp_path / "model"), "--output", str(tmp_path / "export"), "--calibrate", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = export_report(tmp_path / "export")
    assert report["videos"] == 2 and report["max_difference"] < 1e-3 and report["input_shape"] == [None, 3, 64, 64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "`to`"),
        ({"to": "onnx", "dtype": "bfloat16"}, "`dtype`"),
        ({"to": "openvino", "dtype": "int8"}, "`calibrate` must hold two videos or more, got 0"),
        ({"calibrate": "clips"}, "`calibrate` must be a list"),
        ({"to": "executorch", "with_processing": True}, "`with_processing`"),
        ({"to": "torch", "frames": 7}, "frames"),
        ({"dynamic": ("time",), "to": "torch"}, "`dynamic`"),
        ({"dynamic": ("frames",), "with_processing": True}, "`dynamic`"),
        ({"output": "."}, "`output`"),
    ],
)
def test_wrong_arguments_are_named(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_model(model, **{"output": tmp_path / "export", **options})


def test_videos_of_another_size_than_that_of_the_graph_are_named(clips):
    processor = tiny_processor(do_resize=False, do_center_crop=False)
    processor.frame_size = (64, 64)
    with pytest.raises(VideoDecodingError, match="up.mp4: frames of 96x128 .* the exported model takes 64x64"):
        processor([clips / "up.mp4"])
    assert "frame_size" not in processor.to_dict()


def test_a_damaged_export_is_named(model, tmp_path):
    skip_without("onnx")
    component = {"file": "model.onnx", "metadata": {}}
    manifest = {"schema_version": 1, "export_format": "onnx", "components": {"model": component}}
    (tmp_path / "export.json").write_text(json.dumps(manifest))
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    AutoConfig.from_pretrained(model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`folder` .* cannot be opened by onnx"):
        load_export(tmp_path)


def test_heads_that_take_more_than_pixels_are_named(tmp_path):
    case = next(one for one in cases(options=False) if str(one) == "VideoMAEV2ForPreTraining")
    case.model().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="`model` must be a classifier or an encoder, got VideoMAEV2ForPreTraining"):
        export_model(tmp_path / "model", tmp_path / "export")


def test_a_folder_without_export_is_named(tmp_path):
    with pytest.raises(ValueError, match="`folder`"):
        load_export(tmp_path)


def test_other_sizes_than_those_of_the_graph_are_named(model):
    exported = ExportedClassifier(SimpleNamespace(config=AutoConfig.from_pretrained(model)), [None, 4, 3, 32, 32])
    exported.exported.dtype = torch.float32
    with pytest.raises(ValueError, match="export's shape any x 4 x 3 x 32 x 32, got .1, 8, 3, 32, 32."):
        exported(torch.zeros(1, 8, 3, 32, 32))
