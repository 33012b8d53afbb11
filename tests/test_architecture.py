"""Which way imports go, what travels to the Hub, and what must not stand anywhere in the package."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import PACKAGE, ROOT, imported_modules, parse


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODELING = sorted((PACKAGE / "modeling").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SCRIPTS = [*EXAMPLES, *sorted((ROOT / "benchmarks").glob("*.py"))]

# Inside `modeling`: kind of file -> kinds it may import.
MODELING_ORDER = {
    "layers": (),
    "configuration_base": (),
    "configuration_action_detection": ("configuration_base",),
    "configuration": ("configuration_base", "configuration_action_detection"),
    "configuration_uniformer_dense": ("configuration_base", "configuration"),
    "configuration_video_temporal_localizer": ("configuration_base", "configuration"),
    "frame_sampling": (),
    "word_pixels": (),
    "box_geometry": (),
    "opencv_resize": (),
    "segment_suppression": (),
    "feature_processing": ("segment_suppression",),
    "image_processing_base": (),
    "image_processing": ("image_processing_base", "opencv_resize", "word_pixels"),
    "video_decoding": ("video_decoding",),
    "backbone": ("layers", "backbone"),
    "modeling": (
        "configuration_base",
        "configuration_action_detection",
        "configuration_uniformer_dense",
        "configuration_video_temporal_localizer",
        "layers",
        "backbone",
        "configuration",
        "modeling",
        "word_pixels",
    ),
    "video_processing_base": ("frame_sampling", "opencv_resize", "video_decoding"),
    "video_processing": (
        "video_processing_base",
        "video_processing",
        "frame_sampling",
        "video_decoding",
        "word_pixels",
        "box_geometry",
    ),
}
TRAVELLING = {"torch", "torchvision", "transformers", "numpy", "huggingface_hub", "PIL", "safetensors"}


def kind(stem: str) -> str:
    """`modeling_videomae_v2` -> `modeling`; the base processor is a kind of its own."""
    return max((one for one in MODELING_ORDER if stem == one or stem.startswith(f"{one}_")), key=len)


def check(rule: Callable[[Path], Iterator[str]], paths: list[Path]) -> None:
    """Fail with everything in `paths` that breaks the rule."""
    assert paths
    offences = [f"{path.relative_to(ROOT)}: {offence}" for path in paths for offence in rule(path)]
    assert not offences, "\n".join(["", *offences])


def foreign_imports(path: Path) -> Iterator[str]:
    for name in imported_modules(path):
        if name.split(".")[0] in ("examples", "benchmarks", "tests", "modeling", "training"):
            yield f"imports {name}"
    if path.parents[1].name == "metrics":  # loaded by `evaluate` as files of their own
        return
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "hf_videovit":
            yield f"line {node.lineno}: imports inside the package are relative"


def test_imports_go_down():
    """A room knows the ones below it and never its neighbours; `python -m tests.architecture` prints the storeys."""
    assert not list(architecture.upward_imports())
    assert not architecture.circle()
    check(foreign_imports, SOURCES)


def test_every_storey_is_there():
    """A room that is gone or misspelt in the table would let anything pass."""
    for package, storeys in architecture.LEVELS.items():
        folder = ROOT.joinpath(*package.split("."))
        rooms = {room for rooms in storeys for room in rooms}
        assert rooms == {path.stem for path in folder.iterdir() if holds_code(path)} - {"__init__"}


def holds_code(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("imported", "offence"),
    [
        ({"hf_videovit.training.data.a": {"hf_videovit.training.methods.b"}}, "training.data.a imports"),
        ({"hf_videovit.training.planning": {"hf_videovit.training.preview"}}, "training.planning imports"),
        ({"hf_videovit.hub.cards": {"hf_videovit.convert.keys"}}, "hub.cards imports"),
        ({"hf_videovit.novelty": set()}, "`novelty` has no storey"),
    ],
)
def test_what_goes_up_is_seen(monkeypatch, imported, offence):
    monkeypatch.setattr(architecture, "imports", lambda: imported)
    (line,) = architecture.upward_imports()
    assert offence in line


def test_a_circle_is_seen(monkeypatch):
    monkeypatch.setattr(architecture, "imports", lambda: {"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert set(architecture.circle()) == {"a", "b", "c"}


def imports_that_do_not_travel(path: Path) -> Iterator[str]:
    tree = parse(path)
    optional = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try | ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from (f"line {node.lineno}: {reason}" for reason in faults_of_sibling_import(path, node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for root in [module.split(".")[0] for module in modules]:
                if root == "hf_videovit":
                    yield f"line {node.lineno}: absolute imports of the package do not travel"
                elif root not in TRAVELLING and root not in sys.stdlib_module_names and id(node) not in optional:
                    yield f"line {node.lineno}: {root} must stand in a try or a function"


def faults_of_sibling_import(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    if not node.module:
        yield "`from . import x` is copied without x"
    elif node.level > 1 or "." in node.module:
        yield "only siblings travel"
    elif not (path.parent / f"{node.module}.py").is_file():
        yield f"no file {node.module}.py"
    elif kind(node.module) not in MODELING_ORDER[kind(path.stem)]:
        yield f"imports {node.module}; may import {MODELING_ORDER[kind(path.stem)]}"


def test_modeling_is_flat_and_travels():
    """The Hub copies a file and the siblings that it names in `from .sibling import name`, nothing else."""
    check(imports_that_do_not_travel, [path for path in MODELING if path.stem != "__init__"])


def text_that_confuses_the_copying(path: Path) -> Iterator[str]:
    for name in re.findall(r"^\s*(?:from\s+\.(\S+)\s+import|import\s+\.(\S+))", path.read_text(), re.MULTILINE):
        if not (path.parent / f"{''.join(name)}.py").is_file():
            yield f"reads as an import of {''.join(name)}"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef) and "Tokenizer" in node.name:
            yield f"line {node.lineno}: {node.name}"


def test_text_of_modeling_does_not_confuse_the_copying():
    """transformers finds the files to copy by a regular expression over the text, docstrings included."""
    check(text_that_confuses_the_copying, [path for path in MODELING if path.stem != "__init__"])


def unsafe_or_silent(path: Path) -> Iterator[str]:
    forbidden = {"strict": False, "weights_only": False, "trust_remote_code": True, "allow_pickle": True}
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.keyword) and node.arg in forbidden and isinstance(node.value, ast.Constant):
            if node.value.value is forbidden[node.arg]:
                yield f"line {node.value.lineno}: {node.arg}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = [one.value for one in node.keywords if one.arg == "weights_only"]
            if [ast.unparse(value) for value in safe] != ["True"]:
                yield f"line {node.lineno}: torch.load"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: bare except"
    for name in imported_modules(path):
        if name.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "cloudpickle"):
            yield f"imports {name}"
    if re.search(r"[\"'](/home|/root|/Users|/work|/mnt|/opt|C:\\)[/\\]?", path.read_text()):
        yield "a machine's folder"


def test_nothing_unsafe_or_silent():
    """No partial load, no pickle, no remote code, no folder of one machine."""
    check(unsafe_or_silent, [*SOURCES, *SCRIPTS])


def untyped_functions(path: Path) -> Iterator[str]:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    nested = {id(inner) for outer in functions for inner in ast.walk(outer) if inner is not outer}
    for function in functions:
        if function.name.startswith("_") or id(function) in nested:
            continue
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
        if untyped:
            yield f"line {function.lineno}: {function.name} does not type {', '.join(untyped)}"


def test_public_functions_are_typed():
    check(untyped_functions, [*SOURCES, *SCRIPTS])


def test_examples_are_short():
    assert not [path.name for path in EXAMPLES if len(path.read_text().splitlines()) > 120]


@pytest.mark.parametrize("name", ["modeling", "training"])
def test_links_at_the_root_are_not_import_roots(name):
    """The links are there for readers; through them the package would exist twice."""
    if not (ROOT / name).exists():
        pytest.skip("a source distribution has no links")
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


def test_no_script_hides_a_dependency():
    """A script's own folder comes first on its path: `import evaluate` would find an `examples/evaluate.py`."""
    declared = set(re.findall(r"\"([A-Za-z][\w-]*)(?:>=|\")", (ROOT / "setup.py").read_text()))
    assert not {path.stem for path in SCRIPTS} & {name.replace("-", "_") for name in declared}


def test_every_import_is_a_declared_dependency():
    """What the package imports, `setup.py` installs."""
    declared = set(re.findall(r"\"([A-Za-z][\w-]*)(?:>=|\")", (ROOT / "setup.py").read_text()))
    import_names = {"pillow": "PIL", "PyYAML": "yaml", "scikit-learn": "sklearn", "Jinja2": "jinja2"}
    known = {import_names.get(name, name.replace("-", "_")) for name in declared}
    known.add("httpx")  # comes with huggingface_hub, which lends it out itself from 2.0 on
    known |= {*sys.stdlib_module_names, "hf_videovit", "benchmarks", "examples"}
    roots = {path: {name.split(".")[0] for name in imported_modules(path)} for path in [*SOURCES, *SCRIPTS]}
    check(lambda path: (f"imports {root}" for root in sorted(roots[path] - known)), [*SOURCES, *SCRIPTS])
