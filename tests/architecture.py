"""
The storeys of the package, read off its imports: `python -m tests.architecture` prints them, and every import that
goes up or round in a circle. Exit code 1 if there is one.

A storey's rooms import from the storeys below it and from within themselves; rooms of one storey do not know each
other. Imports inside functions count as well.
"""

import ast
import graphlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_videovit"

# Lowest first.
STOREYS = (
    ("modeling", "published", "modes", "files", "ahead", "auto", "adapters", "folders", "processes", "registration"),
    ("bulk", "dense", "feature_files", "films", "pictures", "video_files"),
    ("training", "hub", "convert", "inference", "doctor"),
    ("demo", "pose"),  # import paths of published Spaces and cards
    ("cli",),
    ("__main__",),
)
TRAINING_STOREYS = (
    ("fields", "recipe_files", "changes"),
    ("arguments",),
    ("optimization", "data"),
    ("schedules", "opening", "lora", "sharded_memory"),
    ("words", "preparing"),
    ("tasks",),
    ("engine", "building"),
    ("evaluation",),
    ("methods",),
    ("planning", "preview", "defaults"),
)
# Packages with storeys of their own, the outermost first.
LEVELS = {"hf_videovit": STOREYS, "hf_videovit.training": TRAINING_STOREYS}


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_modules(path: Path) -> list[str]:
    """Dotted names of the modules that `path` imports, relative ones made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from package import submodule` names a module as well
            names += [f"{module}.{alias.name}" for alias in node.names] if module else []
    return names


def module_of(path: Path) -> str:
    """`hf_videovit/cli/__init__.py` -> `hf_videovit.cli`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports() -> dict[str, set[str]]:
    """Each module of the package with the modules of the package that it imports."""
    paths = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        named = [name if name in paths else name.rpartition(".")[0] for name in imported_modules(path)]
        graph[module] = {name for name in named if name in paths and name != module}
    return graph


def room(module: str, package: str) -> str | None:
    """The part of `package` that a module lies in; `None` for the package itself and what is outside it."""
    return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else None


def storey(name: str, storeys: Iterable[tuple[str, ...]]) -> int | None:
    """Number of the storey that has a room of this name."""
    return next((level for level, rooms in enumerate(storeys) if name in rooms), None)


def upward_imports() -> Iterator[str]:
    """Every import that does not go down, and every room that no storey names."""
    for package, storeys in LEVELS.items():
        for module, imported in imports().items():
            own = room(module, package)
            if own is None:  # the package's own names may come from everywhere
                continue
            level = storey(own, storeys)
            if level is None:
                yield f"{module}: `{own}` has no storey"
                continue
            for name in sorted(imported):
                other = room(name, package)
                if other not in (None, own) and (storey(str(other), storeys) or 0) >= level:
                    yield f"{module} imports {name}"


def circle() -> list[str]:
    """Modules that import each other in a circle, or nothing."""
    try:
        graphlib.TopologicalSorter(imports()).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    """Print the storeys, highest first, and what breaks them."""
    for package, storeys in LEVELS.items():
        print(package)
        for level in range(len(storeys) - 1, -1, -1):
            print(f"  {level + 1}  {'  '.join(storeys[level])}")
        print()
    upward, around = list(upward_imports()), circle()
    for line in upward:
        print(f"upward: {line}")
    print(f"circle: {' -> '.join(around)}" if around else f"{len(imports())} modules, no circle")
    return 1 if upward or around else 0


if __name__ == "__main__":
    sys.exit(main())
