"""Download of an official checkpoint from its plain URL: continued where it stopped, and checked by size and hash."""

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..folders import file_hash
from ..published import PublishedCheckpoint
from ..published.selection import file_word


BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
NAMED_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # OpenMMLab ends a file's name with the start of its SHA-256
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class Download:
    """
    A file that was fetched.

    Args:
        path (`Path`):
            The file.
        size (`int`):
            Its size in bytes.
        checked (`str`):
            What it was checked by: `"size and SHA-256"`, or `"size"` where no source states a hash.
    """

    path: Path
    size: int
    checked: str


def download_published(
    entry: PublishedCheckpoint,
    folder: str | os.PathLike,
    advance: Callable[[int, int | None], None] = lambda done, total: None,
) -> Download:
    """
    Download the official file of a checkpoint. A part of an earlier call (`NAME.part`) is continued, if the server's
    file is still the same.

    Args:
        entry ([`PublishedCheckpoint`]):
            The checkpoint.
        folder (`str` or `os.PathLike`):
            Receives the file under its own name. It is made if it does not exist.
        advance (`Callable[[int, int | None], None]`, *optional*):
            Called with the number of bytes that are there, and the size if it is known.

    Returns:
        [`Download`]

    Raises:
        ValueError: the checkpoint has no plain URL, the file is no longer there, it differs in size or hash from what
            is stated, or another file has its name.
        ConnectionError: the connection failed; the next call continues.
    """
    url = _url(entry)
    if url is None:
        raise ValueError(f"{entry.name} has no plain URL (file: {file_word(entry)}), so it cannot be downloaded")
    size, digest = _stated(entry)
    path = Path(folder) / entry.file.name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        _receive(url, part, size, digest, advance)
        _check(part, size, digest, url)
        os.replace(part, path)
        _tag_of(part).unlink(missing_ok=True)
    elif size is None and digest is None:
        raise ValueError(f"{str(path)!r} exists, and no size or hash is known to check it by: move or delete it")
    else:
        _check(path, size, digest, url, keep=True)
    return Download(path, path.stat().st_size, "size" if digest is None else "size and SHA-256")


def _url(entry: PublishedCheckpoint) -> str | None:
    if entry.file.repository is None or entry.file.address is None:
        return entry.file.address
    from huggingface_hub import hf_hub_url

    return hf_hub_url(entry.file.repository, str(entry.file.path))


def _stated(entry: PublishedCheckpoint) -> tuple[int | None, str | None]:
    """Size and the start of the SHA-256 of a file, as the entry, its name or the Hub states them."""
    file = entry.file
    named = NAMED_HASH.search(file.name)
    size, digest = file.bytes, file.sha256 or (named[1] if named and file.repository is None else None)
    if file.repository is not None and digest is None:
        size, digest = _stated_by_hub(file.repository, str(file.path), size)
    return size, digest


def _stated_by_hub(repository: str, path: str, size: int | None) -> tuple[int | None, str | None]:
    from huggingface_hub import HfApi

    from .asking import PublishingError, asking

    try:
        found: list[Any] = asking(repository, lambda: HfApi().get_paths_info(repository, [path]))
    except PublishingError as error:
        raise ConnectionError(str(error).replace(" The repo is unchanged; try again.", "")) from error
    if not found:
        raise ValueError(f"{path} is no longer in {repository} on the Hub")
    if size is not None and size != found[0].size:
        raise ValueError(f"{path} in {repository} has {found[0].size} bytes instead of {size}: another file")
    return found[0].size, found[0].lfs.sha256 if found[0].lfs else None


def _receive(
    url: str, part: Path, size: int | None, digest: str | None, advance: Callable[[int, int | None], None]
) -> None:
    """Get what is missing of a file."""
    start = part.stat().st_size if part.exists() else 0
    tag = _tag_of(part).read_text(encoding="utf-8") if _tag_of(part).exists() else ""
    if start and start == size:
        return
    # without a tag or a hash, nothing tells whether the part and the rest are of the same file
    if (not tag and digest is None) or (size is not None and start > size):
        start = 0
    with _readable_errors(url), closing(_open(url, start, tag)) as answer:
        start, total = _place(answer, start, url)
        if size is not None and total not in (None, size):
            raise ValueError(f"{url} has {total} bytes instead of {size}: another file than the published one")
        _tag_of(part).write_text(_validator(answer.headers), encoding="utf-8")
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while block := answer.read(BLOCK):
                file.write(block)
                advance(file.tell(), total)
            done = file.tell()
            file.truncate()
        if total is not None and done < total:
            raise http.client.HTTPException(f"it ended after {done} of {total} bytes")


def _open(url: str, start: int, tag: str) -> Any:
    """The answer of the server, from the byte `start` on if its file still has the tag."""
    headers = {"User-Agent": "hf_videovit", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": tag} if tag else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is as long as the file, or longer
            raise
        return _open(url, 0, "")


@contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(f"{url}: the server answers {error.code}; try again later") from error
        raise ValueError(f"{url}: the server answers {error.code} ({error.reason}): the file cannot be had") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url}: the connection failed: {error}. Run it again to continue") from error


def _place(answer: Any, start: int, url: str) -> tuple[int, int | None]:
    """Where an answer begins in the file, and the size of the file."""
    if answer.status == 206:
        place = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if place is None or int(place[1]) != start:
            raise http.client.HTTPException("the server sends another part of the file than it was asked for")
        return start, int(place[2])
    if answer.headers.get_content_type() == "text/html":
        raise ValueError(f"{url}: the server answers with a web page, not with the file")
    length = answer.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _validator(headers: Mapping[str, str]) -> str:
    """The entity tag of a server's file if it is a strong one, or its date: the next file has another."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _check(path: Path, size: int | None, digest: str | None, url: str, keep: bool = False) -> None:
    """ValueError for a file that is not the published one; it is deleted unless it was there before."""
    problem = None
    if size is not None and path.stat().st_size != size:
        problem = f"has {path.stat().st_size} bytes instead of {size}"
    elif digest is not None and not (found := file_hash(path)).startswith(digest):
        problem = f"has the SHA-256 {found} instead of {digest}"
    if problem is None:
        return
    if keep:
        raise ValueError(f"{str(path)!r} {problem}, so it is not the file at {url}: move or delete it")
    path.unlink()
    _tag_of(path).unlink(missing_ok=True)
    raise ValueError(f"The file at {url} {problem}, so it is not the published one. It was deleted")


__all__ = ["Download", "download_published"]
