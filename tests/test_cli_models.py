"""`hf-videovit models`: the list fits a terminal, an entry is shown whole, and its file is fetched and checked."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from hf_videovit import published
from hf_videovit.cli import app
from hf_videovit.hub.downloading import download_published
from hf_videovit.hub.model_table import millions
from hf_videovit.published import PublishedCheckpoint, PublishedFile, list_published, published_entry


CONTENT = bytes(range(256)) * 20_000
HASH = hashlib.sha256(CONTENT).hexdigest()


def run(*words):
    done = CliRunner().invoke(app, ["models", *words], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


class Files(BaseHTTPRequestHandler):
    """One file under every path, with ranges and a tag; `server.breaks` cuts answers after so many bytes."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, start = self.server, 0
        server.seen.append(self.headers.get("Range"))
        if server.status != 200:
            self.send_response(server.status)
            self.end_headers()
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.tag):
            start = int(wanted[1])
        if start >= len(server.content) > 0 and start:
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        with suppress(ConnectionError):  # the other side may hang up
            self.wfile.write(server.content[start:][: server.breaks])


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads = True
    server.content, server.tag, server.breaks, server.ranges, server.status = CONTENT, '"1"', None, True, 200
    server.kind, server.seen = "application/octet-stream", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server():
    with serving() as one:
        yield one


def entry_of(server, name="weights.pth", **file):
    file = PublishedFile(url=f"http://127.0.0.1:{server.server_port}/a/{name}", **file)
    return PublishedCheckpoint("own", "uniformer", "small", "A test.", "pretraining", file, parameters=1)


@pytest.mark.parametrize(
    "words",
    [[], ["--family", "uniformer_v2"], ["--data", "k400", "--size", "base"], ["--task", "temporal-localization"]],
    ids=lambda words: " ".join(words) or "all",
)
def test_the_list_fits_80_columns_with_whole_names(words):
    shown = run(*words)
    assert max(map(len, shown.splitlines())) <= 80
    rows = json.loads(run(*words, "--json"))
    lines = shown.splitlines()
    for row in rows:
        (line,) = {line for line in lines if line.split()[:1] == [row["name"]]}
        assert f" {millions(row['parameters']).removesuffix('M')} " in line, line
        assert line.split()[-1] == row["available"]


def test_scores_are_those_of_the_data_set_that_is_asked_for():
    line = next(line for line in run("--data", "k400").splitlines() if "videomae-v2-base-k710-distilled" in line)
    assert line.split() == ["videomae-v2-base-k710-distilled", "86.6", "86.8", "180", "apache", "hub"]


@pytest.mark.parametrize("name", list_published()[::25])
def test_an_entry_is_shown_whole(name):
    shown, entry = " ".join(run(name).split()), published_entry(name)
    for one in entry.results:
        assert one.data in shown and f"{one.value:.1f}" in shown
    assert all(one.licence in shown for one in entry.licences)
    assert entry.file.url is None or entry.file.url in shown
    released = entry.file.availability != "never released"
    assert (
        f"hf-videovit convert --published {name} --checkpoint {entry.file.name} --output {name}" in shown
    ) == released
    assert ("--download" in shown) == (entry.file.address is not None)


def test_a_name_that_is_nearly_right_is_suggested():
    done = CliRunner().invoke(app, ["models", "videomae-v2-base-k710-distiled"])
    assert done.exit_code == 2 and "Did you mean videomae-v2-base-k710-distilled" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--download"], "--download needs the NAME"),
        (["videomae-v2-giant-k710", "--family", "bevt"], "NAME and --family exclude each other"),
        (["tubevit-base-k400", "--download"], "tubevit-base-k400 has no plain URL"),
        (["--family", "bert"], "--family must be one of actionformer, bevt, lstcl"),
    ],
)
def test_wrong_use(words, message):
    done = CliRunner().invoke(app, ["models", *words])
    assert done.exit_code == 2 and message in done.stderr


def test_the_list_needs_no_torch():
    code = """
import sys
from hf_videovit.cli import app
try:
    app(["models", "--data", "k400"], prog_name="hf-videovit")
except SystemExit as end:
    assert end.code in (0, None)
assert not {"torch", "transformers", "numpy", "huggingface_hub"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_file_is_downloaded_and_checked_from_the_command_line(server, tmp_path, monkeypatch):
    entry = entry_of(server, bytes=len(CONTENT), sha256=HASH)
    monkeypatch.setattr(published, "_entries", lambda: {"own": entry})
    done = CliRunner().invoke(app, ["models", "own", "--download", "--output", str(tmp_path / "new")])
    path = tmp_path / "new" / "weights.pth"
    assert path.read_bytes() == CONTENT and [one.name for one in path.parent.iterdir()] == ["weights.pth"]
    assert "checked by size and SHA-256" in done.stdout
    assert f"Next: hf-videovit convert --published own --checkpoint {path} --output own\n" in done.stderr
    again = json.loads(run("own", "--download", "--output", str(tmp_path / "new"), "--json"))
    assert again == {"file": str(path), "bytes": len(CONTENT), "checked": "size and SHA-256"}
    assert len(server.seen) == 1  # what is there is checked, not downloaded again


def test_a_broken_download_continues(server, tmp_path):
    entry = entry_of(server)
    for stop in (1_000_000, 2_000_000):
        server.breaks = 1_000_000
        with pytest.raises(ConnectionError, match="Run it again to continue"):
            download_published(entry, tmp_path)
        assert (tmp_path / "weights.pth.part").stat().st_size == stop
        assert not (tmp_path / "weights.pth").exists()
    server.breaks = None
    done = download_published(entry, tmp_path)
    assert done.path.read_bytes() == CONTENT and done.checked == "size"
    assert server.seen == [None, "bytes=1000000-", "bytes=2000000-"]


@pytest.mark.parametrize("change", ["tag", "no ranges", "no tag"])
def test_parts_of_two_files_are_never_joined(server, tmp_path, change):
    entry = entry_of(server)
    server.breaks = 1_000_000
    if change == "no tag":
        server.tag = None
    with pytest.raises(ConnectionError):
        download_published(entry, tmp_path)
    server.breaks, server.content = None, CONTENT[::-1]
    server.ranges = change != "no ranges"
    if change != "no tag":
        server.tag = '"2"'
    assert download_published(entry, tmp_path).path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("weights.pth", {"sha256": "0" * 64}),
        ("weights.pth", {"bytes": 7}),
        ("model_20221219-0123abcd.pth", {}),  # as OpenMMLab names its files
    ],
)
def test_another_file_is_refused(server, tmp_path, name, file):
    with pytest.raises(ValueError, match="instead of"):
        download_published(entry_of(server, name, **file), tmp_path)
    assert not (tmp_path / name).exists()


def test_the_hash_in_a_name_is_checked(server, tmp_path):
    done = download_published(entry_of(server, f"model-{HASH[:8]}.pth"), tmp_path)
    assert done.checked == "size and SHA-256"


def test_a_file_of_the_user_is_kept(server, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"mine")
    for file in ({}, {"sha256": HASH}, {"bytes": len(CONTENT)}):
        with pytest.raises(ValueError, match="move or delete it"):
            download_published(entry_of(server, **file), tmp_path)
    assert path.read_bytes() == b"mine" and not server.seen


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [(404, "text/plain", ValueError), (503, "text/plain", ConnectionError), (200, "text/html", ValueError)],
)
def test_what_the_server_answers_is_told(server, tmp_path, status, kind, error):
    server.status, server.kind = status, kind
    with pytest.raises(error, match=f"http://127.0.0.1:{server.server_port}/a/weights.pth"):
        download_published(entry_of(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_a_connection_error(tmp_path):
    with serving() as server:
        entry = entry_of(server)
    with pytest.raises(ConnectionError):
        download_published(entry, tmp_path)
