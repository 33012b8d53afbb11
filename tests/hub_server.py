"""
A Hub on this machine, held in memory: enough of it to read and write repos with `huggingface_hub`, `transformers` and
`datasets` (without Xet: set `HF_HUB_DISABLE_XET=1`). It can be told to fail.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.card_rules import problems


Repos = Mapping[str, Mapping[str, bytes]]
LARGE = re.compile(r".*\.(safetensors|bin|mp4|avi|tar|parquet|png)")
WRITER, READER = "hf_writer", "hf_reader"  # tokens that the Hub knows


def revision_of(repo: str) -> str:
    """The first commit of a repo."""
    return hashlib.sha1(repo.encode()).hexdigest()


@dataclass
class Commit:
    """A state of a repo: content of every file by path."""

    sha: str
    title: str
    files: dict[str, bytes]
    parent: str | None = None


@dataclass
class Repo:
    """A repo of any kind."""

    name: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    pull_requests: int = 0

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))

    def add(self, branch: str, title: str, files: Mapping[str, bytes]) -> Commit:
        parent = self.branches.get(branch)
        sha = hashlib.sha1(f"{self.name} {len(self.commits)} {title}".encode()).hexdigest()
        commit = Commit(sha if self.commits else revision_of(self.name), title, dict(files), parent)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit


@dataclass
class Failure:
    """
    What goes wrong with requests whose `METHOD path` matches a pattern: a status code, a connection that is cut after
    some bytes of the answer (`cut`), or before any (`cut=0`). After `times` requests the Hub is well again.
    """

    pattern: str
    status: int | None = None
    cut: int | None = None
    times: int = 1_000_000
    skip: int = 0

    def strikes(self, request: str) -> bool:
        if self.times <= 0 or not re.search(self.pattern, request):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Hub:
    """The state of a Hub: repos by kind and name, large files by hash, every request that came."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self.lock = threading.RLock()
        self.endpoint = ""

    def create(self, kind: str, name: str, files: Mapping[str, bytes] | None = None, private: bool = False) -> Repo:
        repo = self.repos[kind, name] = Repo(name, private)
        repo.add("main", "initial commit", files or {})
        return repo

    def files(self, name: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        commit = self.repos[kind, name].find(revision)
        assert commit is not None, revision
        return commit.files


@contextmanager
def running(hub: Hub | None = None) -> Iterator[Hub]:
    """Serve a Hub on a free port; `hub.endpoint` is its address."""
    hub = hub or Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(repos: Repos) -> Iterator[str]:
    """Serve data set repos, `{"owner/name": {path: content}}`, and give the endpoint's address."""
    hub = Hub()
    for name, files in repos.items():
        hub.create("datasets", name, files)
    with running(hub):
        yield hub.endpoint


class _Cut(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self):
        url = urlsplit(self.path)
        self.path_parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.query = parse_qs(url.query)
        request = f"{self.command} /{'/'.join(self.path_parts)}"
        failure = next((one for one in self.hub.failures if one.strikes(request)), None)
        self.cut = failure.cut if failure else None
        if failure and failure.cut == 0 and self.command in ("PUT", "POST"):
            self.rfile.read(min(64, int(self.headers.get("Content-Length") or 0)))
            return self._hang_up()
        self.content = self._read()
        with self.hub.lock:
            self.hub.requests.append(request)
            try:
                if failure and failure.status:
                    return self._refuse(failure.status, "")
                self._route()
            except _Cut:
                self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        self.connection.close()

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    @property
    def token(self) -> str | None:
        word = self.headers.get("Authorization") or ""
        return word.removeprefix("Bearer ") if word.startswith("Bearer ") else None

    def _route(self):
        parts = self.path_parts
        if parts[0] == "api":
            return self._api(parts[1:])
        if parts[0] == "_large" and self.command == "PUT":
            if hashlib.sha256(self.content).hexdigest() != parts[1]:
                return self._refuse(400, "")
            self.hub.large[parts[1]] = self.content
            return self._send(200, b"")
        if parts[0] == "_verify":
            return self._send_json({})
        kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
        if len(parts) > 3 and parts[1].endswith(".git"):
            return self._large_batch()
        if len(parts) > 4 and parts[2] in ("resolve", "raw"):
            return self._download(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._refuse(404, "EntryNotFound")

    def _api(self, parts):
        if parts == ["whoami-v2"]:
            if self.token not in (WRITER, READER):
                return self._refuse(401, "")
            return self._send_json({"type": "user", "name": "owner", "fullname": "Owner", "orgs": [], "auth": {}})
        if parts == ["validate-yaml"]:
            wanted = json.loads(self.content)
            errors = problems(wanted["content"], wanted["repoType"])
            if self.headers.get("Accept") == "text/plain":  # a card that asks for itself, not a commit for its card
                return self._send(400 if errors else 200, "\n".join(errors).encode())
            answer = {"errors": [{"message": error} for error in errors], "warnings": []}
            return self._send_json(answer, 400 if errors else 200)
        if parts == ["repos", "create"]:
            return self._create()
        if len(parts) < 3 or parts[0] not in ("models", "datasets", "spaces"):
            return self._refuse(404, "EntryNotFound")
        name = "/".join(parts[1:3])
        repo = self.hub.repos.get((parts[0], name))
        if repo is None or (repo.private and self.token not in (WRITER, READER)):
            return self._refuse(404 if self.token else 401, "RepoNotFound")
        what, rest = (parts[3], parts[4:]) if len(parts) > 3 else ("", [])
        if what == "branch":
            return self._branch(repo, rest[0])
        if what == "commit":
            return self._commit(repo, rest[0])
        revision = rest[0] if rest else "main"
        commit = repo.find(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if what == "preupload":
            return self._preupload(commit)
        return self._describe(repo, commit, what, "/".join(rest[1:]))

    def _may_write(self) -> bool:
        if self.token == WRITER:
            return True
        self._refuse(401 if self.token != READER else 403, "")
        return False

    def _create(self):
        if not self._may_write():
            return None
        wanted = json.loads(self.content)
        kind = f"{wanted.get('type') or 'model'}s"
        name = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        address = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repos:
            return self._send_json({"error": "exists", "url": address}, 409)
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.create(kind, name, private=private)
        return self._send_json({"url": address, "name": name, "id": "1"})

    def _branch(self, repo, name):
        if not self._may_write():
            return None
        if name in repo.branches:
            return self._refuse(409, "")
        start = json.loads(self.content or b"{}").get("startingPoint") or "main"
        repo.branches[name] = repo.find(start).sha
        return self._send_json({})

    def _preupload(self, commit):
        if not self._may_write():
            return None
        answers = []
        for file in json.loads(self.content)["files"]:
            mode = "lfs" if LARGE.fullmatch(file["path"]) or file["size"] > 2**20 else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
        return self._send_json({"files": answers})

    def _large_batch(self):
        if not self._may_write():
            return None
        answers = []
        for wanted in json.loads(self.content)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
            if wanted["oid"] not in self.hub.large:
                upload = {"href": f"{self.hub.endpoint}/_large/{wanted['oid']}"}
                verify = {"href": f"{self.hub.endpoint}/_verify", "header": {}}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        return self._send_json({"transfer": "basic", "objects": answers})

    def _commit(self, repo, branch):
        if not self._may_write():
            return None
        before = repo.find(branch)
        if before is None:
            return self._refuse(404, "RevisionNotFound")
        files, title = dict(before.files), ""
        for line in self.content.splitlines():
            key, value = (part for part in json.loads(line).values())
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, before.sha):
                    return self._refuse(412, "")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return self._refuse(400, "")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        answer = {}
        if self.query.get("create_pr") == ["1"]:
            repo.pull_requests += 1
            branch = f"refs/pr/{repo.pull_requests}"
            repo.branches[branch] = before.sha
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo.name}/discussions/{repo.pull_requests}"
        commit = repo.add(branch, title, files)
        kind = self.path_parts[1]
        address = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo.name}/commit/{commit.sha}"
        return self._send_json({"success": True, "commitOid": commit.sha, "commitUrl": address, **answer})

    def _describe(self, repo, commit, what, folder):
        if what in ("", "revision"):
            return self._send_json(self._facts(repo, commit))
        if what == "refs":
            branches = [{"name": name, "ref": name, "targetCommit": sha} for name, sha in repo.branches.items()]
            return self._send_json({"branches": branches, "tags": [], "converts": []})
        if what == "tree":
            deep = self.query.get("recursive", ["false"])[0].lower() == "true"
            entries = _entries(commit.files, folder, deep)
            return self._send_json(entries) if entries or not folder else self._refuse(404, "EntryNotFound")
        if what == "paths-info":
            form = parse_qs(self.content.decode())
            wanted = {name.strip("/") for name in form.get("paths", [])}
            return self._send_json([entry for entry in _entries(commit.files, "", True) if entry["path"] in wanted])
        return self._refuse(404, "EntryNotFound")

    def _facts(self, repo, commit):
        card = commit.files.get("README.md", b"").decode()
        metadata = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
        known = json.loads(json.dumps(yaml.safe_load(metadata[1]) or {}, default=str)) if metadata else {}
        day = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(0))
        facts = {"id": repo.name, "modelId": repo.name, "sha": commit.sha, "private": repo.private, "gated": False}
        facts |= {"downloads": 0, "likes": 0, "disabled": False, "lastModified": day, "createdAt": day}
        facts |= {"tags": known.get("tags") or [], "cardData": known, "pipeline_tag": known.get("pipeline_tag")}
        facts |= {"library_name": known.get("library_name")}
        return facts | {"siblings": [{"rfilename": name} for name in sorted(commit.files)]}

    def _download(self, kind, name, revision, path):
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and self.token not in (WRITER, READER)):
            return self._refuse(404 if self.token else 401, "RepoNotFound")
        commit = repo.find(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        content = commit.files.get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit.sha})
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{_oid(path, content)}"', "Accept-Ranges": "bytes"}
        if LARGE.fullmatch(path):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or self.command == "HEAD":
            return self._send(200, content, headers)
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            return self._send(416, b"", {})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)

    def _refuse(self, status, code, headers=None):
        more = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(status, json.dumps({"error": code or "refused"}).encode(), {**more, **(headers or {})})

    def _send_json(self, value, status=200):
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut is not None:
            self.wfile.write(content[: self.cut])
            self.wfile.flush()
            raise _Cut
        self.wfile.write(content)


def _oid(path: str, content: bytes) -> str:
    return (hashlib.sha256 if LARGE.fullmatch(path) else hashlib.sha1)(content).hexdigest()


def _entries(files: Mapping[str, bytes], folder: str, deep: bool) -> list[dict]:
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
            entry = {"type": "file", "path": name, "oid": _oid(name, files[name]), "size": len(files[name])}
            if LARGE.fullmatch(name):
                entry["lfs"] = {"oid": entry["oid"], "size": entry["size"], "pointerSize": 130}
            entries[name] = entry
    return list(entries.values())
