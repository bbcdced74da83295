"""What a reader of a foreign layout gives, and what readers share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

__all__ = ["Converted", "Layout", "first_with", "rename"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A state dict in EdgePort's layout, and what its keys do not tell.

    Attributes:
        state: key to tensor; keys that the layout does not know stay as they were, and are refused when fitted.
        layer_norm_eps: epsilon of every LayerNorm, None for the architecture's own.
        num_heads: attention heads per block, None for the architecture's own.
    """

    state: dict[str, torch.Tensor]
    layer_norm_eps: float | None = field(default=None)
    num_heads: int | None = field(default=None)


class Layout(NamedTuple):
    """A family of state dicts.

    Attributes:
        name: who writes it, for messages and the manifest.
        matches: whether a state dict's keys are of this family.
        convert: from the state dict, and the ``config.json`` beside it (empty if there is none); raises WeightsError
            if the network it was written by is none of EdgePort's.
    """

    name: str
    matches: Callable[[Iterable[str]], bool]
    convert: Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], Converted]


def rename(
    state: Mapping[str, torch.Tensor], rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
) -> dict[str, torch.Tensor]:
    """Keys rewritten by the first rule (a pattern of the whole key, and its replacement) that fits; others stay."""
    compiled = [(re.compile(rf"(?:{pattern})\Z"), replacement) for pattern, replacement in rules]

    def new_name(key: str) -> str:
        for pattern, replacement in compiled:
            match = pattern.match(key)
            if match:
                return replacement(match) if callable(replacement) else match.expand(replacement)
        return key

    return {new_name(key): value for key, value in state.items()}


def first_with(keys: Iterable[str], parts: Sequence[str]) -> str | None:
    """The first key that contains one of the parts."""
    return next((key for key in keys if any(part in key for part in parts)), None)
