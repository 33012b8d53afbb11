"""Whether command lines of the documentation are understood by the parsers of their programs; nothing is run."""

import ast
import dataclasses
import importlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import typer.main
from accelerate.commands.launch import launch_command_parser

from hf_videovit.cli import app
from hf_videovit.published import list_published
from hf_videovit.training.arguments import parse_arguments
from hf_videovit.training.methods.choosing import METHODS
from tests.documentation.pages import ROOT, Command


# Programs of others, whose options are theirs.
OTHERS = {"curl", "docker", "echo", "hf", "mv"}
# What takes the fields of a run, and the goal of the run.
RUNS = {"train": "classifier", "pretrain": "encoder", "preview": None}
SCRIPTS_OF_RUNS = {
    "finetune.py": "classifier",
    "pretrain_bevt.py": "encoder",
    "pretrain_lstcl.py": "encoder",
    "pretrain_videomae_v2.py": "encoder",
}


def check(command: Command) -> None:
    """
    Check a command.

    Args:
        command ([`Command`]):
            The command.

    Raises:
        ValueError: the program is not known, or does not understand its words.
    """
    if command.stdin:
        check_python(command.stdin)
    if not command.words:  # a loop of the shell
        return
    program, *words = command.words
    checks = {"accelerate": check_launch, "hf-videovit": check_cli, "make": check_make, "pip": check_pip}
    checks["python"] = check_python_words
    if program in checks:
        checks[program](words)
    elif program not in OTHERS:
        raise ValueError(f"unknown program {program!r}")


def check_cli(words: Sequence[str]) -> None:
    """Parse the words of `hf-videovit`; names of recipes and published checkpoints must exist."""
    group = typer.main.get_command(app)
    try:
        with group.make_context("hf-videovit", list(words)) as context:
            name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            with command.make_context(name, rest, parent=context) as inner:
                values, left = inner.params, inner.args
    except Exception as error:
        if not hasattr(error, "format_message"):  # neither typer's nor click's error of use
            raise
        raise ValueError(error.format_message()) from error
    if name in RUNS:
        check_run(left, RUNS[name])
    published = [values.get("published"), values.get("name") if name == "models" else None]
    for wanted in filter(None, published):
        if wanted not in list_published():
            raise ValueError(f"no published checkpoint {wanted!r}")
    if recipe := values.get("for_training"):
        parse_arguments(["--recipe", recipe])


def check_run(words: Sequence[str], goal: str | None) -> None:
    """
    Parse the fields of a run. Those of its method must be fields of some method, or of the one that is named, which
    must have the goal of the command.
    """
    config = parse_arguments([word for word in words if word != "--plan"])
    wanted = config.method.get("name")
    methods = [method for method in METHODS if wanted in (None, method.name) and goal in (None, method.goal)]
    if not methods:
        raise ValueError(f"the method {wanted} is not one of this command")
    known = {"name", *(item.name for method in methods for item in dataclasses.fields(method.arguments_class))}
    if unknown := config.method.keys() - known:
        raise ValueError(f"no field {', '.join(sorted(unknown))} of {wanted or 'any method'}")


def check_launch(words: Sequence[str]) -> None:
    """Parse the words of `accelerate`, and those of the script or module that it starts."""
    if words[0] != "launch":
        raise ValueError(f"accelerate {words[0]} is not known here")
    given = launch_command_parser().parse_args(words[1:])
    if given.config_file and not (ROOT / given.config_file).is_file():
        raise ValueError(f"no file {given.config_file}")
    started = ["-m", given.training_script] if given.module else [given.training_script]
    check_python_words([*started, *given.training_script_args])


def check_python_words(words: Sequence[str]) -> None:
    """Check the words of `python`: a module, a script of `examples`, or code."""
    first, *rest = words
    if first == "-c":
        check_python(rest[0])
    elif first == "-m":
        check_module(rest[0], rest[1:])
    elif first != "-":
        check_script(first, rest)


def check_module(name: str, words: Sequence[str]) -> None:
    """A module of this project that exists, and options that stand in its code."""
    if name == "hf_videovit":
        check_cli(words)
    elif name != "build":
        path = ROOT / name.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file():
            raise ValueError(f"no module {name}")
        known = options_in(path) | {one for shared in path.parent.glob("_*.py") for one in options_in(shared)}
        if unknown := {word for word in words if word.startswith("--")} - known:
            raise ValueError(f"{name} has no option {', '.join(sorted(unknown))}")


def check_script(path: str, words: Sequence[str]) -> None:
    """A script that exists, and its fields; other scripts have parsers of their own, and are run."""
    if not (ROOT / path).is_file():
        raise ValueError(f"no script {path}")
    name = path.rpartition("/")[2]
    if name not in SCRIPTS_OF_RUNS:
        return
    left = list(words)
    if name == "pretrain_bevt.py" and "--prepare" in left:
        at = left.index("--prepare")
        del left[at : at + 2]
    check_run([word for word in left if word not in ("--moving", "--cache_words")], SCRIPTS_OF_RUNS[name])


def check_make(words: Sequence[str]) -> None:
    """Targets of the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        if "=" not in word and word not in targets:
            raise ValueError(f"make has no target {word}")


def check_pip(words: Sequence[str]) -> None:
    """Extras of this package."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        for name in extra.split(","):
            if not re.search(rf'^    "{name}":', setup, re.MULTILINE):
                raise ValueError(f"setup.py has no extra {name}")


def check_python(code: str) -> None:
    """Code that compiles, and imports of this package that have what is imported."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules, names = [alias.name for alias in node.names], []
        elif isinstance(node, ast.ImportFrom):
            modules, names = [node.module or ""], [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hf_videovit":
            modules, names = ["hf_videovit"], [node.attr]
        else:
            continue
        for module in modules:
            if module.split(".")[0] != "hf_videovit":
                continue
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError as error:
                if str(error.name).startswith("hf_videovit"):
                    raise ValueError(str(error)) from error
                continue  # it needs an extra that is not installed
            if lacking := [name for name in names if not hasattr(found, name)]:
                raise ValueError(f"{module} has no {', '.join(lacking)}")


@cache
def options_in(path: Path) -> set[str]:
    """Options among the strings of a script."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in strings if isinstance(value, str) and re.fullmatch(r"--[\w-]+", value)}


def check_mention(text: str) -> None:
    """
    Check a command line in the midst of a sentence, which may leave out what the command needs.

    Args:
        text (`str`):
            Text that starts with `hf-videovit`.

    Raises:
        ValueError: there is no such command, or it has no such option.
    """
    group = typer.main.get_command(app)
    words = text.split()[1:]
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None:
        return
    if first not in group.commands:
        raise ValueError(f"no command {first!r}")
    if first in RUNS:
        return
    command = group.commands[first]
    parameters = [*command.params, *group.params]
    known = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
    if unknown := given - known - {"--help"}:
        raise ValueError(f"{first} has no option {', '.join(sorted(unknown))}")
