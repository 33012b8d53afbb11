"""
Holds docstrings to the Hugging Face form: `python -m tests.docstrings [FOLDER or FILE ...]` prints what is missing.

A public function, method or class documents each of its arguments under `Args:` with its type, says where it is
*optional*, and states no other default than the signature's. If its own body raises, it has a `Raises:` section. A
method may refer to the method it overrides instead, as in "See [`Task.begin_step`]".
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


PACKAGE = Path(__file__).parents[1] / "hf_videovit"
OPENINGS = ("What ", "Whatever ")
WORDS = ("likewise",)
# Bases of classes whose annotated fields are their arguments, as those of a dataclass are.
FIELD_BASES = ("NamedTuple", "TypedDict", "Kwargs", "Config", "ModelOutput")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Defaults = dict[str, ast.expr | None]
NO_DEFAULT = ast.Name("unset")  # fields that may be left out by the nature of their class


def problems(path: Path) -> list[str]:
    """
    Everything that the docstrings of a file lack, one line each.

    Args:
        path (`Path`):
            A Python file.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    found = [f"{line}: {problem}" for line, problem in _worded(tree)]
    if any(part.startswith("_") and part != "__init__" for part in path.with_suffix("").parts[-1:]):
        return found
    return found + [f"{line}: {problem}" for line, problem in _documented(tree.body, "")]


def _worded(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of any kind with an opening or a word that the house avoids."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | Function):
            continue
        text = ast.get_docstring(node) or ""
        name = getattr(node, "name", "the module")
        line = getattr(node, "lineno", 1)
        yield from ((line, f"{name} opens with {word.strip()!r}") for word in OPENINGS if text.startswith(word))
        yield from ((line, f"{name} says {word!r}") for word in WORDS if word in text.lower())


def _documented(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[int, str]]:
    for node in body:
        if isinstance(node, Function) and not node.name.startswith("_") and not _is_command(node):
            if not _has_decorator(node, "overload", "setter"):
                in_class = bool(prefix) and not _has_decorator(node, "staticmethod")
                yield from _checked(node, prefix + node.name, _arguments(node, in_class), _raises(node))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            makers = [one for one in node.body if isinstance(one, Function)]
            makers = [one for one in makers if re.match("__init__|__post_init__|validate_", one.name)]
            yield from _checked(node, prefix + node.name, _fields(node), any(map(_raises, makers)))
            yield from _documented(node.body, f"{prefix}{node.name}.")


def _checked(node: ast.ClassDef | Function, name: str, arguments: Defaults, raises: bool) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node)
    if text is None:
        yield node.lineno, f"{name} has no docstring"
        return
    if "." in name and re.search(rf"\[`~?[\w.]+\.{node.name}`\]", text):  # the overridden method has the arguments
        return
    described = _described(text)
    missing = [argument for argument in arguments if argument not in described]
    if missing:
        yield node.lineno, f"{name} does not describe {', '.join(missing)}"
    if not isinstance(node, ast.ClassDef) or arguments:
        unknown = [argument for argument in described if argument not in arguments and not _takes_more(node)]
        if unknown:
            yield node.lineno, f"{name} describes {', '.join(unknown)}, which it does not take"
    for argument in arguments.keys() & described.keys():
        problem = _default_problem(arguments[argument], described[argument])
        if problem:
            yield node.lineno, f"{name}: `{argument}` {problem}"
    if raises and "Raises:" not in text:
        yield node.lineno, f"{name} raises without `Raises:`"


def _default_problem(default: ast.expr | None, description: str) -> str | None:
    if default is NO_DEFAULT:
        return None
    optional = "*optional*" in description
    if default is None:
        return "is said to be optional, and is not" if optional else None
    if not optional:
        return "is not said to be *optional*"
    stated = re.search(r"defaults to `([^`]+)`", description)
    try:
        if stated and not _same(ast.literal_eval(stated[1]), ast.literal_eval(default)):
            return f"defaults to {ast.unparse(default)}, not to {stated[1]}"
    except (ValueError, SyntaxError, TypeError):  # a name or a call
        return None
    return None


def _same(stated: Any, actual: Any) -> bool:
    return (list(stated) if isinstance(stated, tuple) else stated) == (
        list(actual) if isinstance(actual, tuple) else actual
    )


def _described(text: str) -> dict[str, str]:
    """Arguments named under `Args:`, each with the words between its name and its colon."""
    lines = text.split("\n")
    if "Args:" not in (line.strip() for line in lines):
        return {}
    start = next(number for number, line in enumerate(lines) if line.strip() == "Args:") + 1
    margin = None
    found: dict[str, str] = {}
    for number in range(start, len(lines)):
        line = lines[number]
        if re.fullmatch(r"[A-Z]\w+:", line):
            break
        indent = len(line) - len(line.lstrip())
        if not line.strip() or (margin is not None and indent > margin):
            continue
        margin = indent
        header = line.strip()
        names = re.sub(r"\((?:[^()]|\([^()]*\))*(\)|$)", "", header)
        rest = header if header.endswith(":") else " ".join([header, *map(str.strip, lines[number + 1 : number + 3])])
        for name in names.rstrip(": ").split(","):
            found[name.strip().lstrip("*").split(":")[0]] = rest
    return found


def _arguments(node: Function, in_class: bool) -> Defaults:
    """Names of what a function takes, each with its default."""
    given = node.args
    names = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(names) - len(given.defaults))
    found = dict(zip([one.arg for one in names], [*defaults, *given.defaults], strict=True))
    if in_class and names:
        del found[names[0].arg]
    found |= {one.arg: default for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)}
    return {name: default for name, default in found.items() if not name.startswith("_")}


def _fields(node: ast.ClassDef) -> Defaults:
    """Arguments of a class: those of `__init__`, or the fields of a dataclass, named tuple or configuration."""
    bases = [ast.unparse(base) for base in node.bases]
    if not _has_decorator(node, "dataclass") and not any(base.endswith(FIELD_BASES) for base in bases):
        makers = [one for one in node.body if isinstance(one, Function) and one.name == "__init__"]
        return _arguments(makers[0], in_class=True) if makers else {}
    by_nature = any(base.endswith(("TypedDict", "Kwargs", "ModelOutput")) for base in bases)
    found: Defaults = {}
    for one in node.body:
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        if one.target.id.startswith("_") or "ClassVar" in ast.unparse(one.annotation) or _has_help(one.value):
            continue
        found[one.target.id] = NO_DEFAULT if by_nature else one.value
    return found


def _has_help(value: ast.expr | None) -> bool:
    """Whether a field documents itself (`_option(default, "help")`), or is none that a caller gives."""
    if not isinstance(value, ast.Call):
        return False
    if any(word.arg == "init" and ast.unparse(word.value) == "False" for word in value.keywords):
        return True
    return len(value.args) > 1 and isinstance(value.args[1], ast.Constant | ast.JoinedStr | ast.BinOp)


def _takes_more(node: ast.ClassDef | Function) -> bool:
    if isinstance(node, ast.ClassDef):
        return True  # inherited fields may be described again
    return node.args.kwarg is not None or node.args.vararg is not None


def _raises(node: Function) -> bool:
    """Whether the function's own body raises an exception of its own (passing one on does not count)."""
    pending: list[ast.AST] = list(node.body)
    while pending:
        one = pending.pop()
        if isinstance(one, ast.Raise) and one.exc is not None:
            return True
        if not isinstance(one, Function | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(one)
    return False


def _has_decorator(node: ast.ClassDef | Function, *names: str) -> bool:
    return any(re.search(rf"\b{name}\b", ast.unparse(one)) for one in node.decorator_list for name in names)


def _is_command(node: Function) -> bool:
    """A command of the command line, whose options carry their own help."""
    return _has_decorator(node, "command", "callback")


def main(arguments: Sequence[str] = ()) -> int:
    """
    Print the problems of each file and their number.

    Args:
        arguments (`Sequence[str]`, *optional*):
            Folders and files. By default the whole package.

    Returns:
        `int`: the exit code, 1 if there are problems.
    """
    total = 0
    for path in map(Path, arguments or [str(PACKAGE)]):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found = problems(file)
            total += len(found)
            for problem in found:
                print(f"{file}:{problem}")
    print(f"{total} problems")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
