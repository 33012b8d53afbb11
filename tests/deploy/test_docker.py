"""The steps of the Dockerfile, one by one, on a machine without Docker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier


ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[str, str]]:
    """Instructions and their arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def arguments(name: str) -> list[str]:
    return [rest for step, rest in steps() if step == name]


def command(name: str) -> list[str]:
    (rest,) = arguments(name)
    return json.loads(rest[rest.index("[") :])


def test_the_server_is_no_root_and_listens_where_it_is_asked():
    names = [name for name, _ in steps()]
    assert names[0] == "FROM" and names[-2:] == ["ENTRYPOINT", "CMD"]
    (user,) = arguments("USER")
    assert user not in ("root", "0") and any(
        f"useradd --create-home --uid 1000 {user}" in run for run in arguments("RUN")
    )
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    entry = command("ENTRYPOINT")
    port = entry[entry.index("--port") + 1]
    assert arguments("EXPOSE") == [port] and f"127.0.0.1:{port}/health" in " ".join(command("HEALTHCHECK"))


def test_what_is_copied_is_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {source for rest in arguments("COPY") for source in rest.split()[:-1]}
    assert copied == allowed and all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
def test_what_is_copied_installs_and_serves(tmp_path):
    """The dependencies are those of this environment; `pip install` of the real step adds no more than these."""
    package, site = tmp_path / "package", tmp_path / "site"
    for rest in arguments("COPY"):
        *sources, target = rest.split()
        for source in map(ROOT.joinpath, sources):
            place = tmp_path / target.strip("/") / ("" if source.is_dir() else source.name)
            place.parent.mkdir(exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place)
    (install,) = [run for run in arguments("RUN") if "pip install" in run]
    assert '"/package[${EXTRAS}]"' in install and "serve" in arguments("ARG")[0]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(package)], check=True)
    (metadata,) = site.glob("hf_videovit-*/METADATA")
    assert "Provides-Extra: serve\n" in metadata.read_text()

    model = save_tiny_classifier(tmp_path / "model")
    clip = write_clip(tmp_path / "clip.mp4", moving_square_clip()).read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program, *words = command("ENTRYPOINT")
    words = [port if word == "8000" else {"0.0.0.0": "127.0.0.1"}.get(word, word) for word in words]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    start = [sys.executable, str(site / "bin" / program), *words, str(model), "--device", "cpu"]
    server = subprocess.Popen(start, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        _, *check = [word.replace("8000", port) for word in command("HEALTHCHECK")]
        deadline = time.monotonic() + 120
        while subprocess.run([sys.executable, *check], stderr=subprocess.DEVNULL).returncode:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/predict", data=clip, timeout=60) as answer:
            assert len(json.load(answer)["predictions"]) == 5
        server.terminate()
        assert server.wait(60) == 0
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
