"""Fields of arguments: how a field is declared, how a word becomes its value, and how a value is checked."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field
from typing import Any, Literal, Union

from ..files import parse_yaml


def option(default: Any, help: str) -> Any:
    """
    A field of a group of arguments.

    Args:
        default (`Any`):
            Default of the field. Lists and dictionaries are copied.
        help (`str`):
            Help text of the field, printed by `--help`.

    Returns:
        `Any`: a field of a dataclass.
    """
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def default_value(one: Field) -> Any:
    """
    Default of a field made by [`option`].

    Args:
        one (`Field`):
            The field.

    Returns:
        `Any`: the value.
    """
    return one.default if one.default_factory is MISSING else one.default_factory()


def build_group(group_class: type, members: Mapping[str, Any], group: str, others: Iterable[str] = ()) -> Any:
    """
    Build a group of arguments from the values of a recipe or of flags.

    Args:
        group_class (`type`):
            A dataclass with fields made by [`option`].
        members (`Mapping[str, Any]`):
            Values by field name. Text is converted to the annotated type.
        group (`str`):
            Name of the group in error messages.
        others (`Iterable[str]`, *optional*):
            Names of fields of other groups, from which an error suggests too.

    Returns:
        `Any`: an instance of `group_class`.

    Raises:
        ValueError: there is no such field, or a value has the wrong type or is out of range.
    """
    hints = typing.get_type_hints(group_class)
    arguments = {}
    for name, value in members.items():
        if name not in hints:
            raise ValueError(f"Unknown field `{name}` in {group}{suggestion(name, [*hints, *others])}")
        arguments[name] = _cast(name, value, hints[name])
    return group_class(**arguments)


def suggestion(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """
    The end of an error message about an unknown name.

    Args:
        name (`str`):
            The unknown name.
        known (`Mapping[str, Any]` or `Sequence[str]`):
            The known names.

    Returns:
        `str`: a suggestion of the most similar known name, or the list of all known names.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known are {', '.join(sorted(set(known)))}"


def _cast(name: str, value: Any, hint: Any) -> Any:
    """Convert a YAML value or a command-line argument to the annotated type."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or isinstance(value, str) and value.lower() in ("none", "null"):
            return None
        return _cast(name, value, next(member for member in members if member is not type(None)))
    if origin is Literal:
        if value is False and "no" in members:  # YAML reads a bare `no` as false
            value = "no"
        if value not in members:
            raise ValueError(f"`{name}` must be one of {', '.join(members)}, got {value!r}")
        return value
    if origin is list:
        text = value if not isinstance(value, str) or value.startswith("[") else f"[{value}]"
        items = parse_yaml(text, f"`{name}` {value!r}") if isinstance(text, str) else text
        if not isinstance(items, list | tuple):
            raise ValueError(f"`{name}` must be a list, got {value!r}")
        return [_cast(name, item, members[0]) for item in items]
    if origin is dict:
        if isinstance(value, str) and "=" in value:  # r=16,lora_alpha=32
            pairs = re.split(r",\s*(?=\w+=)", value)
            value = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if not isinstance(value, Mapping):
            raise ValueError(f"`{name}` must contain names and values, such as `{name}.NAME` VALUE, got {value!r}")
        return {key: _open_value(f"{name}.{key}", item) for key, item in value.items()}
    return _cast_scalar(name, value, hint)


def _cast_scalar(name: str, value: Any, hint: type) -> Any:
    if hint is str:
        return str(value)
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if hint is float and number == number:
            return number
        if hint is int and number == number and number == int(number):
            return int(number)
    raise ValueError(f"`{name}` must be {type_name(hint)}, got {value!r}")


def _open_value(name: str, value: Any) -> Any:
    """A value of an open field (`config`, `processor`). Text is parsed as a number, list or boolean if possible."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if "e" in value.lower() and float(value) else parse_yaml(value, f"`{name}` {value!r}")
    except ValueError:
        return parse_yaml(value, f"`{name}` {value!r}")


def type_name(hint: Any) -> str:
    """
    The words by which help and errors call a type.

    Args:
        hint (`Any`):
            The annotation of a field.
    """
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(members)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if member is type(None) else type_name(member) for member in members)
    if origin is list:
        return f"list of {type_name(members[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, "names and values")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """
    Check that a value is in a range.

    Args:
        name (`str`):
            Name of the field.
        value (`float`):
            The value.
        low (`float`):
            Smallest allowed value.
        high (`float`):
            Largest allowed value.

    Raises:
        ValueError: the value is out of range.
    """
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be between {low} and {high}, got {value}")


def check_minimum(arguments: Any, **minimums: float) -> None:
    """
    Check fields against their minimums.

    Args:
        arguments (`Any`):
            An object with the fields.
        minimums:
            Minimum of each field. `None` as a value is allowed.

    Raises:
        ValueError: a field is below its minimum.
    """
    for name, minimum in minimums.items():
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {value}")
