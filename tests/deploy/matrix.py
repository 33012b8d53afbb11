"""
Which head runs where. `python -m tests.deploy.matrix` prints the table of `docs/deploy.md` from `matrix.yaml`, whose
every entry `tests/deploy/test_matrix.py` tries.
"""

from pathlib import Path

import yaml

from tests.families import Case, cases


# Every head in float32, and the classifiers of videos in the other formats.
COLUMNS = {
    ("torch", "float32"): "torch",
    ("torch", "int8"): "torch int8",
    ("aoti", "float32"): "AOTInductor",
    ("aoti", "int8"): "AOTInductor int8",
    ("onnx", "float32"): "ONNX Runtime",
    ("onnx", "int8"): "ONNX int8",
    ("openvino", "float32"): "OpenVINO",
    ("openvino", "int8"): "OpenVINO int8",
    ("openvino", "int4"): "OpenVINO int4",
    ("executorch", "float32"): "ExecuTorch",
}
HOLES: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("matrix.yaml").read_text())


def heads() -> list[Case]:
    return list(cases(options=False))


def tried(case: Case) -> list[tuple[str, str]]:
    """Runtimes and number formats that a head is tried in."""
    classifies = case.head.model_class.__name__.endswith("ForVideoClassification")
    return [(to, dtype) for to, dtype in COLUMNS if classifies or dtype == "float32"]


def hole(case: Case, to: str) -> str | None:
    """Why a head does not run there, if it does not."""
    return HOLES.get(to, {}).get(case.head.model_class.__name__)


def table() -> str:
    """Markdown."""
    reasons = list(dict.fromkeys(reason for holes in HOLES.values() for reason in holes.values()))
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for case in heads():
        row = [f"`{case.head.model_class.__name__}`"]
        for column in COLUMNS:
            reason = hole(case, column[0])
            row.append("" if column not in tried(case) else f"no ({1 + reasons.index(reason)})" if reason else "yes")
        lines.append("| " + " | ".join(row) + " |")
    notes = [f"{1 + index}. {reason[0].upper()}{reason[1:]}." for index, reason in enumerate(reasons)]
    return "\n".join([*lines, "", *notes])


if __name__ == "__main__":
    print(table())
