"""Package metadata. Tool settings stand in pyproject.toml."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup


# decord publishes wheels for Python 3.10+ on these two platforms only; elsewhere PyAV and torchcodec decode.
HAS_DECORD_WHEEL = (
    "(sys_platform == 'linux' and platform_machine == 'x86_64') or "
    "(sys_platform == 'win32' and platform_machine == 'AMD64')"
)

INSTALL_REQUIRES = [
    "accelerate>=1.14",
    "av>=17.0.1",
    "datasets>=4.8",
    f"decord>=0.6.0; {HAS_DECORD_WHEEL}",
    "evaluate>=0.4.3",
    "filelock>=3.12",
    "huggingface-hub>=1.31",
    "Jinja2>=3.1",
    "numpy>=1.26",
    "pillow>=10.1",
    "psutil>=5.9",
    "pyarrow>=21.0",
    "PyYAML>=6.0",
    "rich>=13.0",
    "safetensors>=0.8",
    "scipy>=1.11",
    "torch>=2.8",
    "torchvision>=0.23",
    "tqdm>=4.66.3",
    "transformers>=5.20",
    "typer>=0.19",
]

# The page of `hf-videovit demo` and of a Space.
SPACE = ["gradio>=6.0", "pandas>=2.0"]

TRACK = ["tensorboard>=2.15", "trackio>=0.10"]

LORA = ["peft>=0.21"]

COCO = ["pycocotools>=2.0.8"]

SEARCH = ["faiss-cpu>=1.10"]

SERVE = ["fastapi>=0.115.2", "litserve>=0.2.19", "python-multipart>=0.0.18", "starlette>=0.40", "uvicorn>=0.34"]

# Runtimes that models are exported to; `torch` and `aoti` need only torch, and `int8` there torchao.
RUNTIMES = {
    "export": ["nncf>=3.4", "onnx>=1.23", "onnxruntime>=1.32", "onnxscript>=0.7"],
    "openvino": ["nncf>=3.4", "openvino>=2026.4"],
    "executorch": ["executorch>=1.5"],
    "torchao": ["torchao>=0.18"],
}

EXTRAS_REQUIRE = {
    "train": ["matplotlib>=3.8"],
    "track": TRACK,
    "demo": ["matplotlib>=3.8", "scikit-learn>=1.4"],
    "space": SPACE,
    **RUNTIMES,
    "runtimes": sorted({package for packages in RUNTIMES.values() for package in packages}),
    "coco": COCO,
    "lora": LORA,
    "ray": ["ray[data]>=2.51"],
    "search": SEARCH,
    "fiftyone": ["fiftyone>=1.22"],
    "mteb": ["mteb>=2.26", "torchcodec>=0.6"],
    "serve": SERVE,
    "torchcodec": ["torchcodec>=0.6"],
    "test": [
        *COCO,
        *SPACE,
        *TRACK,
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "parameterized>=0.9",
        *LORA,
        *SEARCH,
        "markdown-it-py>=3.0",
        "playwright>=1.45",
        "pytest>=9.0",
        "pytest-timeout>=2.3.1",
        "pytest-xdist>=3.6.1",
        *SERVE,
        "setuptools>=77.0.3",
        "timm>=1.0.19",
        "torchcodec>=0.6; sys_platform != 'linux' or platform_machine == 'x86_64'",
    ],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.30"],
    "dev": ["mypy>=2.4", "ruff>=0.17", "types-PyYAML"],
}

PACKAGE_DATA = {
    "hf_videovit": [
        "py.typed",
        "hub/*.md",
        "inference/*.md",
        "published/*.json",
        "published/*.yaml",
        "published/labels/*.json",
        "training/evaluation/metrics/**/*",
        "training/recipes/**/*.yaml",
    ],
    "hf_videovit.examples": ["accelerate/*.yaml", "cluster/*.sh", "cluster/*.yaml", "notebooks/*.ipynb"],
}

CLASSIFIERS = [
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: OS Independent",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3 :: Only",
    "Programming Language :: Python :: 3.10",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Multimedia :: Video",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
]

KEYWORDS = [
    "video classification",
    "action recognition",
    "action detection",
    "temporal action localization",
    "self-supervised learning",
    "video transformer",
    "transformers",
    "hugging face",
    "VideoMAE V2",
    "UniFormer",
    "UniFormerV2",
    "TubeViT",
    "BEVT",
    "LSTCL",
    "ActionFormer",
]

# Address of the repository, without a slash at the end, such as https://github.com/OWNER/hf_videovit. Whoever uploads
# the package gives it. Without one, no address is stated, and the links of the README to its other pages become text.
REPOSITORY = os.environ.get("HF_VIDEOVIT_REPOSITORY", "")


def long_description() -> str:
    """The README with addresses that are complete, since an index shows it without the other files."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    for mark, kind in (("!", "raw"), ("", "blob")):  # pictures, then links
        link = rf"{mark}[\1]({REPOSITORY}/{kind}/main/\2)" if REPOSITORY else r"\1"
        text = re.sub(rf"{mark}\[([^\]]+)\]\((?!https?://|#)([^)]+)\)", link, text)
    return text


def project_urls() -> dict[str, str]:
    """Addresses that the index shows beside the description."""
    if not REPOSITORY:
        return {}
    return {
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/blob/main/docs/quickstart.md",
        "Source": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    }


setup(
    name="hf_videovit",
    version="0.1.0",
    description="Vision transformers for video as native Hugging Face models: load, train, evaluate, publish",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="hf_videovit contributors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=CLASSIFIERS,
    keywords=KEYWORDS,
    project_urls=project_urls(),
    python_requires=">=3.10",
    # The scripts travel inside the package, for `hf-videovit examples`.
    packages=[*find_packages(include=["hf_videovit*"]), "hf_videovit.examples"],
    package_dir={"hf_videovit.examples": "examples"},
    package_data=PACKAGE_DATA,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["hf-videovit=hf_videovit.cli:main"]},
)
