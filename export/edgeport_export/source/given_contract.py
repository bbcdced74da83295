"""The contract of an ``.onnx`` file: by what it takes and gives, by files beside it, and by the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeport_export.graph.index import GraphIndex
from edgeport_export.parity.onnx_original import OnnxOriginal, open_plainly
from edgeport_export.source.given_fit import noise
from edgeport_export.source.own_output import STRONG, Activation, Seen, judge_outputs, task_of
from edgeport_export.source.processor import CONFIG
from edgeport_export.source.resolve import ARCHITECTURE, resolve
from edgeport_export.source.sidecar import check_labels
from edgeport_export.source.subject import OWN_INPUT, contract_with
from edgeport_runtime.engine.foreign import find_ports
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

    from edgeport_export.config import ExportConfig
    from edgeport_export.source.resolve import Value
    from edgeport_models.weights import Source
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.engine.foreign import Asked, Ports
    from edgeport_runtime.pixels.preprocess import PreprocessSpec, Size

__all__ = ["Opened", "contract_for", "input_of", "notes_on_ports"]

_LAST: dict[str, Activation] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "LogSoftmax": "log-softmax",
}
_LOOK_THROUGH = {
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout", "Clip"),
    *("QuantizeLinear", "DequantizeLinear"),
}
_FINISH = {"multiclass": "Softmax", "binary": "Sigmoid", "multilabel": "Sigmoid"}


class Opened:
    """A model in ONNX Runtime, with its ends.

    Args:
        model: with its weights inside.
        asked: what the user says of its input and output.
        name: of the file.

    Attributes:
        session: of the model as it is written.
        ports: its input and output.
    """

    def __init__(self, model: onnx.ModelProto, asked: Asked, name: str) -> None:
        self.model, self.name = model, name
        self.session = open_plainly(model, name=name)
        self.ports = find_ports(self.session, asked, name=name)


def input_of(ports: Ports) -> PreprocessSpec:
    """The input of a file that says no more than its shape and type."""
    is_grey = ports.channels == 1
    return replace(
        OWN_INPUT,
        image_size=ports.image_size,
        resize_size=ports.image_size,
        color="grey" if is_grey else "rgb",
        mean=(0.0,) * ports.channels,
        std=(1.0,) * ports.channels,
        scale="byte" if ports.dtype is np.uint8 else "unit",
    )


def notes_on_ports(ports: Ports, told: dict[str, dict[str, Any]], *, is_half: bool) -> list[str]:
    """What a user must know of the input and the output that were found."""
    notes = []
    if ports.layout == "nhwc":
        notes.append("the input has its channels last (NHWC); the graph takes them first, and transposes at most once")
    if is_half:
        notes.append("the float16 of the file is computed in float32; --quantize fp16 makes a variant in float16")
    if ports.other_outputs:
        notes.append(f"the output {ports.output_name} is exported; left out: {', '.join(ports.other_outputs)}")
    if ports.dtype is np.uint8:
        notes.append("the input is pixels as uint8: the file holds its own normalization")
    elif not any({"mean", "std", "scale"} & set(place) for key, place in told.items() if key != ARCHITECTURE):
        notes.append(
            "nothing tells how pixels become the input, which are divided by 255 and no more; give --mean, --std and "
            "--scale as in training"
        )
    return notes


def contract_for(
    opened: Opened, told: dict[str, dict[str, Any]], config: ExportConfig, source: Source, notes: list[str]
) -> tuple[Contract, dict[str, Value], str | None]:
    """The contract, where its values come from, and the operator that is put behind the output.

    Args:
        opened: the model.
        told: what each place tells; the model's own task and classes are put in.
        config: what was asked for.
        source: the files beside the model.
        notes: is given what a user must know of the outputs.

    Raises:
        InputError: if what is told contradicts the model.
        ExportError: if its outputs are neither logits nor the task's probabilities.
    """
    ports, name = opened.ports, opened.name
    seen = _look(opened)
    notes += seen.notes
    asked = resolve(told)["task"]
    task = task_of(seen, None if asked.source == ARCHITECTURE else asked.value, name=name)
    told[ARCHITECTURE] |= {"task": task, "num_classes": 2 if task == "binary" else ports.num_outputs}
    if config.num_classes not in (None, told[ARCHITECTURE]["num_classes"]):
        raise InputError(f"--num-classes is {config.num_classes}, but {name} gives {told[ARCHITECTURE]['num_classes']}")
    values = resolve(told)
    if "labels" in values and values["labels"].source == CONFIG:
        check_labels(values["labels"].value, values["num_classes"].value, source)
    contract = contract_with(values, config)
    spec = contract.preprocess
    if (spec.num_channels, spec.image_size) != (ports.channels, ports.image_size):
        raise InputError(
            f"{name} takes {ports.channels} channels of {_sides(ports.image_size)} pixels, but the options and the "
            f"files beside it tell {spec.color} of {_sides(spec.image_size)}; set --color and --image-size"
        )
    if ports.dtype is np.uint8 and (spec.scale != "byte" or any(spec.mean) or set(spec.std) != {1.0}):
        raise InputError(f"{name} takes pixels as uint8 and normalizes them itself; omit --scale, --mean and --std")
    if seen.gives_probabilities:
        return replace(contract, output="probabilities"), values, None
    return contract, values, _FINISH[task] if contract.output == "probabilities" else None


def _look(opened: Opened) -> Seen:
    """What the model ends in, by its graph and by its numbers."""
    index = GraphIndex(opened.model.graph)
    node = index.producer(opened.ports.output_name)
    while node is not None and node.op_type in _LOOK_THROUGH:
        node = index.producer(node.input[0])
    plain = OnnxOriginal(opened.model, opened.session, opened.ports, name=opened.name)
    images = noise(opened.ports, opened.ports.batch or 2)
    activation, notes = judge_outputs(
        torch.from_numpy(plain.run(images)),
        None if node is None else _LAST.get(node.op_type),
        lambda: torch.from_numpy(plain.run(images * np.float32(STRONG))),
        what="the file",
    )
    return Seen(num_outputs=opened.ports.num_outputs, activation=activation, notes=tuple(notes), what="the file")


def _sides(size: Size) -> str:
    return str(size) if isinstance(size, int) else "x".join(map(str, size))
