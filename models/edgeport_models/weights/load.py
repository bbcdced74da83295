"""Brings a checkpoint into a module: finds, reads, converts, adapts and fits it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeport_models.weights.adapt import image_size_of, resize_positions, set_hyperparameters, sum_channels
from edgeport_models.weights.checkpoint import open_checkpoint
from edgeport_models.weights.fit import fit_checkpoint, num_classes_of
from edgeport_models.weights.keys import without_training
from edgeport_models.weights.readers import convert
from edgeport_models.weights.source import Source, find_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from edgeport_models.spec import ModelSpec
    from edgeport_models.weights.layout import Converted
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Weights in EdgePort's layout, with where they came from.

    Attributes:
        source: the files, and the descriptions beside them.
        converted: the state dict and what its keys do not tell.
        layout: name of the foreign layout, None for EdgePort's own.
        key: the file's entry that the weights come from; None where it holds no others.
        notes: what the user must know about the choice of the weights.
    """

    source: Source
    converted: Converted = field(repr=False)
    layout: str | None
    key: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the images that the position embeddings are for; None where there are none."""
        return image_size_of(self.converted.state)

    def num_classes(self, spec: ModelSpec) -> int | None:
        """Rows of the head's weight; None if there is no such head."""
        return num_classes_of(self.converted.state, spec)

    def fill(self, module: nn.Module, *, spec: ModelSpec, image_size: Size, add_channels: bool) -> list[str]:
        """Copy the weights into a module.

        Args:
            module: receives the values, in float32.
            spec: the module's architecture.
            image_size: of its input in pixels; position embeddings for another are interpolated.
            add_channels: sum the first layer over its three input channels, for a module that takes one.

        Returns:
            What the user must know: everything that was not copied as it was.

        Raises:
            WeightsError: if the checkpoint does not fit, listing every difference.
            InputError: if channels are to be summed where there are none.
        """
        name = self.source.name
        state, resized = resize_positions(self.converted.state, image_size=image_size, source=name)
        state, summed = sum_channels(state, module, requested=add_channels, source=name)
        set_hyperparameters(module, self.converted)
        dropped = fit_checkpoint(module, state, spec=spec, source=name)
        notes = [note for note in (*self.notes, resized, summed) if note is not None]
        if dropped:
            heads = sorted({key.partition(".")[0] for key in dropped})
            notes.append(f"left out of the graph, for training only: {', '.join(heads)}")
        return notes


def read_checkpoint(weights: str | Path, *, architecture: str | None = None, key: str | None = None) -> Checkpoint:
    """Find a checkpoint, read it, and bring it to EdgePort's layout.

    Args:
        weights: a file, a folder in the Hugging Face layout, ``hf://OWNER/NAME[@REVISION]``, or the name of weights
            that EdgePort ships.
        architecture: what they are for.
        key: of the file's entry that holds them; None follows the convention of training scripts.

    Raises:
        WeightsError: if it cannot be had or read, or is of a network that EdgePort does not have.
    """
    source = find_weights(weights, architecture=architecture)
    chosen = open_checkpoint(source.file, key=key)
    state, left_out = without_training(chosen.state)
    converted, layout = convert(state, source.config, source=source.name)
    notes = tuple(note for note in (chosen.note, left_out) if note is not None)
    return Checkpoint(source=source, converted=converted, layout=layout, key=chosen.key, notes=notes)
