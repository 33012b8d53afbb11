"""Child processes import nothing from the working directory, whatever lies there beside the videos."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_videovit import processes
from tests.clips import moving_square_clip, write_clip


ROOT = Path(__file__).resolve().parents[1]
# Starts in a folder of decoys: one for every module that this process has imported, each of which leaves a mark.
SCRIPT = """
import multiprocessing, sys
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from hf_videovit.doctor import check_videos
from hf_videovit.processes import run_apart, trusted_context
from hf_videovit.training.data.workers import ignore_signals, worker_context
from hf_videovit.training.preparing.encoding import EncodingSettings, encode_clip

class Numbers:
    def __len__(self): return 4
    def __getitem__(self, index): return index

def main():
    for name in sorted({name.partition(".")[0] for name in sys.modules}):
        if name.isidentifier() and not name.startswith("__"):
            Path(f"{name}.py").write_text(f"open('hit_{name}', 'w').close()\\nraise ImportError('a decoy')\\n")
    checks = list(check_videos(["clip.mp4", "copy.mp4"], num_workers=2))
    assert [check.status for check in checks] == ["ok", "ok"], checks
    assert dict(run_apart([partial(abs, -3), partial(abs, -4)], 2, "json")) == {0: 3, 1: 4}
    for method in sys.argv[1].split(","):
        multiprocessing.set_start_method(method, force=True)
        for context, start in ((trusted_context(), None), (worker_context(), ignore_signals)):
            loader = DataLoader(Numbers(), num_workers=2, multiprocessing_context=context, worker_init_fn=start)
            assert sorted(int(one) for one in loader) == [0, 1, 2, 3], method
    print("done")

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_decoys_in_the_working_directory_are_not_imported(tmp_path):
    folder, script = tmp_path / "videos", tmp_path / "script" / "main.py"
    for path in (folder, script.parent):
        path.mkdir()
    script.write_text(SCRIPT)
    for name in ("clip.mp4", "copy.mp4"):
        write_clip(folder / name, moving_square_clip(num_frames=8))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, str(script), "spawn,forkserver,fork"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(folder.glob("hit_*")) == []
    assert (folder / "struct.py").is_file()


# The first imports of an interpreter, and what the package and its dependencies import.
DECOYS = {name for name in sys.stdlib_module_names if name.isidentifier()} | {
    *("numpy", "av", "torch", "torchvision", "torchcodec", "decord", "transformers", "tokenizers", "safetensors"),
    *(
        "huggingface_hub",
        "datasets",
        "accelerate",
        "PIL",
        "yaml",
        "tqdm",
        "packaging",
        "filelock",
        "httpx",
        "requests",
    ),
    *("regex", "fsspec", "pyarrow", "pandas", "dill", "multiprocess", "typer", "rich", "hf_videovit"),
}
PREPARE = """
import sys
from hf_videovit.cli import main
sys.argv = ["hf-videovit", "prepare", "clips", "prepared", "--num-workers", "2", "--format", "folder"]
main()
"""
DOCTOR = """
import sys
from hf_videovit.cli import main
sys.argv = ["hf-videovit", "doctor", "clips", "--num-workers", "2"]
main()
"""
ISOLATED = """
from hf_videovit.modeling.video_decoding import decode_video
assert len(decode_video("clips/up/0.mp4", [0, 3], isolate=True).frames) == 2
"""
PIPELINE = """
multiprocessing.set_start_method({method!r})
from hf_videovit.inference.pipeline import ClipClassificationPipeline
from tests.saved_model import tiny_classifier, tiny_processor
classifier = ClipClassificationPipeline(
    model=tiny_classifier(), video_processor=tiny_processor(), task="video-classification"
)
assert len(classifier(["clips/up/0.mp4", "clips/left/0.mp4"], num_workers=2)) == 2
"""
STARTS = {
    "doctor": DOCTOR,
    "prepare": PREPARE,
    "isolated decoding": ISOLATED,
    "pipeline, forkserver": PIPELINE.format(method="forkserver"),
    "pipeline, spawn": PIPELINE.format(method="spawn"),
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """A folder of videos with a decoy of every module."""
    folder = tmp_path_factory.mktemp("work") / "downloads"
    for name in ("up", "left"):
        for number in range(2):
            write_clip(folder / "clips" / name / f"{number}.mp4", moving_square_clip(name, num_frames=8, seed=number))
    for name in DECOYS:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'was_run')!r}, 'a').write('{name} ')\n")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="start methods of POSIX")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
@pytest.mark.parametrize("name", STARTS)
def test_child_processes_run_nothing_of_the_working_directory(downloads, tmp_path, name):
    script = tmp_path / "script.py"
    body = "".join(f"    {line}\n" for line in STARTS[name].strip().splitlines())
    script.write_text(f"import multiprocessing\n\nif __name__ == '__main__':\n{body}")
    environment = {name: value for name, value in os.environ.items() if name != processes.SAFE_PATH}
    environment["PYTHONPATH"] = str(ROOT)
    outcome = subprocess.run(
        [sys.executable, str(script)], cwd=downloads, env=environment, capture_output=True, text=True, check=False
    )
    found = downloads / "was_run"
    run = found.read_text() if found.exists() else ""
    found.unlink(missing_ok=True)
    assert run == ""
    assert outcome.returncode == 0, outcome.stderr


def test_the_environment_is_as_before(monkeypatch):
    for before in (None, "", "1"):
        if before is None:
            monkeypatch.delenv(processes.SAFE_PATH, raising=False)
        else:
            monkeypatch.setenv(processes.SAFE_PATH, before)
        with processes.trusted_imports(), processes.trusted_imports():
            assert os.environ[processes.SAFE_PATH] == "1"
        assert os.environ.get(processes.SAFE_PATH) == before
