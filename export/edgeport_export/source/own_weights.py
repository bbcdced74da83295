"""Weights for a user's own module, and what the files beside them tell: from a checkpoint, or as the module came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeport_export.source import user_module
from edgeport_export.source.processor import CONFIG
from edgeport_export.source.sidecar import check_labels, tell_own_files, unused_files, weights_entry
from edgeport_models.weights import find_weights, fit_own, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from torch import nn

    from edgeport_export.config import ExportConfig
    from edgeport_export.source.resolve import Value
    from edgeport_models.weights import Source
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["OwnWeights", "fill_own"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnWeights:
    """Where the weights of a user's own module came from.

    Attributes:
        told: what the files beside the checkpoint tell, by the place; empty without a checkpoint.
        digest: of the module's state, where it came with its weights.
        source: of the checkpoint, and the files beside it; None where the module came with its weights.
        key: the checkpoint's entry that the weights come from; None where it holds no others.
        notes: what the user must know of the weights.
    """

    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str | None = None
    source: Source | None = None
    key: str | None = None
    notes: tuple[str, ...] = ()

    def entry(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The manifest's entry on the weights.

        Args:
            values: of the options, with the places that told them.

        Raises:
            WeightsError: if the labels beside the checkpoint are not one per class.
        """
        if self.source is None:
            return {"source": "module", "sha256": self.digest}
        if "labels" in values and values["labels"].source == CONFIG:
            check_labels(values["labels"].value, values["num_classes"].value, self.source)
        notes = (*self.notes, *unused_files(self.source, values, layout=None))
        return weights_entry(self.source, layout=None, notes=notes, key=self.key)


def fill_own(
    module: nn.Module, config: ExportConfig, *, name: str, default: PreprocessSpec, given: Set[str]
) -> OwnWeights:
    """Copy the checkpoint into the module, if there is one.

    Args:
        module: changed in place.
        config: of the export.
        name: of the module, for messages.
        default: the input of a module that nothing is known of.
        given: options on the command line, which are not looked for in the files beside the checkpoint.

    Raises:
        WeightsError: if the checkpoint or a file beside it cannot be used, or the weights do not fit.
    """
    if config.weights is None:
        return OwnWeights(digest=user_module.state_digest(module))
    source = find_weights(config.weights, architecture=name)
    chosen = open_checkpoint(source.file, key=config.weights_key)
    left_out = fit_own(module, chosen.state, name=name, source=source.name)
    notes = tuple(note for note in (chosen.note, left_out) if note is not None)
    told = tell_own_files(source, default, given)
    return OwnWeights(told=told, source=source, key=chosen.key, notes=notes)
