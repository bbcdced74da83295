"""How the names that images were given become the classes of a model, and when that cannot be known."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["Match", "MatchedBy", "Matching", "match_names"]

Match: TypeAlias = Literal["auto", "order"]
MatchedBy: TypeAlias = Literal["name", "sorted order", "number"]

_NUM_SHOWN = 10


class Matching(NamedTuple):
    """Names with their classes.

    Attributes:
        by: what they were matched by.
        classes: the class of each name that has one.
        problems: why each of the others has none.
    """

    by: MatchedBy
    classes: dict[str, int]
    problems: dict[str, str]


def match_names(names: Iterable[str], contract: Contract) -> Matching:
    """Match names to classes.

    A name is that of a label, in upper or lower case, with accents written in either way. Where no name is one and all
    are numbers, they are the numbers of classes, from 0 on. A class whose label another class has as well goes by its
    number alone.

    Args:
        names: of folders, or in a CSV.
        contract: the model's classes and labels.
    """
    wanted = list(dict.fromkeys(names))
    exact, folded = _by_label(contract)
    found = {name: exact.get(name) or folded.get(_fold(name), []) for name in wanted}
    if not any(found.values()) and all(map(_is_number, wanted)):
        return _match_numbers(wanted, contract)
    shared = {index for indices in folded.values() if len(indices) > 1 for index in indices}
    classes: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, indices in found.items():
        if len(indices) == 1:
            classes[name] = indices[0]
        elif not indices and _is_number(name) and int(name) in shared:
            classes[name] = int(name)
        else:
            problems[name] = _problem(name, indices, contract)
    return Matching("name", classes, problems)


def _match_numbers(names: list[str], contract: Contract) -> Matching:
    classes = {name: int(name) for name in names if int(name) < contract.num_classes}
    problems = {
        name: f"{name!r} is none of the model's classes, which are numbered from 0 to {contract.num_classes - 1}"
        for name in names
        if name not in classes
    }
    return Matching("number", classes, problems)


def _by_label(contract: Contract) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The classes of each label, as it is and without regard to case."""
    exact: dict[str, list[int]] = defaultdict(list)
    folded: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(contract.labels or ()):
        exact[label].append(index)
        folded[_fold(label)].append(index)
    return exact, folded


def _problem(name: str, indices: list[int], contract: Contract) -> str:
    if indices:
        numbers = " and ".join(map(str, indices))
        return f"{name!r} is the label of the classes {numbers}; use the number of the one that is meant"
    if contract.labels is None:
        return f"{name!r} is no number of a class, and the model has no labels"
    known = ", ".join(contract.labels[:_NUM_SHOWN])
    return f"{name!r} is not among the model's labels ({known}{', ...' * (len(contract.labels) > _NUM_SHOWN)})"


def _fold(name: str) -> str:
    # macOS writes the names of files with accents as letters of their own.
    return unicodedata.normalize("NFC", name.strip().casefold())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 9
