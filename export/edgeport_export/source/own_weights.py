"""Weights for a user's own module: from a checkpoint, or as the module came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_export.source import user_module
from edgeport_export.source.sidecar import weights_entry
from edgeport_models.weights import find_weights, load_checkpoint
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

    from edgeport_export.config import ExportConfig

__all__ = ["fill_own"]


def fill_own(module: nn.Module, config: ExportConfig, *, name: str) -> dict[str, Any]:
    """Copy the checkpoint into the module, if there is one.

    Args:
        module: changed in place.
        config: of the export.
        name: of the module, for messages.

    Returns:
        The manifest's entry on where the weights came from.

    Raises:
        WeightsError: if the checkpoint cannot be read or does not fit.
    """
    if config.weights is None:
        return {"source": "module", "sha256": user_module.state_digest(module)}
    source = find_weights(config.weights)
    try:
        module.load_state_dict(load_checkpoint(source.file), strict=True)
    except RuntimeError as error:  # lists each key that is missing, unexpected, or of another shape
        raise WeightsError(f"weights {source.name} do not fit {name}: {error}") from None
    return weights_entry(source, layout=None, notes=())
