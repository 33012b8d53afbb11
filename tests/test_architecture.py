"""Which way imports go, what travels to the Hub, and what must not stand anywhere in the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_videovit"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODELING = sorted((PACKAGE / "modeling").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SCRIPTS = [*EXAMPLES, *sorted((ROOT / "benchmarks").glob("*.py"))]

# The storeys, lowest first. A module imports from lower ones, and from its own package.
STOREYS = (
    ("modeling", "published", "modes"),
    ("pictures",),
    ("training", "hub", "convert", "inference", "dense", "doctor"),
    ("demo", "pose"),  # import paths of published Spaces and cards
    ("cli", "__main__"),
)
# Inside `modeling`: kind of file -> kinds it may import.
MODELING_ORDER = {
    "layers": (),
    "configuration_base": (),
    "configuration": ("configuration_base",),
    "frame_sampling": (),
    "word_pixels": (),
    "image_processing": ("word_pixels",),
    "video_decoding": ("video_decoding",),
    "backbone": ("layers", "backbone"),
    "modeling": ("layers", "backbone", "configuration", "modeling"),
    "video_processing_base": ("frame_sampling", "video_decoding"),
    "video_processing": (
        "video_processing_base",
        "video_processing",
        "frame_sampling",
        "video_decoding",
        "word_pixels",
    ),
}
TRAVELLING = {"torch", "torchvision", "transformers", "numpy", "huggingface_hub", "PIL", "safetensors"}


def parse(path: Path) -> ast.Module:
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


def storey(part: str) -> int | None:
    return next((level for level, members in enumerate(STOREYS) if part in members), None)


def kind(stem: str) -> str:
    """`modeling_videomae_v2` -> `modeling`; the base processor is a kind of its own."""
    return max((one for one in MODELING_ORDER if stem == one or stem.startswith(f"{one}_")), key=len)


def named(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@named(SOURCES)
def test_imports_go_down(path):
    """A member of the middle storey knows the ones below it and never its neighbours."""
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":  # the public names, gathered from everywhere
        return
    level = storey(own)
    assert level is not None, f"{own} has no storey: add it to STOREYS"
    for name in imported_modules(path):
        root, *rest = name.split(".")
        if root != "hf_videovit":
            assert root not in ("examples", "benchmarks", "tests", "modeling", "training"), name
        elif rest and storey(rest[0]) is not None and rest[0] != own:
            assert storey(rest[0]) < level, f"{own} imports {name}"


@named([path for path in MODELING if path.stem != "__init__"])
def test_modeling_is_flat_and_travels(path):
    """The Hub copies a file and the siblings that it names in `from .sibling import name`, nothing else."""
    tree = parse(path)
    optional = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try | ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"line {node.lineno}: only siblings travel"
            assert node.module, f"line {node.lineno}: `from . import x` is copied without x"
            assert "." not in node.module, f"line {node.lineno}: only siblings travel"
            assert (path.parent / f"{node.module}.py").is_file()
            allowed = MODELING_ORDER[kind(path.stem)]
            assert kind(node.module) in allowed, f"{path.stem} imports {node.module}; may import {allowed}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                root = module.split(".")[0]
                assert root != "hf_videovit", f"line {node.lineno}: absolute imports of the package do not travel"
                known = root in TRAVELLING or root in sys.stdlib_module_names
                assert known or id(node) in optional, f"line {node.lineno}: {root} must stand in a try or a function"


@named([path for path in MODELING if path.stem != "__init__"])
def test_text_of_modeling_does_not_confuse_the_copying(path):
    """transformers finds the files to copy by a regular expression over the text, docstrings included."""
    for name in re.findall(r"^\s*(?:from\s+\.(\S+)\s+import|import\s+\.(\S+))", path.read_text(), re.MULTILINE):
        assert (path.parent / f"{''.join(name)}.py").is_file(), name
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef):
            assert "Tokenizer" not in node.name


@named([*SOURCES, *SCRIPTS])
def test_nothing_unsafe_or_silent(path):
    """No partial load, no pickle, no remote code, no folder of one machine."""
    forbidden = {"strict": False, "weights_only": False, "trust_remote_code": True, "allow_pickle": True}
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.keyword) and node.arg in forbidden and isinstance(node.value, ast.Constant):
            assert node.value.value is not forbidden[node.arg], f"line {node.value.lineno}: {node.arg}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = [one.value for one in node.keywords if one.arg == "weights_only"]
            assert [ast.unparse(value) for value in safe] == ["True"], f"line {node.lineno}: torch.load"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
    for name in imported_modules(path):
        assert name.split(".")[0] not in ("pickle", "cPickle", "dill", "joblib", "cloudpickle"), name
    assert not re.search(r"[\"'](/home|/root|/Users|/work|/mnt|/opt|C:\\)[/\\]?", path.read_text()), (
        "a machine's folder"
    )


@named([*SOURCES, *SCRIPTS])
def test_public_functions_are_typed(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if nested(path, node):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
            assert not untyped, f"{node.name}, line {node.lineno}: {untyped}"


def nested(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether `function` stands inside another function."""
    return any(
        isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        and (outer.lineno, outer.end_lineno) != (function.lineno, function.end_lineno)
        and outer.lineno <= function.lineno
        and function.end_lineno <= outer.end_lineno
        for outer in ast.walk(parse(path))
    )


@named(EXAMPLES)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 120


@pytest.mark.parametrize("name", ["modeling", "training"])
def test_links_at_the_root_are_not_import_roots(name):
    """The links are there for readers; through them the package would exist twice."""
    assert (ROOT / name).resolve() == PACKAGE / name
    outcome = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode != 0
    assert f"the package is `hf_videovit.{name}`" in outcome.stderr


def test_every_data_file_is_packaged():
    """A YAML, JSON or Markdown file that no pattern of `setup.py` matches is missing from the wheel."""
    tree = parse(ROOT / "setup.py")
    (patterns,) = [
        ast.literal_eval(node.value)["hf_videovit"]
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGE_DATA"
    ]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data <= packaged, sorted(str(path.relative_to(PACKAGE)) for path in data - packaged)
    for folder in {path.parent for path in SOURCES}:
        assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} is not a package"


def test_every_import_is_a_declared_dependency():
    """What the package imports, `setup.py` installs."""
    declared = set(re.findall(r"\"([A-Za-z][\w-]*)(?:>=|\")", (ROOT / "setup.py").read_text()))
    import_names = {"pillow": "PIL", "PyYAML": "yaml", "scikit-learn": "sklearn", "Jinja2": "jinja2"}
    known = {import_names.get(name, name.replace("-", "_")) for name in declared}
    known.add("httpx")  # comes with huggingface_hub, which lends it out itself from 2.0 on
    for path in [*SOURCES, *SCRIPTS]:
        for name in imported_modules(path):
            root = name.split(".")[0]
            if root not in sys.stdlib_module_names and root not in ("hf_videovit", "benchmarks", "examples"):
                assert root in known, f"{path.relative_to(ROOT)} imports {root}"
