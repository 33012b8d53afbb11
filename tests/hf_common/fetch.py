"""
Fetch Hugging Face's own common tests for the installed version of transformers:

    python -m tests.hf_common.fetch

transformers publishes them in its source distribution, not in the wheel. They are unpacked to
`.cache/hf_common_tests/<version>-<edits>/transformers_tests`, with the few edits below that running them outside
transformers' own repository needs. Nothing happens if they are there already.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock


CACHE = Path(__file__).parents[2] / ".cache" / "hf_common_tests"
PACKAGE = "transformers_tests"
COMMAND = "python -m tests.hf_common.fetch"

# (pattern, replacement) applied to every file. The package gets a name that cannot be mistaken for our own tests, and
# looks at the installed transformers instead of executing a source tree a second time.
EDITS = (
    (r"(?m)^(\w+) = direct_transformers_import\(.*\)$", r"import transformers as \1"),
    (r"(?m)^(\s*)from transformers\.utils import direct_transformers_import, ", r"\1from transformers.utils import "),
    (r'"tests/utils/tiny_model_summary\.json"', f'"{PACKAGE}/utils/tiny_model_summary.json"'),
    (r'(["\s])tests\.(pipelines|models|integrations)\.', rf"\1{PACKAGE}.\2."),
)


def tree(release: str | None = None) -> Path:
    """Folder that holds the tests of `release` (the installed transformers by default) once they are fetched."""
    edits = hashlib.sha256(repr(EDITS).encode()).hexdigest()[:8]
    return CACHE / f"{release or version('transformers')}-{edits}"


def download(release: str, folder: Path) -> Path:
    """Download transformers' source distribution with pip into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
    command += ["--dest", str(folder), f"transformers=={release}"]
    # pip asks the distribution for its metadata. The installed setuptools answers at once; else pip fetches one.
    for extra in (["--no-build-isolation"], []):
        outcome = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        found = sorted(folder.glob("transformers-*.tar.gz"))
        if outcome.returncode == 0 and found:
            return found[0]
    raise RuntimeError(f"pip could not download transformers=={release} as source:\n{outcome.stderr.strip()}")


def unpack(archive: Path, folder: Path) -> None:
    """Write the edited top level of the archive's `tests` folder to `folder`."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "utils").mkdir()
    (folder / "utils" / "tiny_model_summary.json").write_text("{}\n")  # no tiny models from the Hub
    with tarfile.open(archive) as files:
        for member in files:
            if re.fullmatch(r"[^/]+/tests/[^/]+\.py", member.name):
                text = files.extractfile(member).read().decode()
                for pattern, replacement in EDITS:
                    text = re.sub(pattern, replacement, text)
                (folder / Path(member.name).name).write_text(text)
    for name in ("test_modeling_common.py", "test_configuration_common.py", "test_video_processing_common.py"):
        if not (folder / name).is_file():
            raise RuntimeError(f"{archive.name} has no tests/{name}: this release keeps its common tests elsewhere.")


def fetch() -> Path:
    """Fetch and unpack the tests of the installed transformers unless they are there; returns their folder."""
    release, target = version("transformers"), tree()
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        if (target / PACKAGE).is_dir():
            return target
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            archive = download(release, Path(scratch))
            unpack(archive, Path(scratch) / "tree" / PACKAGE)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(Path(scratch) / "tree", target)
    return target


if __name__ == "__main__":
    print(f"transformers' common tests: {fetch().relative_to(CACHE.parents[1])}")
