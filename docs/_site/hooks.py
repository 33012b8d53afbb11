"""What MkDocs does beyond its settings in `mkdocs.yml`: pages from the root, the reference of the Python interface."""

import os
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import hf_videovit


ROOT = Path(__file__).parents[2]
# Pages of the root, and where they are on the site.
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
REPOSITORY = os.environ.get("HF_VIDEOVIT_REPOSITORY", "")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Titles of the pages of the reference, and the modules of their names; the first pattern that fits.
REFERENCE = {
    "Functions": r"adapters|convert|inference|published|modeling\.semantic_protocol",
    "Auto classes": r"auto$",
    "Action detection": r".*action_detection$",
    "Temporal localisation": r".*(actionformer|temporal_local)",
    "BEVT": r".*bevt(_image_codebook)?$",
    "LSTCL": r".*lstcl$",
    "TubeViT": r".*tubevit$",
    "UniFormerV2": r".*uniformer_v2$",
    "UniFormer": r".*uniformer",
    "VideoMAE V2": r".*videomae_v2$",
    "Errors": r"modeling\.video_decoding$",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that a pattern of the navigation stands for in its place."""
    config.nav = _expanded(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root and the reference."""
    for source, target in FROM_ROOT.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for title, names in reference_pages().items():
        text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])
        files.append(File.generated(config, _reference_page(title), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to pages of the site; files outside of it are linked in the repository, or are text."""
    origin = {target: source for source, target in FROM_ROOT.items()}.get(page.file.src_uri)
    place = PurePosixPath(origin or f"docs/{page.file.src_uri}").parent

    def moved(match: re.Match) -> str:
        picture, text, target, anchor = match.groups()
        path = normpath((place / target).as_posix())
        inside = FROM_ROOT.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is not None:
            return f"{picture}[{text}]({relpath(inside, PurePosixPath(page.file.src_uri).parent)}{anchor or ''})"
        return f"[{text}]({REPOSITORY}/blob/main/{path})" if REPOSITORY else text

    parts = re.split(f"({FENCE.pattern})", markdown, flags=FENCE.flags)
    return "".join(part if index % 2 else LINK.sub(moved, part) for index, part in enumerate(parts))


def reference_pages() -> dict[str, list[str]]:
    """Full names of everything public, by title of the page of the reference."""
    pages: dict[str, list[str]] = {title: [] for title in REFERENCE}
    for name in hf_videovit.__all__:
        module = hf_videovit.MODULE_OF[name]
        page = next((page for page, pattern in REFERENCE.items() if re.match(pattern, module)), None)
        if page is None:
            raise ValueError(f"{name} of {module} is on no page of the reference: add its module to REFERENCE")
        value = getattr(hf_videovit, name)
        pages[page].append(f"{value.__module__}.{value.__qualname__}")
    return pages


def _expanded(nav: Any, docs: Path) -> Any:
    if isinstance(nav, dict):
        sections = {title: _expanded(entry, docs) for title, entry in nav.items()}
        return {title: entries for title, entries in sections.items() if entries}
    if not isinstance(nav, list):
        return nav
    entries: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry == "reference":
            entries += [{title: _reference_page(title)} for title in REFERENCE]
        elif isinstance(entry, str) and "*" in entry:
            entries += sorted(path.relative_to(docs).as_posix() for path in docs.glob(entry))
        elif left := _expanded(entry, docs):
            entries.append(left)
    return entries


def _reference_page(title: str) -> str:
    return f"reference/{title.lower().replace(' ', '_')}.md"
