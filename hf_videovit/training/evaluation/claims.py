"""The data and settings that `results.json` records, from which an evaluation can be repeated."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar


ClaimType = TypeVar("ClaimType", bound="Claim")


class Claim:
    """
    The data and settings of an evaluation. A subclass is a dataclass with the fields.

    Attributes:
        files (`tuple[tuple[str, str], ...]`):
            Fields with paths, each with the option that gives another path.
    """

    files: ClassVar[tuple[tuple[str, str], ...]] = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @classmethod
    def read(cls: type[ClaimType], claim: Mapping[str, Any], **changes: Any) -> ClaimType:
        """
        The claim of a `results.json`.

        Args:
            claim (`Mapping[str, Any]`):
                Its content.
            changes:
                Fields that differ now, such as the place of the data. `None` for those of the claim.

        Returns:
            [`Claim`]

        Raises:
            ValueError: a file of the claim does not exist.
        """
        known = {name: claim[name] for name in cls.__dataclass_fields__ if name in claim}
        found = cls(**known | {name: value for name, value in changes.items() if value is not None})
        for name, option in cls.files:
            path = getattr(found, name)
            if path is not None and not os.path.exists(path):
                raise ValueError(f"`{option}` is needed: {path!r}, which results.json names, does not exist here")
        return found


__all__ = ["Claim"]
