"""Child processes import nothing from the working directory, whatever lies there beside the videos."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
from hf_videovit.training.data.workers import ignore_sigterm, worker_context
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
        for context, start in ((trusted_context(), None), (worker_context(), ignore_sigterm)):
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
