"""Public functions and classes are documented in the Hugging Face form; see `tests.docstrings`."""

import pytest

from .docstrings import PACKAGE, main, problems


GOOD = '''
"""A module."""


def halve(value: int, step: int = 2) -> int:
    """
    Half of a value.

    Args:
        value (`int`):
            An even number.
        step (`int`, *optional*, defaults to 2):
            Divisor.

    Returns:
        `int`: the half.

    Raises:
        ValueError: the value is odd.
    """
    if value % 2:
        raise ValueError(value)
    return value // step
'''


def test_public_code_is_documented():
    files = sorted(PACKAGE.rglob("*.py"))
    found = [f"{path.relative_to(PACKAGE)}:{problem}" for path in files for problem in problems(path)]
    assert found == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        ('"""A module."""', '"""What a module does."""', "opens with 'What'"),
        ("Divisor.", "Likewise.", "says 'likewise'"),
        ("        value (`int`):\n            An even number.\n", "", "does not describe value"),
        ("step (`int`, *optional*, defaults to 2)", "pace (`int`, *optional*)", "does not describe step"),
        ("step (`int`, *optional*, defaults to 2)", "step (`int`)", "`step` is not said to be *optional*"),
        ("defaults to 2)", "defaults to `3`)", "defaults to 2, not to 3"),
        ("value (`int`):", "value (`int`, *optional*):", "`value` is said to be optional, and is not"),
        ("    Raises:\n        ValueError: the value is odd.\n", "", "raises without `Raises:`"),
        ("def halve", "def _halve", None),
    ],
)
def test_checker_finds_each_problem(tmp_path, capsys, old, new, problem):
    path = tmp_path / "module.py"
    path.write_text(GOOD.replace(old, new) if old else GOOD)
    assert main([str(path)]) == int(problem is not None)
    assert (problem or "0 problems") in capsys.readouterr().out


def test_override_refers_to_the_overridden_method(tmp_path):
    path = tmp_path / "module.py"
    code = 'class Cat(Animal):\n    """A cat."""\n\n    def eat(self, food):\n        """See [`Animal.{}`]."""\n'
    path.write_text(code.format("eat"))
    assert problems(path) == []
    path.write_text(code.format("drink"))
    assert problems(path) == ["4: Cat.eat does not describe food"]


def test_checker_reads_fields_as_arguments(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('@dataclass\nclass Box:\n    """A box."""\n\n    width: int\n    _area: int = 0\n')
    assert problems(path) == ["2: Box does not describe width"]
