"""The notebooks of `examples/notebooks` run from top to bottom, and what they show is so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
# What must hold after the last cell: conditions on the notebook's own variables.
RESULTS = {
    "classify": ["accuracy > 0.8", "turned > 0.8", "changed > 0.2", "'num_clip' in message", "important < random"],
    "finetune": [
        "start.evaluation.metrics['top1'] > 0.5",
        "tuned.evaluation.metrics['top1'] > 0.65",
        "tuned.evaluation.metrics['top1'] > scratch.evaluation.metrics['top1']",
        "plan.num_videos == 80",
        "{'model.safetensors', 'config.json', 'video_preprocessor_config.json'} <= set(files)",
        "{answer['label'] for answer in answers} == {'sideways', 'upright'}",
    ],
    "search": ["len(first.added) == len(videos) == 80", "not second.added", "len(hits) == 5", "precision > 0.4"],
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_each_notebook_has_its_results():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_notebooks_are_valid_and_committed_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_notebooks_run_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read(name)
    checks = "\n".join(f"assert {condition}, {condition!r}" for condition in RESULTS[name])
    notebook.cells.append(nbformat.v4.new_code_cell(checks))
    NotebookClient(notebook, timeout=None, kernel_name="python3").execute(cwd=str(tmp_path))
