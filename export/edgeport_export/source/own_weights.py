"""Weights for a module that is not ours, and what the files beside them tell: from a checkpoint, or as it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from edgeport_models.weights.entries import Chosen
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["Opened", "OwnWeights", "fill_own", "open_own", "random_entry"]

_RANDOM_NOTE = "random weights: parity is proven, predictions mean nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnWeights:
    """Where the weights of a user's own module came from.

    Attributes:
        told: what the files beside the checkpoint tell, by the place; empty without a checkpoint.
        digest: of the module's state, where it came with its weights.
        seed: of random weights.
        source: of the checkpoint, and the files beside it; None where the module came with its weights.
        key: the checkpoint's entry that the weights come from; None where it holds no others.
        layout: of the checkpoint, where it is not the module's own.
        notes: what the user must know of the weights.
    """

    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str | None = None
    seed: int | None = None
    source: Source | None = None
    key: str | None = None
    layout: str | None = None
    notes: tuple[str, ...] = ()

    def entry(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The manifest's entry on the weights.

        Args:
            values: of the options, with the places that told them.

        Raises:
            WeightsError: if the labels beside the checkpoint are not one per class.
        """
        if self.seed is not None:
            return random_entry(self.seed)
        if self.source is None:
            return {"source": "module", "sha256": self.digest}
        if "labels" in values and values["labels"].source == CONFIG:
            check_labels(values["labels"].value, values["num_classes"].value, self.source)
        notes = (*self.notes, *unused_files(self.source, values, layout=self.layout))
        return weights_entry(self.source, layout=self.layout, notes=notes, key=self.key)


class Opened(NamedTuple):
    """A checkpoint that was read, and not yet fitted to a module.

    Attributes:
        source: where it is, and the files beside it.
        chosen: its weights.
        told: what the files beside it tell, by the place.
    """

    source: Source
    chosen: Chosen
    told: dict[str, dict[str, Any]]


def random_entry(seed: int) -> dict[str, Any]:
    """The manifest's entry on random weights."""
    return {"source": "random", "seed": seed, "note": _RANDOM_NOTE}


def open_own(config: ExportConfig, *, name: str, default: PreprocessSpec, given: Set[str]) -> Opened | None:
    """Read the checkpoint, if there is one.

    Args:
        config: of the export.
        name: of the module, for messages.
        default: the input of a module that nothing is known of.
        given: options on the command line, which are not looked for in the files beside the checkpoint.

    Raises:
        WeightsError: if the checkpoint or a file beside it cannot be used.
    """
    if config.weights is None:
        return None
    source = find_weights(config.weights, architecture=name)
    chosen = open_checkpoint(source.file, key=config.weights_key)
    return Opened(source, chosen, tell_own_files(source, default, given))


def fill_own(module: nn.Module, opened: Opened | None, *, name: str) -> OwnWeights:
    """Copy a checkpoint into a module, if there is one.

    Args:
        module: changed in place.
        opened: the checkpoint.
        name: of the module, for messages.

    Raises:
        WeightsError: if the weights do not fit.
    """
    if opened is None:
        return OwnWeights(digest=user_module.state_digest(module))
    source, chosen, told = opened
    left_out = fit_own(module, chosen.state, name=name, source=source.name)
    module.train().eval()  # forgets what it may have computed of the weights before, as LeViT of timm does
    notes = tuple(note for note in (chosen.note, left_out) if note is not None)
    return OwnWeights(told=told, source=source, key=chosen.key, notes=notes)
