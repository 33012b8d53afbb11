"""
The published facts against a second table of them, `facts.csv`, typed in from the papers, the official READMEs and
model zoos, and MMAction2's metafiles. A row holds the official file (where it has a name; else how it is available),
the licences (what for, which, where stated) and the scores (data, metric, percent, views, source).
"""

import csv
from pathlib import Path

from hf_videovit import list_published
from hf_videovit.published import PublishedFile, published_entry


with (Path(__file__).parent / "facts.csv").open(encoding="utf-8", newline="") as lines:
    FACTS = {row.pop("name"): row for row in csv.DictReader(lines)}


def file_of(file: PublishedFile) -> str:
    """The name of an official file as `facts.csv` has it."""
    if file.path is not None:
        return file.path if file.availability != "dead link" else f"{file.path} (dead link)"
    if file.url is not None and file.url.endswith((".pth", ".pyth")):
        return file.url.rpartition("/")[2]
    return "in the README" if file.availability == "listed" else file.availability


def facts_of(name: str) -> dict[str, str]:
    """A row of `facts.csv` made of what the package says."""
    entry = published_entry(name)
    scores = [f"{one.data} {one.metric} {one.value:.1f} {one.views or '-'} [{one.source}]" for one in entry.results]
    return {
        "file": file_of(entry.file),
        "licences": "; ".join(f"{one.covers} {one.licence} {one.source}" for one in entry.licences),
        "scores": "; ".join(scores),
    }


def test_both_tables_say_the_same():
    assert sorted(FACTS) == sorted(list_published())
    assert {name: facts_of(name) for name in FACTS} == FACTS
