"""Every page of the documentation is followed from its start to its end, on small stand-ins for its files."""

import pytest

from tests.documentation.pages import PAGES, ROOT, blocks, notes_of
from tests.documentation.running import PageRun


def with_code(page):
    return any(block.language in ("bash", "python") for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if with_code(page) and not notes_of(page).not_followed])
def test_a_page_can_be_followed(page, tmp_path, monkeypatch, subtests):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = PageRun(page, tmp_path)
    for block in blocks(page):
        with subtests.test(str(block)):
            run.run(block)
    left = [path for path in notes_of(page).leaves if not (tmp_path / path).exists()]
    assert not left
