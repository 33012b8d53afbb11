"""What is installed is whole: wheel, source distribution, metadata for an index, and the paths that pages name."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hf_videovit
from hf_videovit.cli import app


ROOT = Path(__file__).parents[1]
# docs/design.md describes the source.
PAGES = [ROOT / "README.md", *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.stem != "design")]
PLACES = r"(?:hf_videovit|examples|benchmarks|tests|docs|model_cards|training|modeling)/[\w./*-]*\w"
SOURCE_ONLY = ("benchmarks", "tests")
PUBLISHED = "https://example.org/owner/hf_videovit"
BUILD = "from setuptools import build_meta as b; b.{}({!r})"
CHECKED = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows its files")


def paths_named(page):
    """Paths of the project that a page names, and targets of its links as paths of the project."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w/.{{}}<>-]){PLACES}", text))
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    return named | {(page.parent / link).resolve().relative_to(ROOT).as_posix() for link in links}


def in_wheel(path):
    """Where a path of the project lies in a wheel."""
    return f"hf_videovit/{path}" if path.startswith("examples") else path


def lacking(page, files):
    """Paths that a page names and that are neither installed nor pages, nor said to be in the source distribution."""
    for path in sorted(paths_named(page)):
        pattern = re.compile(re.escape(in_wheel(path)).replace(r"\*", "[^/]*") + r"(/.*)?$")
        is_page = path.endswith((".md", ".png")) and (ROOT / path).is_file()
        from_source = path.startswith(SOURCE_ONLY) and "source distribution" in page.read_text(encoding="utf-8")
        if not any(map(pattern.match, files)) and not is_page and not (from_source and any(ROOT.glob(path))):
            yield f"{page.name}: {path}"


def checked_out():
    """Files of a wheel, by a look at the checkout."""
    files = [
        path.relative_to(ROOT).as_posix() for name in ("hf_videovit", "examples") for path in ROOT.glob(f"{name}/**/*")
    ]
    return [in_wheel(path) for path in files]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_what_is_there(page):
    assert not list(lacking(page, checked_out()))
    if re.search(r"\bmake [a-z]|python -m (tests|benchmarks)\b", page.read_text(encoding="utf-8")):
        assert "source distribution" in page.read_text(encoding="utf-8")


def test_a_path_that_is_missing_is_seen(tmp_path, monkeypatch):
    page = ROOT / "docs" / "training.md"
    monkeypatch.setattr(
        Path, "read_text", lambda path, **_: "`hf_videovit/gone.py` [a](gone.md) `tests/x.py` `examples/*.yaml`"
    )
    assert [line.split()[1] for line in lacking(page, ["hf_videovit/examples/finetune.py"])] == [
        "docs/gone.md",
        "examples/*.yaml",
        "hf_videovit/gone.py",
        "tests/x.py",
    ]


def test_examples_are_copied(tmp_path):
    done = CliRunner().invoke(app, ["examples", str(tmp_path / "new")])
    assert done.exit_code == 0
    originals = [path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".yaml", ".ipynb")]
    for original in originals:
        assert (tmp_path / "new" / original.relative_to(ROOT / "examples")).read_bytes() == original.read_bytes()
    again = CliRunner().invoke(app, ["examples", str(tmp_path / "new")])
    assert again.exit_code == 2
    assert "must be a new or empty folder" in again.stderr
    listed = CliRunner().invoke(app, ["examples"], env={"COLUMNS": "200"}).stdout
    shown = [path for path in originals if path.suffix == ".ipynb" or path.parent == ROOT / "examples"]
    assert all(path.name in listed for path in shown)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the files that git knows: building writes beside them."""
    folder = tmp_path_factory.mktemp("source")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in known.decode().split("\0") if name]
    with tarfile.open(folder / "all.tar", "w") as archive:
        for name in names:
            archive.add(ROOT / name, name)
    with tarfile.open(folder / "all.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder


def build(source, what, folder, repository=""):
    environment = os.environ | {"HF_VIDEOVIT_REPOSITORY": repository}
    command = [sys.executable, "-c", BUILD.format(what, str(folder))]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    (path,) = build(source, "build_wheel", tmp_path_factory.mktemp("wheel")).iterdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def description(folder):
    (file,) = folder.glob("*.dist-info/METADATA")
    return Parser().parsestr(file.read_text(encoding="utf-8"))


@CHECKED
@pytest.mark.slow
def test_a_wheel_has_every_path_that_pages_name(wheel):
    files = [path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()]
    assert not [line for page in PAGES for line in lacking(page, files)]
    assert not [
        path
        for path in files
        if path.split("/")[0] not in ("hf_videovit", f"hf_videovit-{hf_videovit.__version__}.dist-info")
    ]


@CHECKED
@pytest.mark.slow
def test_a_wheel_works_by_itself(wheel, tmp_path):
    def run(*words):
        environment = os.environ | {"PYTHONPATH": str(wheel)}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    place = run("-c", "import hf_videovit; print(hf_videovit.__file__)").strip()
    assert Path(place).is_relative_to(wheel)
    assert "videomae_v2/own_clips" in run("-m", "hf_videovit", "recipes")
    run("-m", "hf_videovit", "examples", "examples")
    assert (tmp_path / "examples" / "accelerate" / "ddp.yaml").is_file()
    assert (tmp_path / "examples" / "finetune.py").read_bytes() == (ROOT / "examples" / "finetune.py").read_bytes()


@CHECKED
@pytest.mark.slow
def test_an_index_is_told_what_it_is(wheel, source, tmp_path):
    plain = description(wheel)
    assert (plain["Author"], plain["License-Expression"], plain["License-File"]) == (
        "hf_videovit contributors",
        "Apache-2.0",
        "LICENSE",
    )
    assert not [line for line in plain.get_all("Classifier") if line.startswith("License")]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.10"} <= set(plain.get_all("Classifier"))
    assert "video classification" in plain["Keywords"]
    assert plain.get_all("Project-URL") is None
    assert not re.search(r"\]\((?!https?:|#)", plain.get_payload())

    build(source, "prepare_metadata_for_build_wheel", tmp_path, PUBLISHED)
    told = description(tmp_path)
    addresses = dict(line.split(", ") for line in told.get_all("Project-URL"))
    assert addresses["Source"] == PUBLISHED
    assert addresses.keys() >= {"Homepage", "Documentation", "Issues", "Changelog"}
    links = re.findall(r"\]\(([^)#]+)\)", told.get_payload())
    assert f"{PUBLISHED}/blob/main/docs/training.md" in links
    assert all(link.startswith("https://") for link in links)


@CHECKED
@pytest.mark.slow
def test_a_source_distribution_has_what_its_tests_need(source, tmp_path):
    (tmp_path / "built").mkdir()
    (archive,) = build(source, "build_sdist", tmp_path / "built").iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (root,) = [path for path in tmp_path.iterdir() if path.name.startswith("hf_videovit-")]
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    needed = [
        name for name in known.split("\0") if name and not name.startswith(".") and not (ROOT / name).is_symlink()
    ]
    assert not [name for name in needed if not (root / name).is_file()]
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_architecture.py"]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
