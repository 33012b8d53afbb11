"""The site of the documentation: it builds without a warning, has every public name, loads nothing from elsewhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hf_videovit
from tests.documentation.pages import PAGES, ROOT


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
TOOLS = ("material", "mkdocstrings_handlers.python")
LOADED = {"img": "src", "iframe": "src", "link": "href", "script": "src", "source": "src", "video": "src"}
VIEWS = {"wide": (1280, 800), "narrow": (390, 844)}
SHOWN = ("index.html", "models.html", "training.html", "action_detection.html", "reference/videomae_v2.html")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does; a warning is an error."""
    if not all(importlib.util.find_spec(tool.partition(".")[0]) for tool in TOOLS):
        pytest.skip("the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_VIDEOVIT_REPOSITORY": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]  # --quiet would let warnings pass
    return folder


class Elements(HTMLParser):
    """Attributes of the elements of a page, by tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_every_page_and_every_public_name_is_there(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {page.removeprefix("docs/").replace(".md", ".html") for page in PAGES if page.startswith("docs/")} <= pages
    assert {"index.html", "contributing.html", "security.html", "changelog.html"} <= pages
    named = {
        attributes["id"].rpartition(".")[2]: path
        for path in site.glob("reference/*.html")
        for _, attributes in Elements(path).found
        if attributes.get("id", "").startswith("hf_videovit.")
    }
    assert set(hf_videovit.__all__) <= named.keys()
    text = (site / "reference" / "videomae_v2.html").read_text(encoding="utf-8")
    assert "(batch_size, num_frames, num_channels, height, width)" in text  # shapes of `pixel_values`
    assert (site / "reference" / "videomae_v2.html") == named["VideoMAEV2ForVideoClassification"]


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = [
        attributes[LOADED[tag]]
        for path in site.rglob("*.html")
        for tag, attributes in Elements(path).found
        if LOADED.get(tag) in attributes
    ]
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    loaded += [target.strip("'\"") for text in styles for target in re.findall(r"url\(([^)]+)\)|@import", text)]
    assert len(loaded) > 100
    assert not [target for target in loaded if re.match(r"(?:https?:)?//", target)]


@pytest.mark.parametrize("view", VIEWS)
def test_pages_fit_the_screen(site, view):
    """No page is wider than the window; no script fails; the browser asks for nothing outside of the site."""
    if BROWSER is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    width, height = VIEWS[view]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=0
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(0)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        wide = {}
        for name in SHOWN:
            page.goto((site / name).as_uri())
            assert page.locator("h1").first.is_visible()
            wide[name] = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert not {name: one for name, one in wide.items() if one > width}
    assert not said
    assert not [url for url in asked if not url.startswith((site.as_uri(), "data:"))]
