"""From an export's configuration to what is exported: a network of ours, or a user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeport_export import own
from edgeport_export.config import (
    ExportConfig,
    Subject,
    find_spec,
    make_contract,
    make_subject,
    read_labels,
    resolve,
    resolve_preprocess,
)
from edgeport_export.sidecar import Defaults, weights_entry
from edgeport_models.weights import find_weights, load_checkpoint
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_options", "find_subject"]

_OWN = "a module of one's own"


def check_options(config: ExportConfig) -> None:
    """Find what can be found wrong with the options before anything is built, read or imported.

    Raises:
        InputError: naming the option.
    """
    name = config.architecture or ""
    if own.is_reference(name):
        _own_preprocess(config)
    else:
        resolve_preprocess(find_spec(name).preprocess, config)


def find_subject(config: ExportConfig, module: nn.Module | None = None) -> Subject:
    """The module with its weights, and its contract.

    Args:
        config: what was asked for.
        module: the user's own; None takes ``config.architecture``.

    Raises:
        InputError: if the options contradict each other or the architecture.
        WeightsError: if the checkpoint cannot be read or does not fit.
        ExportError: if the user's own code fails.
    """
    if module is not None:
        return _own(config, module)
    if config.architecture is None:
        raise InputError("architecture is missing; give its name, or pass a module to export()")
    if own.is_reference(config.architecture):
        module = own.build(config.architecture)
        return _own(replace(config, architecture=own.name_of(config.architecture)), module)
    return resolve(config)


def _own_preprocess(config: ExportConfig) -> PreprocessSpec:
    """The input contract of a user's own module: the options, over pixels from 0 to 1, the shorter side resized.

    Raises:
        InputError: if the image size is missing, or the options contradict each other.
    """
    if config.image_size is None:
        raise InputError("image_size is missing; a module of your own needs --image-size, its input's side in pixels")
    is_grey = config.channels == 1 or (config.channels is None and config.color == "grey")
    num_channels = 1 if is_grey else 3
    default = PreprocessSpec(
        color="grey" if is_grey else "rgb",
        resize="shorter",
        resize_size=config.image_size,
        interpolation="bilinear",
        image_size=config.image_size,
        scale="unit",
        mean=(0.0,) * num_channels,
        std=(1.0,) * num_channels,
    )
    return resolve_preprocess(default, replace(config, mean=config.mean or default.mean, std=config.std or default.std))


def _own(config: ExportConfig, module: nn.Module) -> Subject:
    preprocess = _own_preprocess(config)
    name = config.architecture or type(module).__name__
    labels = None if config.labels is None else read_labels(config.labels)
    module = own.private_copy(module)
    weights: dict[str, Any] = {"source": "module"}
    if config.weights is not None:
        source = find_weights(config.weights)
        try:
            module.load_state_dict(load_checkpoint(source.file), strict=True)
        except RuntimeError as error:  # lists each key that is missing, unexpected, or of another shape
            raise WeightsError(f"weights {source.name} do not fit {name}: {error}") from None
        weights = weights_entry(source, layout=None, notes=())
    else:
        weights["sha256"] = own.state_digest(module)
    num_outputs = own.num_outputs_of(module, (preprocess.num_channels, preprocess.image_size, preprocess.image_size))
    if config.task == "binary" and num_outputs != 1:
        raise InputError(f"{name} gives {num_outputs} logits, but a binary task has one; two are --task multiclass")
    num_classes = 2 if config.task == "binary" else num_outputs
    if config.num_classes not in (None, num_classes):
        raise InputError(f"num_classes is {config.num_classes}, but {name} gives {num_classes}")
    contract = make_contract(config, num_classes=num_classes, labels=labels, preprocess=preprocess)
    sources = Defaults(preprocess=preprocess).sources_with(config)
    return make_subject(module, contract, name=name, source=_OWN, weights=weights, sources=sources)
