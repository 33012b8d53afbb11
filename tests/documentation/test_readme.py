"""The table of the README says what `hf_videovit/published` says."""

import re

import pytest

from hf_videovit.published import list_published, published_entry
from hf_videovit.published.selection import file_word, main_result
from tests.documentation.pages import ROOT


PAGES = {
    "bevt": "bevt.md",
    "lstcl": "lstcl.md",
    "tubevit": "tubevit.md",
    "uniformer": "uniformer.md",
    "uniformer_v2": "uniformer_v2.md",
    "videomae_v2": "videomae_v2.md",
}
DATA = ("Kinetics-400", "Kinetics-710")  # the first of which there are scores


def row(family):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^\| \[[^\]]+\]\(docs/{re.escape(PAGES[family])}\).*$", text, re.MULTILINE)[0]


@pytest.mark.parametrize("family", PAGES)
def test_a_row_of_the_table_is_true(family):
    entries = [published_entry(name) for name in list_published(family)]
    with_file = [entry for entry in entries if file_word(entry) in ("hub", "link", "web")]
    assert f"| {len(with_file)} of {len(entries)} |" in row(family)
    scores = [
        (data, result.value, entry.name)
        for data in DATA
        for entry in with_file
        if entry.task == "video-classification"
        and (result := main_result(entry)) is not None
        and (result.data, result.metric) == (data, "top1")
    ]
    if scores:
        data = scores[0][0]
        _, value, name = max(one for one in scores if one[0] == data)
        assert row(family).endswith(f"| {value:.1f} {data}, `{name}` |")
    else:
        assert row(family).endswith("| none: the authors released no weights |")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
