"""Every code block, command line and link of the documentation is read; `test_running.py` runs what can be run."""

import json
import re

import pytest
import yaml

from tests.documentation.command_lines import check, check_mention, check_python
from tests.documentation.pages import (
    LANGUAGES,
    PAGES,
    ROOT,
    Block,
    all_notes,
    anchors,
    blocks,
    commands,
    inline,
    links,
    notes_of,
    replaced,
)


def faults(page):
    """What is wrong in the code of a page: place and reason."""
    names = notes_of(page).names
    for block in blocks(page):
        try:
            if block.language == "json":
                json.loads(block.code)
            elif block.language == "yaml":
                yaml.safe_load(block.code)
            elif block.language == "python":
                check_python(replaced(block.code, names))
            elif block.language == "bash":
                yield from faults_of_commands(block, names)
            elif block.language != "text":
                yield f"{block}: the language is {block.language!r}, not one of {', '.join(sorted(LANGUAGES))}"
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            yield f"{block}: {error}"


def faults_of_commands(block, names):
    for command in commands(block, names):
        try:
            check(command)
        except ValueError as error:
            yield f"{command.place}: {error}"


@pytest.mark.parametrize("page", PAGES)
def test_code_is_understood(page):
    assert not list(faults(page))


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_are_known(page):
    wrong = []
    for place, token in inline(page, "code_inline"):
        if token.content.startswith("hf-videovit "):
            try:
                check_mention(token.content)
            except ValueError as error:
                wrong.append(f"{place}: {error}")
    assert not wrong


def broken_links(page):
    for place, target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists():
            yield f"{place}: no file {path}"
        elif anchor and anchor not in anchors(file.resolve().relative_to(ROOT).as_posix()):
            yield f"{place}: {path or page} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert not list(broken_links(page))


def test_notes_are_of_code_that_is_there():
    """A note that no page needs any longer is to be removed."""
    stale = []
    for page, notes in all_notes().items():
        assert page in PAGES
        code = "\n".join(block.code for block in blocks(page))
        names = [*notes.names, *notes.runs_as]
        stale += [f"{page}: {name}" for name in names if replaced(code, {name: "another"}) == code]
        parts = [*notes.append, *notes.not_run]
        stale += [f"{page}: {part}" for part in parts if part not in code and part not in replaced(code, notes.names)]
        assert all(reason.strip() for reason in notes.not_run.values())
    assert not stale


@pytest.mark.parametrize(
    ("language", "code", "message"),
    [
        ("bash", "hf-videovit classify clip.mp4 --modell m", "No such option.*--modell"),
        ("bash", "hf-videovit classify clip.mp4", "Missing option"),
        ("bash", "hf-videovit train --recipe videomae_v2/gone", "videomae_v2/gone"),
        ("bash", "R=videomae_v2/own_clips\nhf-videovit train --recipe $R --lerning_rate 1", "lerning_rate"),
        ("bash", "accelerate launch examples/gone.py", "no script examples/gone.py"),
        ("bash", "accelerate launch examples/pretrain_bevt.py --recipe bevt/small_clips --no_such 1", "no_such"),
        ("bash", "hf-videovit convert --published gone --checkpoint a --output b", "no published checkpoint 'gone'"),
        (
            "bash",
            "hf-videovit train --recipe bevt/small_clips --data clips",
            "masked_words is not one of this command",
        ),
        ("bash", "python - <<'PY'\nimport hf_videovit.gone\nPY", "No module named 'hf_videovit.gone'"),
        ("bash", "make gone", "no target gone"),
        ("bash", "pip install 'hf_videovit[gone]'", "no extra gone"),
        ("bash", "python -m benchmarks.gone", "no module"),
        ("bash", "python -m benchmarks.deploy --gone", "no option --gone"),
        ("bash", "python - <<'PY'\nfrom hf_videovit import gone\nPY", "no gone"),
        ("bash", "rm -rf x", "unknown program"),
        ("python", "import hf_videovit\nhf_videovit.gone()", "no gone"),
        ("python", "f(", "never closed"),
        ("json", "{", "Expecting"),
        ("yaml", "a: [", "expected"),
        ("perl", "a", "the language is 'perl'"),
    ],
)
def test_a_mistake_is_found(language, code, message, monkeypatch):
    block = Block("docs/training.md", 1, language, code)
    monkeypatch.setattr("tests.documentation.test_pages.blocks", lambda page: [block])
    found = list(faults("docs/training.md"))
    assert len(found) == 1
    assert re.search(message, found[0]), found[0]


def test_a_broken_link_is_found(monkeypatch):
    targets = ["gone.md", "data.md#gone", "#gone", "data.md#damaged-videos", "https://example.org"]
    monkeypatch.setattr("tests.documentation.test_pages.links", lambda page: [("here", one) for one in targets])
    found = list(broken_links("docs/training.md"))
    assert [line.split()[-1] for line in found] == ["gone.md", "#gone", "#gone"]


def test_a_mention_is_checked():
    check_mention("hf-videovit models NAME --download")
    with pytest.raises(ValueError, match="no command 'gone'"):
        check_mention("hf-videovit gone")
    with pytest.raises(ValueError, match="no option --gone"):
        check_mention("hf-videovit models --gone")


def test_tests_that_are_named_as_a_reason_are_there():
    """Where a note says that another test runs a command, that test exists."""
    reasons = [reason for notes in all_notes().values() for reason in notes.not_run.values()]
    named = {path for reason in reasons for path in re.findall(r"tests/[\w/]+\.py", reason)}
    assert len(named) > 5
    assert not [path for path in named if not (ROOT / path).is_file()]
