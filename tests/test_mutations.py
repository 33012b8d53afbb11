"""The list of mistakes is up to date, and its runner tells killed from survived."""

import pytest

from .mutations import ROOT, Mutation, is_stale, main, read_mutations


def test_no_mutation_is_stale():
    """Where code has moved, its mutation in `mutations.yaml` moves with it."""
    mutations = read_mutations()
    assert len({one.name for one in mutations}) == len(mutations) >= 35
    assert [one.name for one in mutations if is_stale(one)] == []
    for one in mutations:
        path, _, name = one.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), one.test


@pytest.fixture
def tree(tmp_path):
    """A module of one line, a test that holds it to its word, and one that does not."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "module.py").write_text("VALUE = 3\n")
    (root / "test_module.py").write_text(
        "from module import VALUE\n\n\ndef test_exact():\n    assert VALUE == 3\n\n\n"
        "def test_weak():\n    assert VALUE\n"
    )
    return root


@pytest.mark.parametrize(
    ("old", "new", "test", "expected"),
    [
        ("3", "4", "test_exact", "killed"),
        ("3", "4", "test_weak", "survived"),
        ("5", "4", "test_exact", "stale"),
        ("3", "3", "test_exact", "stale"),
        ("VALUE", "OTHER", "test_exact", "stale"),  # the test is not run
    ],
)
def test_outcomes(tree, capsys, old, new, test, expected):
    code = main([], tree, [Mutation("name", "module.py", old, new, f"test_module.py::{test}")])
    assert capsys.readouterr().out.startswith(f"{expected:8} name")
    assert code == (0 if expected == "killed" else 1)
    assert (tree / "module.py").read_text() == "VALUE = 3\n"


def test_tests_that_fail_by_themselves_prove_nothing(tree, capsys):
    (tree / "module.py").write_text("VALUE = 5\n")
    assert main([], tree, [Mutation("name", "module.py", "5", "4", "test_module.py::test_exact")]) == 1
    assert "do not pass without a mistake" in capsys.readouterr().out
