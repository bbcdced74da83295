"""The layouts that EdgePort reads, and the choice between them by a checkpoint's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_models.weights import google, huggingface, timm, torchvision
from edgeport_models.weights.keys import unwrapped, without_inner_wrappers
from edgeport_models.weights.layout import Converted, Layout
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["READERS", "convert"]

READERS: tuple[Layout, ...] = (
    timm.VIT,
    huggingface.VIT,
    huggingface.RESNET,
    google.VIT,
    torchvision.VIT_LINEAR,
    timm.RESNET,
)
"""Tried in this order; none has the keys of another."""


def convert(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, source: str
) -> tuple[Converted, str | None]:
    """A state dict in EdgePort's layout.

    Args:
        state: key to tensor, as ``load_checkpoint`` gives.
        config: ``config.json`` beside the checkpoint, empty if there is none.
        source: the checkpoint, for messages.

    Returns:
        The state dict with what its keys do not tell, and the name of the layout; None where it is EdgePort's own, or
        none that is known: fitting it lists the difference.

    Raises:
        WeightsError: if the checkpoint is of a network that EdgePort does not have.
    """
    state = unwrapped(without_inner_wrappers(state))
    for layout in READERS:
        if layout.matches(state):
            try:
                return layout.convert(state, config), layout.name
            except WeightsError as error:
                raise WeightsError(f"weights {source}: {error}") from None
    return Converted(state=dict(state)), None
