"""Names of missing tensors as the file itself would spell them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping


SEPARATORS = (".", "/")  # Flax files have slashes
PARTS = re.compile(r"([./])")
KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def spell_missing(name: str, sources: Mapping[str, str], official_names: Mapping[str, str]) -> str | None:
    """
    Name that a file would have for one of our tensors.

    Args:
        name (`str`):
            Our name of the tensor that is missing.
        sources (`Mapping[str, str]`):
            Our names of the tensors that the file has, each with its name in the file.
        official_names (`Mapping[str, str]`):
            Our names of modules or tensors outside the blocks, each with the official name.

    Returns:
        `str`, *optional*: the name in the spelling of the file, or `None` if the file does not show it.
    """
    return (
        _from_other_blocks(name, sources)
        or _from_other_kind(name, sources)
        or _from_official_names(name, sources, official_names)
    )


def _from_other_blocks(name: str, sources: Mapping[str, str]) -> str | None:
    """From the same tensor of another block, with what differs in the file between the names of the two blocks."""
    parts = name.split(".")
    for place in (index for index in reversed(range(len(parts))) if parts[index].isdigit()):
        own, inside = ".".join(parts[: place + 1]), f".{'.'.join(parts[place + 1 :])}"
        others = [ours.removesuffix(inside) for ours in sources if ours.endswith(inside)]
        others = [other for other in others if other.rpartition(".")[2].isdigit()]
        others.sort(key=lambda other: other.rpartition(".")[0] != own.rpartition(".")[0])  # the own stack first
        for other in others:
            theirs = sources[other + inside]
            starts = [(here, there) for here, there in _starts(own, other, sources) if theirs.startswith(there)]
            if starts:
                here, there = max(starts, key=lambda pair: len(pair[1]))
                return here + theirs.removeprefix(there)
    return None


def _starts(own: str, other: str, sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Of each tensor that two blocks have, the start of its name in the file up to what both names end with."""
    for ours, theirs in sources.items():
        partner = sources.get(other + ours.removeprefix(own)) if ours.startswith(f"{own}.") else None
        if partner is not None:
            here, there = PARTS.split(theirs), PARTS.split(partner)
            while here and there and here[-1] == there[-1]:
                here.pop(), there.pop()
            yield "".join(here), "".join(there)


def _from_official_names(name: str, sources: Mapping[str, str], official_names: Mapping[str, str]) -> str | None:
    """From the official name, with the prefix that other tensors have in the file."""
    official, prefixes = _official(name, official_names), dict(_prefixes(sources, official_names))
    if official is None or not prefixes:
        return None
    near = Counter(prefix for ours, prefix in prefixes.items() if ours.split(".")[0] == name.split(".")[0])
    if near:
        return near.most_common(1)[0][0] + official
    return (prefixes.popitem()[1] if len(set(prefixes.values())) == 1 else "") + official


def _prefixes(sources: Mapping[str, str], official_names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Our names that the file spells officially, each with the prefix there."""
    for ours, theirs in sources.items():
        official = _official(ours, official_names)
        if official is not None and theirs.endswith(official):
            prefix = theirs.removesuffix(official)
            if not prefix or prefix.endswith(SEPARATORS):
                yield ours, prefix


def _official(name: str, official_names: Mapping[str, str]) -> str | None:
    """Official name of one of our tensors outside the blocks."""
    for ours, theirs in official_names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return None


def _from_other_kind(name: str, sources: Mapping[str, str]) -> str | None:
    """From another tensor of the same module, such as the weight for the bias."""
    module, _, kind = name.rpartition(".")
    for other in KINDS if kind in KINDS else ():
        theirs = sources.get(f"{module}.{other}", "")
        shared = sum(one == theirs for one in sources.values()) > 1  # one of theirs is several of ours
        if theirs.endswith(f".{other}") and not shared:
            return theirs.removesuffix(other) + kind
    return None
