"""The harness itself: where the common tests come from, and what happens without them."""

import io
import tarfile

import pytest

from tests.hf_common import fetch, mixins


FILES = {
    "tests/test_modeling_common.py": "value = 1\n",
    "tests/test_video_processing_common.py": "",
    "tests/test_configuration_common.py": (
        "from transformers.utils import direct_transformers_import, logging\n"
        "transformers_module = direct_transformers_import(Path(__file__).parent)\n"
    ),
    "tests/models/bert/test_modeling_bert.py": "not ours\n",
    "setup.py": "",
}


def archive(path, files):
    with tarfile.open(path, "w:gz") as target:
        for name, text in files.items():
            member = tarfile.TarInfo(f"transformers-9.0.0/{name}")
            member.size = len(text)
            target.addfile(member, io.BytesIO(text.encode()))
    return path


def test_only_the_top_level_is_unpacked_and_edited(tmp_path):
    fetch.unpack(archive(tmp_path / "transformers-9.0.0.tar.gz", FILES), tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").glob("test_*.py"))
    assert names == [
        "test_configuration_common.py",
        "test_modeling_common.py",
        "test_video_processing_common.py",
    ]
    edited = (tmp_path / "out" / "test_configuration_common.py").read_text()
    assert edited == "from transformers.utils import logging\nimport transformers as transformers_module\n"


def test_a_release_without_common_tests_is_named(tmp_path):
    path = archive(tmp_path / "transformers-9.0.0.tar.gz", {"setup.py": ""})
    with pytest.raises(RuntimeError, match=r"transformers-9.0.0.tar.gz has no tests/test_modeling_common.py"):
        fetch.unpack(path, tmp_path / "out")


def test_missing_tests_skip_with_the_command_or_fail_in_ci(tmp_path, monkeypatch):
    monkeypatch.setattr(mixins, "tree", lambda: tmp_path)
    monkeypatch.delenv(mixins.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="python -m tests.hf_common.fetch"):
        mixins.common_tests("test_modeling_common")
    monkeypatch.setenv(mixins.REQUIRED, "1")
    with pytest.raises(RuntimeError, match="python -m tests.hf_common.fetch"):
        mixins.common_tests("test_modeling_common")
