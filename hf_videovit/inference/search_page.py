"""A page that plays the videos that a search found: one HTML file, without scripts and without a server."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from ..folders import write_text
from ..modeling.video_decoding import VideoDecodingError, probe_video
from .search import Hit


PAGE_MARK = "found by hf_videovit"
PLAYABLE = {".mp4": ("h264", "av1", "vp9"), ".m4v": ("h264",), ".webm": ("vp8", "vp9", "av1")}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{mark}">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
video {{ width: 100%; aspect-ratio: 16 / 9; background: #222; }}
figcaption {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<main>
{figures}
</main>
</body>
</html>
"""
FIGURE = """<figure>
<video src="{source}" controls muted loop playsinline preload="metadata"></video>
<figcaption>{caption}</figcaption>
</figure>"""


def write_search_page(example: str, hits: Sequence[Hit], path: str | Path, *, encode: Callable[[str], bytes]) -> Path:
    """
    Write the page of a search. It names files that browsers play by their place on this machine, and holds copies of
    the others.

    Args:
        example (`str`):
            The clip that was searched by.
        hits (`Sequence[Hit]`):
            The videos that were found.
        path (`str` or `Path`):
            The page; .html.
        encode (`Callable[[str], bytes]`):
            Encodes a video that browsers do not play as MP4: a folder of pictures, AVI, ...

    Returns:
        `Path`: the page.

    Raises:
        ValueError: `path` does not end in .html.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`path` of a page must end in .html, got {path.name!r}.")
    rows = [(example, "the example")]
    rows += [(hit.video, f"{place}. {hit.score:.3f}") for place, hit in enumerate(hits, start=1)]
    figures = []
    for video, text in rows:
        try:
            source = _source(video, encode)
        except VideoDecodingError as error:
            source, text = "", f"{text} ({error.reason})"
        figures.append(FIGURE.format(source=escape(source), caption=escape(f"{text}: {video}")))
    title = escape(f"Videos like {Path(example).name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, PAGE.format(mark=PAGE_MARK, title=title, figures="\n".join(figures)))
    return path


def _source(video: str, encode: Callable[[str], bytes]) -> str:
    if "://" in video:
        return video
    playable = PLAYABLE.get(Path(video).suffix.lower(), ())
    if playable and probe_video(video).codec in playable:
        return Path(video).resolve().as_uri()
    return f"data:video/mp4;base64,{base64.b64encode(encode(video)).decode()}"


__all__ = ["PAGE_MARK", "write_search_page"]
