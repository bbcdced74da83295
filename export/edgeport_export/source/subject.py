"""What is exported: a network of ours, or a user's own, with its weights and its contract."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from edgeport_export.config import OPTIONS, ExportConfig, find_spec
from edgeport_export.source import user_module
from edgeport_export.source.processor import CONFIG
from edgeport_export.source.resolve import make_contract, read_labels, resolve_preprocess
from edgeport_export.source.sidecar import (
    ARCHITECTURE,
    CHECKPOINT,
    COMMAND_LINE,
    Defaults,
    defaults_beside,
    labels_beside,
    options_beside,
    task_beside,
    weights_entry,
)
from edgeport_models.tasks import activation
from edgeport_models.weights import find_weights, init_random, load_checkpoint, read_checkpoint
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["RANDOM_NOTE", "Subject", "check_options", "find_subject"]

RANDOM_NOTE = "random weights: parity is proven, predictions mean nothing"
_OWN = "a module of one's own"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is exported: the module with its weights in float32 and evaluation mode, and its contract.

    Attributes:
        name: of the architecture.
        source: where it was published, or where its module comes from.
        module: the original that every stage is compared with; its outputs are the contract's.
        contract: input, task, labels.
        weights: the manifest's entry on where the weights came from.
        sources: of each value of the contract, what gave it.
        options: choices of the architecture, as it was built.
    """

    name: str
    source: str
    module: nn.Module = field(repr=False)
    contract: Contract
    weights: dict[str, Any]
    sources: dict[str, str]
    options: dict[str, str | bool]

    @property
    def num_params(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def check_options(config: ExportConfig) -> None:
    """Find what can be found wrong with the options before anything is built, read or imported.

    Raises:
        InputError: naming the option.
    """
    name = config.architecture or ""
    if user_module.is_reference(name):
        _own_preprocess(config)
    else:
        spec = find_spec(name)
        try:
            spec.check_options(config.options)
        except ValueError as error:
            raise InputError(f"{spec.name}: {error}") from None
        resolve_preprocess(spec.preprocess, config)


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
    if user_module.is_reference(config.architecture):
        module = user_module.build(config.architecture)
        return _own(replace(config, architecture=user_module.name_of(config.architecture)), module)
    return _named(config)


def _own_preprocess(config: ExportConfig) -> PreprocessSpec:
    """The input contract of a user's own module: the options, over pixels from 0 to 1, the shorter side resized.

    Raises:
        InputError: if the image size is missing, or an option is not for such a module or contradicts another.
    """
    foreign = [*config.options, *(["sum_channels"] if config.sum_channels else [])]
    if foreign:
        raise InputError(f"{', '.join(foreign)} is of EdgePort's own architectures, not of a module of your own")
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
    module = user_module.private_copy(module)
    weights: dict[str, Any] = {"source": "module"}
    if config.weights is not None:
        source = find_weights(config.weights)
        try:
            module.load_state_dict(load_checkpoint(source.file), strict=True)
        except RuntimeError as error:  # lists each key that is missing, unexpected, or of another shape
            raise WeightsError(f"weights {source.name} do not fit {name}: {error}") from None
        weights = weights_entry(source, layout=None, notes=())
    else:
        weights["sha256"] = user_module.state_digest(module)
    num_outputs = user_module.num_outputs_of(
        module, (preprocess.num_channels, preprocess.image_size, preprocess.image_size)
    )
    if config.task == "binary" and num_outputs != 1:
        raise InputError(f"{name} gives {num_outputs} logits, but a binary task has one; two are --task multiclass")
    num_classes = 2 if config.task == "binary" else num_outputs
    if config.num_classes not in (None, num_classes):
        raise InputError(f"num_classes is {config.num_classes}, but {name} gives {num_classes}")
    contract = make_contract(config, num_classes=num_classes, labels=labels, preprocess=preprocess)
    sources = Defaults(preprocess=preprocess).sources_with(config)
    return _subject(module, contract, name=name, source=_OWN, weights=weights, sources=sources, options={})


def _named(config: ExportConfig) -> Subject:
    spec = find_spec(config.architecture or "")
    checkpoint = None if config.weights is None else read_checkpoint(config.weights, architecture=spec.name)
    defaults = Defaults(preprocess=spec.preprocess)
    if checkpoint is not None:
        defaults = defaults_beside(spec.preprocess, checkpoint, config)
    config, task_source = _with_task(config, checkpoint)
    options, option_sources = _options(config, spec, checkpoint)
    preprocess = resolve_preprocess(defaults.preprocess, config)
    classes = _resolve_classes(config, spec, checkpoint)
    contract = make_contract(config, num_classes=classes.number, labels=classes.labels, preprocess=preprocess)
    channels, size = preprocess.num_channels, preprocess.image_size
    torch.manual_seed(config.seed)
    try:
        module = spec.build(num_classes=contract.num_outputs, in_channels=channels, image_size=size, **options)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None
    if checkpoint is None:
        init_random(module, head=spec.head, input_shape=(channels, size, size), seed=config.seed)
        weights: dict[str, Any] = {"source": "random", "seed": config.seed, "note": RANDOM_NOTE}
    else:
        notes = checkpoint.fill(module, spec=spec, image_size=size, add_channels=config.sum_channels)
        weights = weights_entry(checkpoint.source, layout=checkpoint.layout, notes=notes)
    return _subject(
        module,
        contract,
        name=spec.name,
        source=spec.source,
        weights=weights,
        sources={"task": task_source, **defaults.sources_with(config), **classes.sources, **option_sources},
        options=options,
    )


def _with_task(config: ExportConfig, checkpoint: Checkpoint | None) -> tuple[ExportConfig, str]:
    """The configuration with a task, and what gave it: the command line, the weights, or the default."""
    if config.task is not None:
        return config, COMMAND_LINE
    beside = None if checkpoint is None else task_beside(checkpoint)
    return (config, ARCHITECTURE) if beside is None else (replace(config, task=beside), CONFIG)


def _options(
    config: ExportConfig, spec: ModelSpec, checkpoint: Checkpoint | None
) -> tuple[dict[str, str | bool], dict[str, str]]:
    """The architecture's choices and what gave each: the command line, the weights, or the default."""
    options = {name: spec.options[name][0] for name in OPTIONS if name in spec.options}
    sources = dict.fromkeys(options, ARCHITECTURE)
    if checkpoint is not None:
        beside = options_beside(checkpoint, spec)
        options, sources = options | beside, sources | dict.fromkeys(beside, CONFIG)
        # Whoever says how the input is normalized says all of it.
        if spec.published and config.mean is None and config.std is None:
            digest = sha256_of(checkpoint.source.file)
            known = next((told for start, told in spec.published.items() if digest.startswith(start)), {})
            options, sources = options | dict(known), sources | dict.fromkeys(known, CHECKPOINT)
    return options | config.options, sources | dict.fromkeys(config.options, COMMAND_LINE)


class _Classes(NamedTuple):
    number: int
    labels: tuple[str, ...] | None
    sources: dict[str, str]


def _resolve_classes(config: ExportConfig, spec: ModelSpec, checkpoint: Checkpoint | None) -> _Classes:
    labels = None if config.labels is None else read_labels(config.labels)
    sources = {} if labels is None else {"labels": COMMAND_LINE}
    rows = None if checkpoint is None else checkpoint.num_classes(spec)
    if config.task == "binary":
        _check_binary(config, rows)
        count, sources["num_classes"] = 2, ARCHITECTURE if rows is None else CHECKPOINT
    elif config.num_classes is not None:
        count, sources["num_classes"] = config.num_classes, COMMAND_LINE
    elif rows is not None:
        count, sources["num_classes"] = rows, CHECKPOINT
    elif labels is not None:
        count, sources["num_classes"] = len(labels), COMMAND_LINE
    else:
        count, sources["num_classes"] = spec.num_classes, ARCHITECTURE
    if labels is None and checkpoint is not None:
        labels = labels_beside(checkpoint, count)
        if labels is not None:
            sources["labels"] = CONFIG
    return _Classes(count, labels, sources)


def _check_binary(config: ExportConfig, rows: int | None) -> None:
    if config.num_classes not in (None, 2):
        raise InputError(f"num_classes is {config.num_classes}, but a binary task has 2")
    if rows not in (None, 1):
        raise WeightsError(
            f"weights {config.weights} have a head of {rows} rows, but a binary task has one logit; "
            "two rows are --task multiclass"
        )


def _subject(module: nn.Module, contract: Contract, **values: Any) -> Subject:
    """The module in evaluation mode, with its activation where the contract's outputs are probabilities."""
    if contract.output == "probabilities":
        module = nn.Sequential(module, activation(contract.task))
    return Subject(module=module.eval().requires_grad_(False), contract=contract, **values)
