"""The pages of the documentation: their code blocks, the commands in them, and their links."""

import re
import shlex
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token


ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
LANGUAGES = {"bash", "json", "python", "text", "yaml"}  # text is what a program prints


@dataclass(frozen=True)
class Block:
    """A fenced block of code, at a line of a page."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """
    One command of a block.

    Args:
        place (`str`):
            Page and line.
        text (`str`):
            The command as the shell gets it, with names replaced.
        words (`tuple[str, ...]`):
            Its words, without variables that are set for it. Empty for a loop.
        stdin (`str`):
            Its here-document.
        source (`str`):
            The command as the page has it.
    """

    place: str
    text: str
    words: tuple[str, ...]
    source: str
    stdin: str = ""


@dataclass(frozen=True)
class Notes:
    """
    What `pages.yaml` says of a page.

    Args:
        stand_ins (`dict[str, Any]`):
            Files that are made before the page runs: kind, or kind and arguments, by path.
        names (`dict[str, str]`):
            What stands in the test for a word of the page.
        runs_as (`dict[str, str]`):
            Likewise where the page is run; the words of the page itself are what is read.
        append (`dict[str, str]`):
            Words that are added to commands with a text in them, such as a smaller number of steps.
        not_run (`dict[str, str]`):
            Why blocks and commands with a text in them are not run.
        values (`dict[str, str]`):
            Expressions of names that Python blocks take for granted.
        leaves (`list[str]`):
            Files that are there after the last block.
        not_followed (`str`):
            Why no block of the page is run.
    """

    stand_ins: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    runs_as: dict[str, str] = field(default_factory=dict)
    append: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    leaves: list[str] = field(default_factory=list)
    not_followed: str = ""

    def reason(self, text: str) -> str | None:
        """Why code is not run, or `None`."""
        return next((reason for part, reason in self.not_run.items() if part in text), None)


@cache
def all_notes() -> dict[str, Notes]:
    """The notes of `pages.yaml` by page."""
    values = yaml.safe_load(Path(__file__).with_name("pages.yaml").read_text(encoding="utf-8"))
    return {page: Notes(**fields) for page, fields in values.items()}


def notes_of(page: str) -> Notes:
    """What is to know about a page."""
    return all_notes().get(page, Notes())


@cache
def tokens(page: str) -> list[Token]:
    """The page as markdown-it reads it; front matter is left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return MarkdownIt("commonmark").enable("table").parse(text)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for token in tokens(page)
        if token.type == "fence" and token.map
    ]


def inline(page: str, kind: str) -> Iterator[tuple[str, Token]]:
    """Tokens of one kind inside of paragraphs, headings and tables, with their places."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == kind:
                yield f"{page}:{(token.map or [0])[0] + 1}", child


def links(page: str) -> Iterator[tuple[str, str]]:
    """Places and targets of links and pictures."""
    for kind, attribute in (("link_open", "href"), ("image", "src")):
        for place, token in inline(page, kind):
            yield place, str(token.attrs[attribute])


def anchors(page: str) -> set[str]:
    """Names of the headings of a page in links, as GitHub makes them."""
    headings = (
        following.content for token, following in zip(tokens(page), tokens(page)[1:]) if token.type == "heading_open"
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(block: Block, names: Mapping[str, str]) -> Iterator[Command]:
    """
    The commands of a block, with `names` replaced. Variables that the block sets are put in; here-documents and loops
    stay with their command.
    """
    variables: dict[str, str] = {}
    lines = iter(enumerate(block.code.splitlines(), block.line + 1))
    for number, line in lines:
        source, stdin = line, ""
        while source.endswith("\\"):
            source = source[:-1] + next(lines)[1].lstrip()
        if re.search(r"\bdo\s*(#.*)?$", source):
            while not source.endswith("\ndone"):
                source += "\n" + next(lines)[1]
            yield Command(f"{block.page}:{number}", replaced(source, names), (), source)
            continue
        if document := re.search(r"<<'(\w+)'$", source):
            source = source[: document.start()].rstrip()
            while (following := next(lines)[1]) != document[1]:
                stdin += following + "\n"
        text = string.Template(replaced(source, names)).safe_substitute(variables)
        words = shlex.split(text, comments=True)
        if len(words) == 1 and (setting := re.fullmatch(r"(\w+)=(.*)", words[0])):
            variables[setting[1]] = setting[2]
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield Command(f"{block.page}:{number}", text, tuple(words), source, replaced(stdin, names))


def replaced(text: str, names: Mapping[str, str]) -> str:
    """A text with whole words replaced."""
    for name, value in names.items():
        text = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w-])", lambda _, value=value: value, text)
    return text
