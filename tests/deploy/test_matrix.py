"""Every head in every runtime that is installed: it answers as the model does, or fails as the table says."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from packaging import version

from tests.deploy import matrix
from tests.families import Case


pytest.importorskip("transformers.exporters", reason="this transformers has no exporters")
if version.parse(torch.__version__) < version.parse("2.11"):
    pytest.skip("the exporters of transformers need torch 2.11", allow_module_level=True)

from hf_videovit.inference.export_runtimes import export_graph


PACKAGES = {
    "torch": (),
    "aoti": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
}
# Share of the largest answer. Numbers of 8 and 4 bits are wrong by their own steps.
TOLERANCES = {"float32": 1e-3, "int8": 0.3, "int4": 0.5}
TRIED = [
    pytest.param(case, to, dtype, id=f"{case}-{to}-{dtype}")
    for case in matrix.heads()
    for to, dtype in matrix.tried(case)
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "to", "dtype"), TRIED)
def test_answers_are_those_of_the_model(case: Case, to: str, dtype: str):
    head = case.head.model_class.__name__
    compiles = to in ("aoti", "executorch")
    tried_here = "VideoMAEV2ForVideoClassification" if compiles else "ForVideoClassification"
    # Compiling and quantising every head takes more time than CI has.
    short = dtype == "float32" and (to == "torch" or head.endswith(tried_here))
    if not short and not os.environ.get("DEPLOY_MATRIX"):
        pytest.skip("takes long: `make matrix` runs it")
    int8 = ("torchao",) if to in ("torch", "aoti") else ("nncf",)
    quantiser = {"float32": (), "int8": int8, "int4": ("nncf",)}[dtype]
    missing = [name for name in (*PACKAGES[to], *quantiser) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    model, inputs = (
        case.model(),
        {name: one.contiguous() for name, one in case.inputs().items() if "label" not in name},
    )
    dynamic = () if to == "executorch" else ("batch",)
    if matrix.hole(case, to):
        with pytest.raises(Exception):  # noqa: B017  # each runtime has its own
            export_graph(model, inputs, to, dtype, dynamic)(**inputs)
        return
    exported = export_graph(model, inputs, to, dtype, dynamic)
    if to == "openvino":  # whose default depends on the processor
        exported.to(device="cpu", config={"INFERENCE_PRECISION_HINT": "f32"})
    found = torch.as_tensor(case.head.answer(exported(**inputs)))
    with torch.no_grad():
        expected = case.head.answer(model(**inputs))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCES[dtype] * expected.abs().max()


def test_the_page_shows_the_table():
    page = Path(__file__).parents[2] / "docs" / "deploy.md"
    assert matrix.table() in page.read_text(encoding="utf-8"), "run python -m tests.deploy.matrix"


def test_holes_are_of_heads_that_exist():
    names = {case.head.model_class.__name__ for case in matrix.heads()}
    assert all(set(holes) <= names for holes in matrix.HOLES.values())
    assert set(matrix.HOLES) <= {to for to, _ in matrix.COLUMNS}
