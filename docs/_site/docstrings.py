"""Docstrings in the form of Hugging Face, for mkdocstrings, which reads those of Google."""

import re
from typing import Any

from griffe import Extension, Object


class HuggingFaceDocstrings(Extension):
    """Links to other names become code, and types lose their backquotes."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """
        Rewrite the docstring of an object.

        Args:
            obj (`Object`):
                A module, class, function or attribute.
        """
        if obj.docstring is not None:
            text = re.sub(r"\[`~?(?:[\w.]+\.)?(\w+)`\]", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^(\s+\w+) \((.*)\):$", _plain, text, flags=re.MULTILINE)


def _plain(match: re.Match) -> str:
    return f"{match[1]} ({match[2].replace('`', '').replace('*', '')}):"
