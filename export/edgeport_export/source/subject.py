"""What is exported: a network of ours, or a user's own, with its weights and its contract."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeport_export.config import OPTIONS, ExportConfig, find_spec
from edgeport_export.source import huggingface, libraries, user_module
from edgeport_export.source.labels import read_labels
from edgeport_export.source.own_output import look_at, refuse_one_output, task_of
from edgeport_export.source.own_weights import OwnWeights, fill_own, open_own, random_entry
from edgeport_export.source.processor import CONFIG, PROCESSOR
from edgeport_export.source.resolve import (
    ARCHITECTURE,
    CHECKPOINT,
    COMMAND_LINE,
    CONTRACT_OPTIONS,
    LABELS_FILE,
    LIBRARY,
    Value,
    contract_of,
    preprocess_of,
    resolve,
    resolve_preprocess,
    sources_of,
    tell_architecture,
    tell_command_line,
)
from edgeport_export.source.sidecar import check_labels, tell_files, unused_files, weights_entry
from edgeport_export.source.untrained import is_untrained, settle
from edgeport_export.source.unwrap import fold
from edgeport_models.tasks import activation
from edgeport_models.weights import init_random, read_checkpoint
from edgeport_runtime.errors import ExportError, InputError, WeightsError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["OWN_INPUT", "Subject", "check_given", "check_options", "command_line_of", "contract_with", "find_subject"]

_OWN = "a module of one's own"
_SOME_CLASSES = 1000  # of a head whose size is still to be found
_NO_IMAGE_SIZE = "--image-size is missing; a module of your own needs the side of its input in pixels"
OWN_INPUT = PreprocessSpec(  # the image size always comes from the user, or from a file beside the weights
    color="rgb",
    resize="shorter",
    resize_size=1,
    interpolation="bilinear",
    image_size=1,
    scale="unit",
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)


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
        notes: what was changed or found in a module of the user's own.
    """

    name: str
    source: str
    module: nn.Module = field(repr=False)
    contract: Contract
    weights: dict[str, Any]
    sources: dict[str, str]
    options: dict[str, str | bool]
    notes: tuple[str, ...] = ()

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
    is_file = name.endswith(".onnx")
    for option in ("input_name", "input_layout", "reference"):
        if getattr(config, option) is not None and not is_file:
            raise InputError(f"--{option.replace('_', '-')} is for an .onnx file, but {name} is none; omit it")
    if is_file:
        check_given(config)
    elif huggingface.is_huggingface(name) or libraries.is_in_library(name):
        check_foreign(config)
        resolve_preprocess(OWN_INPUT, config.input_options)
    elif user_module.is_reference(name):
        _check_own(config)
        resolve_preprocess(OWN_INPUT, config.input_options)
    else:
        spec = _spec(config)
        try:
            spec.check_options(config.options)
        except ValueError as error:
            raise InputError(f"{spec.name}: {error}") from None
        _check_input(spec.preprocess, config)


def _check_input(default: PreprocessSpec, config: ExportConfig) -> None:
    """Raise InputError if the input's options contradict each other, whatever files beside the weights may tell."""
    others = () if config.weights is None else (OWN_INPUT, replace(OWN_INPUT, color="grey", mean=(0.0,), std=(1.0,)))
    errors = []
    for possible in (default, *others):
        try:
            resolve_preprocess(possible, config.input_options)
            return
        except InputError as error:
            errors.append(error)
    raise errors[0]


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
        raise InputError("the architecture is missing; set ExportConfig.architecture, or pass a module to export()")
    if huggingface.is_huggingface(config.architecture):
        return _of_huggingface(config)
    if libraries.is_in_library(config.architecture):
        return _of_library(config)
    if user_module.is_reference(config.architecture):
        num_classes = None if config.task == "binary" else config.num_classes  # of two classes it has one output
        module = user_module.build(config.architecture, num_classes=num_classes)
        return _own(replace(config, architecture=user_module.name_of(config.architecture)), module)
    return _named(config)


def check_foreign(config: ExportConfig) -> None:
    """Raise InputError if an option is for networks of ours alone."""
    foreign = [*config.options, *(["sum_channels"] if config.sum_channels else [])]
    if foreign:
        raise InputError(
            f"--{', --'.join(foreign).replace('_', '-')} applies to EdgePort's own architectures, not to your own or a "
            "library's"
        )


def check_given(config: ExportConfig) -> None:
    """Raise InputError if an option is not for an ``.onnx`` file."""
    check_foreign(config)
    for option in ("weights", "weights_key", "channels"):
        if getattr(config, option) is not None:
            raise InputError(
                f"--{option.replace('_', '-')} does not apply to an .onnx file, which has its own; omit it"
            )


def _check_own(config: ExportConfig) -> None:
    """Raise InputError if the image size is missing, or an option is not for a module of the user's own."""
    check_foreign(config)
    if config.image_size is None and config.weights is None:
        raise InputError(_NO_IMAGE_SIZE)


def _own(config: ExportConfig, module: nn.Module) -> Subject:
    _check_own(config)
    resolve_preprocess(OWN_INPUT, config.input_options)  # before anything is read
    command_line = command_line_of(config)
    module, notes = user_module.private_copy(module)
    name = config.architecture or type(module).__name__
    own = fill_own(module, open_own(config, name=name, default=OWN_INPUT, given=set(command_line)), name=name)
    told = {ARCHITECTURE: tell_architecture(OWN_INPUT), COMMAND_LINE: command_line, **own.told}
    if resolve(told)["image_size"].source == ARCHITECTURE:
        raise InputError(_NO_IMAGE_SIZE)
    return _seen(module, own, told, config, name=name, source=_OWN, notes=notes)


def _of_library(config: ExportConfig) -> Subject:
    """A network of another library, with as many outputs as the checkpoint's head has, or as was asked for."""
    network = libraries.find_network(config.architecture or "")
    resolve_preprocess(OWN_INPUT, config.input_options)  # before anything is read
    command_line = command_line_of(config)
    opened = open_own(config, name=network.name, default=OWN_INPUT, given=set(command_line))
    told = {
        ARCHITECTURE: tell_architecture(OWN_INPUT),
        LIBRARY: network.describe(set(command_line)),
        COMMAND_LINE: command_line,
        **({} if opened is None else opened.told),
    }
    preprocess = preprocess_of(resolve(told))
    shape = preprocess.input_shape
    num_labels = len(command_line["labels"]) if "labels" in command_line else None
    num_outputs = 1 if config.task == "binary" else config.num_classes or num_labels or network.num_classes
    if opened is None and not num_outputs:
        raise InputError(
            f"{network.name} has no head, because the library's weights for it have none; add --num-classes N, or "
            "choose other weights of it"
        )
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers stay what they are
        torch.manual_seed(config.seed)
        if opened is not None:
            guess = network.num_classes or _SOME_CLASSES
            default = network.build(guess, shape[0], preprocess.image_size)
            num_outputs = libraries.num_outputs_in(opened.chosen.state, default, guess)
        module = network.build(num_outputs, shape[0], preprocess.image_size).eval().requires_grad_(False)
        if opened is None:
            settle(module, num_outputs, shape, seed=config.seed)
            own = OwnWeights(seed=config.seed)
        else:
            own = fill_own(module, opened, name=network.name)
    if opened is not None and num_outputs == len(network.labels):
        told[LIBRARY]["labels"] = network.labels
    notes = [f"the input is as {network.description} describes it, where nothing else tells"]
    return _seen(module, own, told, config, name=network.name, source=network.source, notes=notes)


def _of_huggingface(config: ExportConfig) -> Subject:
    """A network of transformers, all of which its folder or repository describes."""
    reference = config.architecture or ""
    if config.weights is not None:
        raise InputError(f"{reference} brings its weights; omit --weights, or give the other folder as hf:FOLDER")
    resolve_preprocess(OWN_INPUT, config.input_options)  # before anything is read
    found = huggingface.find_source(reference)
    config = replace(config, weights=huggingface.weights_of(reference))
    name = huggingface.timm_name(found)
    if name is not None:
        return _of_library(replace(config, architecture=name))
    command_line = command_line_of(config)
    classifier = huggingface.find_classifier(reference, found)
    opened = open_own(config, name=classifier.name, default=OWN_INPUT, given=set(command_line))
    assert opened is not None
    source, chosen, beside = opened
    told = {ARCHITECTURE: tell_architecture(OWN_INPUT), COMMAND_LINE: command_line, **beside}
    values = resolve(told)
    needed = ("image_size", "mean", "std", *(() if values["resize"].value == "none" else ("interpolation",)))
    lacking = [name for name in needed if values[name].source == ARCHITECTURE]
    if lacking:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in lacking)
        raise InputError(f"{source.name} does not tell how its images are prepared; give {options}, or its {PROCESSOR}")
    module = classifier.fill(chosen.state).eval().requires_grad_(False)
    notes = () if chosen.note is None else (chosen.note,)
    own = OwnWeights(source=source, key=chosen.key, layout=huggingface.LAYOUT, notes=notes)
    return _seen(module, own, told, config, name=classifier.name, source=classifier.source, notes=[])


def command_line_of(config: ExportConfig) -> dict[str, Any]:
    """What the command line tells of the options of ``resolve.OPTIONS``, with the labels of its file."""
    command_line = tell_command_line(config)
    if config.labels is not None:
        command_line["labels"] = read_labels(config.labels)
    return command_line


def _seen(
    module: nn.Module,
    own: OwnWeights,
    told: dict[str, dict[str, Any]],
    config: ExportConfig,
    *,
    name: str,
    source: str,
    notes: list[str],
) -> Subject:
    """A module that is not ours, with the task and the outputs that it is seen to have."""
    values = resolve(told)
    preprocess, asked = preprocess_of(values), values["task"]
    notes = [*notes, *fold(module)]
    shape = preprocess.input_shape
    look = look_at(module, shape, batch=config.batch, output_name=config.output_name)
    if own.digest is not None and is_untrained(look.module, look.num_outputs, shape):
        settle(look.module, look.num_outputs, shape, seed=config.seed)
        own = OwnWeights(seed=config.seed)
        notes.append("the module was never trained; its logits were brought to order 1, and mean nothing")
        look = look_at(module, shape, batch=config.batch, output_name=config.output_name)
    task = task_of(look, None if asked.source == ARCHITECTURE else asked.value, name=name)
    told[ARCHITECTURE] |= {"task": task, "num_classes": 2 if task == "binary" else look.num_outputs}
    if config.num_classes not in (None, told[ARCHITECTURE]["num_classes"]):
        raise InputError(f"--num-classes is {config.num_classes}, but {name} gives {told[ARCHITECTURE]['num_classes']}")
    values = resolve(told)
    weights = own.entry(values)
    contract = contract_with(values, config)
    if look.gives_probabilities:
        contract = replace(contract, output="probabilities")
    return Subject(
        module=look.module if look.gives_probabilities else _activated(look.module, contract),
        contract=contract,
        name=name,
        source=source,
        weights=weights,
        sources=sources_of(values, *CONTRACT_OPTIONS),
        options={},
        notes=(*notes, *look.notes),
    )


def _named(config: ExportConfig) -> Subject:
    spec = _spec(config)
    checkpoint = (
        None
        if config.weights is None
        else read_checkpoint(config.weights, architecture=spec.name, key=config.weights_key)
    )
    values = resolve(_tell(config, spec, checkpoint))
    if checkpoint is not None and "labels" in values and values["labels"].source == CONFIG:
        check_labels(values["labels"].value, values["num_classes"].value, checkpoint.source)
    contract = contract_with(values, config)
    if contract.task == "multiclass" and contract.num_classes == 1:
        refuse_one_output(spec.name)
    options = {name: values[name].value for name in OPTIONS if name in values}
    shape, size = contract.preprocess.input_shape, contract.preprocess.image_size
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers stay what they are
            torch.manual_seed(config.seed)
            module = spec.build(num_classes=contract.num_outputs, in_channels=shape[0], image_size=size, **options)
            if checkpoint is None:  # dropout draws as well
                init_random(module, head=spec.head, input_shape=shape, seed=config.seed)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None
    if checkpoint is None:
        weights = random_entry(config.seed)
    else:
        notes = checkpoint.fill(module, spec=spec, image_size=size, add_channels=config.sum_channels)
        notes += unused_files(checkpoint.source, values, layout=checkpoint.layout)
        weights = weights_entry(checkpoint.source, layout=checkpoint.layout, notes=notes, key=checkpoint.key)
    return Subject(
        module=_activated(module, contract),
        contract=contract,
        name=spec.name,
        source=spec.source,
        weights=weights,
        sources=sources_of(values, *CONTRACT_OPTIONS, *OPTIONS),
        options=options,
    )


def _spec(config: ExportConfig) -> ModelSpec:
    name = config.architecture or ""
    try:
        spec = find_spec(name)
    except InputError as error:
        elsewhere = libraries.names_like(name)
        if not elsewhere:
            raise
        raise InputError(f"{error}; did you mean {' or '.join(elsewhere)}?") from None
    if config.output_name is not None:
        raise InputError(f"--output-name chooses among several outputs, but {spec.name} has one; omit it")
    return spec


def _tell(config: ExportConfig, spec: ModelSpec, checkpoint: Checkpoint | None) -> dict[str, dict[str, Any]]:
    """What each place tells of a network of ours."""
    options = {name: spec.options[name][0] for name in OPTIONS if name in spec.options}
    told = {COMMAND_LINE: tell_command_line(config), ARCHITECTURE: tell_architecture(spec.preprocess, **options)}
    if config.labels is not None:
        told[COMMAND_LINE]["labels"] = read_labels(config.labels)
    if checkpoint is not None:
        told |= tell_files(checkpoint, spec, set(told[COMMAND_LINE]))
    rows = None if checkpoint is None else checkpoint.num_classes(spec)
    is_binary = resolve(told)["task"].value == "binary"
    if is_binary:
        _check_binary(config, rows)
    told[ARCHITECTURE]["num_classes"] = 2 if is_binary else spec.num_classes
    if rows is not None:
        told[CHECKPOINT]["num_classes"] = 2 if is_binary else rows
    if config.labels is not None and not is_binary:
        told[LABELS_FILE] = {"num_classes": len(told[COMMAND_LINE]["labels"])}
    return told


def contract_with(values: dict[str, Value], config: ExportConfig) -> Contract:
    """The contract; raises ExportError if there is not one label per class."""
    num_classes, labels = values["num_classes"].value, values.get("labels")
    if labels is not None and len(labels.value) != num_classes:
        raise ExportError(f"{config.labels} holds {len(labels.value)} labels, but the model has {num_classes} classes")
    return contract_of(values, config.graph_options)


def _check_binary(config: ExportConfig, rows: int | None) -> None:
    if config.num_classes not in (None, 2):
        raise InputError(f"--num-classes is {config.num_classes}, but a binary task has 2 classes")
    if rows not in (None, 1):
        raise WeightsError(
            f"weights {config.weights} have a head of {rows} rows, but a binary task has one logit; "
            "use --task multiclass for two rows"
        )


def _activated(module: nn.Module, contract: Contract) -> nn.Module:
    """The module in evaluation mode, with its activation where the contract's outputs are probabilities."""
    if contract.output == "probabilities":
        module = nn.Sequential(module, activation(contract.task))
    return module.eval().requires_grad_(False)
