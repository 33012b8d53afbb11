"""
A Hub on this machine that serves data set repos to `huggingface_hub` and `datasets`: just enough to read them. Repos
are held in memory and never change.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


Repos = Mapping[str, Mapping[str, bytes]]


def revision_of(repo: str) -> str:
    """The one commit of a repo."""
    return hashlib.sha1(repo.encode()).hexdigest()


@contextmanager
def serving(repos: Repos) -> Iterator[str]:
    """Serve `{"owner/name": {path: content}}` and give the endpoint's address."""
    handler = type("Handler", (_Handler,), {"repos": repos})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repos: Repos = {}

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        form = parse_qs(self.rfile.read(length).decode()) | parse_qs(url.query)
        path = url.path.strip("/")
        if found := re.match(r"api/datasets/([^/]+/[^/]+)/?(.*)", path):
            self._describe(unquote(found[1]), found[2].split("/"), form)
        elif found := re.match(r"datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._download(unquote(found[1]), unquote(found[2]), unquote(found[3]))
        else:
            self._refuse("EntryNotFound")

    def _describe(self, repo, words, form):
        files = self.repos.get(repo)
        if files is None:
            return self._refuse("RepoNotFound")
        what, revision, folder = words[0], unquote("".join(words[1:2])), unquote("/".join(words[2:]))
        if revision not in ("", "main", revision_of(repo)):
            return self._refuse("RevisionNotFound")
        if what in ("", "revision"):
            siblings = [{"rfilename": name} for name in sorted(files)]
            facts = {"id": repo, "sha": revision_of(repo), "private": False, "gated": False, "tags": []}
            return self._send_json(facts | {"siblings": siblings, "downloads": 0, "likes": 0, "disabled": False})
        if what == "tree":
            deep = form.get("recursive", ["false"])[0].lower() == "true"
            entries = self._entries(files, folder, deep)
            return self._send_json(entries) if entries or not folder else self._refuse("EntryNotFound")
        if what == "paths-info":
            wanted = {name.strip("/") for name in form.get("paths", [])}
            return self._send_json([entry for entry in self._entries(files, "", True) if entry["path"] in wanted])
        return self._refuse("EntryNotFound")

    def _entries(self, files, folder, deep):
        prefix = f"{folder}/" if folder else ""
        entries = {}
        for name in sorted(files):
            parts = name.removeprefix(prefix).split("/")
            if not name.startswith(prefix):
                continue
            for depth in range(1, len(parts) if deep else min(2, len(parts))):
                inner = prefix + "/".join(parts[:depth])
                entries[inner] = {"type": "directory", "path": inner, "oid": "0" * 40, "size": 0}
            if deep or len(parts) == 1:
                oid = hashlib.sha1(files[name]).hexdigest()
                entries[name] = {"type": "file", "path": name, "oid": oid, "size": len(files[name])}
        return list(entries.values())

    def _download(self, repo, revision, name):
        if repo not in self.repos:
            return self._refuse("RepoNotFound")
        if revision not in ("main", revision_of(repo)):
            return self._refuse("RevisionNotFound")
        content = self.repos[repo].get(name)
        if content is None:
            return self._refuse("EntryNotFound")
        headers = {"X-Repo-Commit": revision_of(repo), "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        headers["Accept-Ranges"] = "bytes"
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or self.command == "HEAD":
            return self._send(200, content, headers)
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            return self._send(416, b"", {})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)

    def _refuse(self, code):
        self._send(404, json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code})

    def _send_json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
