"""Exported classifiers: the same answers from another runtime."""

import importlib.util
import json

import pytest
import torch
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.inference.exporting import REPORT, export_classifier, load_export
from tests.clips import moving_square_clip, write_clip
from tests.families import Case, cases
from tests.saved_model import save_tiny_classifier


NEEDED = {"torch": (), "onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
pytest.importorskip("transformers.exporters", reason="this transformers has no exporters")


def skip_without(to: str) -> None:
    missing = [name for name in NEEDED[to] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier", num_clips=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index, name in enumerate(("right", "up", "left")):
        write_clip(folder / f"{name}.mp4", moving_square_clip(name, seed=index))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "dtype", "tolerance"),
    [
        ("torch", "float32", 1e-4),
        ("onnx", "float32", 1e-4),
        ("onnx", "int8", 0.5),
        ("openvino", "float32", 1e-4),
        ("openvino", "float16", 0.1),
    ],
)
def test_the_command_exports_compares_and_classifies(model, clips, tmp_path, to, dtype, tolerance):
    skip_without(to)
    output = tmp_path / "export"
    command = ["export", str(clips), "--model", str(model), "--output", str(output), "--to", to, "--dtype", dtype]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads((output / REPORT).read_text())
    assert report["clips"] == 3 and report["top1_agreement"] == 1
    assert report["max_difference"] < tolerance
    assert report["milliseconds"]["export"] > 0 and report["megabytes"] > 0
    if to == "torch":
        with pytest.raises(ValueError, match="runs code of the file"):
            load_export(output)
        return
    answers = []
    for folder in (model, output):
        found = CliRunner().invoke(
            app, ["classify", str(clips), "--model", str(folder), "--json", "--batch-size", "2"]
        )
        assert found.exit_code == 0, found.output
        answers.append([[one["label"] for one in row["predictions"][:1]] for row in json.loads(found.stdout)])
    assert answers[0] == answers[1]


CLASSIFIERS = [case for case in cases(options=False) if str(case).split("-")[0].endswith("ForVideoClassification")]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("case", CLASSIFIERS, ids=str)
def test_every_classifier_agrees_on_other_batches(case: Case, to, tmp_path):
    skip_without(to)
    case.model().save_pretrained(tmp_path / "model")
    case.family.processor_class(**case.family.processor).save_pretrained(tmp_path / "model")
    clip = torch.randint(256, (12, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    report = export_classifier(tmp_path / "model", tmp_path / "export", [clip, clip.flip(0)], to=to)
    # other runtimes have other kernels, which sum in another order
    assert report["max_difference"] < 1e-3, report
    if to != "torch":
        pixels = torch.randn(3, *case.inputs(batch_size=1)["pixel_values"].shape[1:])
        with torch.no_grad():
            expected = case.model()(pixels).logits
        torch.testing.assert_close(load_export(tmp_path / "export")(pixels).logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"to": "tflite"}, "`to`"), ({"to": "onnx", "dtype": "float16"}, "`dtype`"), ({"clips": []}, "`clips`")],
)
def test_wrong_arguments_are_named(model, clips, tmp_path, options, message):
    arguments = {"clips": [clips / "up.mp4"], **options}
    with pytest.raises(ValueError, match=message):
        export_classifier(model, tmp_path / "export", **arguments)


def test_a_folder_without_export_is_named(tmp_path):
    with pytest.raises(ValueError, match="`folder`"):
        load_export(tmp_path)
