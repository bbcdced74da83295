"""Of several outputs of a user's own module, the one that holds the logits.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeport_runtime.errors import ExportError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Taken", "choose_output"]


class Taken(nn.Module):
    """Takes one tensor out of what a module gives.

    Args:
        module: the user's.
        path: keys and indices that lead to the tensor.
    """

    def __init__(self, module: nn.Module, path: tuple[str | int, ...]) -> None:
        super().__init__()
        self.module = module
        self._path = path

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """From images to the tensor (B, K)."""
        output: Any = self.module(x_BCHW)
        for key in self._path:
            is_field = isinstance(key, str) and not isinstance(output, Mapping)
            output = getattr(output, str(key)) if is_field else output[key]
        assert isinstance(output, torch.Tensor)
        return output


def choose_output(output: Any, size: int, wanted: str | None) -> tuple[tuple[str | int, ...], list[str]]:
    """The path to the tensor (B, K) in what a module gave, and a note where it gave more than that.

    Args:
        output: what it gave.
        size: B.
        wanted: the name to choose, None for the one named ``logits`` or the only one of that shape.

    Raises:
        ExportError: if there is no tensor of that shape.
        InputError: if there is none of that name, or several could be meant.
    """
    if isinstance(output, torch.Tensor):
        if wanted is not None:
            raise InputError("--output-name chooses among several outputs, but the module gives one tensor; omit it")
        return (), []
    tensors = {".".join(map(str, path)): (path, tensor) for path, tensor in _tensors(output)}
    kind = type(output).__name__
    shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, (_, tensor) in tensors.items())
    if not tensors:
        raise ExportError(f"the module gives {kind}, not a tensor; return the logits (batch, K) as a torch.Tensor")
    fitting = [name for name, (_, tensor) in tensors.items() if tensor.ndim == 2 and tensor.shape[0] == size]
    if wanted is not None:
        if wanted not in tensors:
            raise InputError(f"--output-name is {wanted}, but the module gives {shown}; choose one of these")
        chosen = wanted
    else:
        named = [name for name in fitting if name.rpartition(".")[2] == "logits"]
        candidates = named if len(named) == 1 else fitting
        if not candidates:
            raise ExportError(
                f"the module gives {kind} of {shown}, none of shape (batch, K); return the logits (batch, K)"
            )
        if len(candidates) > 1:
            raise InputError(
                f"the module gives {kind} of {shown}, and several could be the logits; choose with --output-name NAME"
            )
        chosen = candidates[0]
    path, tensor = tensors[chosen]
    others = [name for name in tensors if name != chosen]
    left = f"; left out: {', '.join(others)}" if others else ""
    return path, [f"of the {kind} that the module gives, {chosen} {tuple(tensor.shape)} is exported{left}"]


def _tensors(output: Any) -> Iterator[tuple[tuple[str | int, ...], torch.Tensor]]:
    """Every tensor in a nest of dictionaries, tuples, lists and dataclasses, with the path to it."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(output, torch.Tensor):
        yield (), output
    elif isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        items = list(zip(output._fields, output, strict=True))
    elif isinstance(output, tuple | list):
        items = list(enumerate(output))
    elif dataclasses.is_dataclass(output):
        items = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    for key, value in items:
        for path, tensor in _tensors(value):
            yield (key, *path), tensor
