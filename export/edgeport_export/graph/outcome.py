"""What a graph pass did, and why it left a place as it was."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx

__all__ = ["Left", "Outcome", "find_matches", "is_routine"]

_Match = TypeVar("_Match")
_ROUTINE = re.compile(r"\bpass \w+: (changed|nothing to do)\b")


class Left(Exception):  # noqa: N818  not an error: the graph stays as it is
    """Why a place that looks like a pass's pattern is left as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a pass did.

    Attributes:
        num_changed: places that it changed.
        left: the reason for each place that looks like its pattern and was left.
        absent: what a graph without any such place does not have.
    """

    num_changed: int
    left: tuple[str, ...] = ()
    absent: str = "nothing like its pattern"

    def notes(self, name: str) -> list[str]:
        """Say it, in a line for what changed and one for each reason.

        Args:
            name: of the pass.
        """
        total = self.num_changed + len(self.left)
        if not total:
            return [f"pass {name}: nothing to do: {self.absent}"]
        changed = [f"pass {name}: changed {self.num_changed} of {total}"] if self.num_changed else []
        return changed + [f"pass {name}: left {n} of {total}: {reason}" for reason, n in Counter(self.left).items()]


def is_routine(note: str) -> bool:
    """True for a note that a pass did its work, or found none: of interest only to whoever looks for it."""
    return _ROUTINE.search(note) is not None


def find_matches(
    nodes: Iterable[onnx.NodeProto], match: Callable[[onnx.NodeProto], _Match | None]
) -> tuple[list[_Match], tuple[str, ...]]:
    """Ask of each node whether a pass's pattern lies there.

    Args:
        nodes: of the graph.
        match: gives what the pass needs to change the place, or None where nothing looks like the pattern; it raises
            ``Left`` where something does and has to stay.

    Returns:
        What ``match`` gave, and the reasons of the places that are left.
    """
    matches, left = [], []
    for node in nodes:
        try:
            found = match(node)
        except Left as reason:
            left.append(str(reason))
        else:
            if found is not None:
                matches.append(found)
    return matches, tuple(left)
