"""An ``.onnx`` file that somebody gave: what it takes and gives, its contract, and the graph to begin with.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgeport_export.graph.index import GraphIndex, has_products, remove_unused
from edgeport_export.graph.model_file import save_model
from edgeport_export.graph.onnx_file import opset_of, read_onnx
from edgeport_export.graph.passes.strip_metadata import strip_metadata
from edgeport_export.graph.retype import WIDENED, holds, retype
from edgeport_export.graph.simplify import sign
from edgeport_export.graph.trace import Traced
from edgeport_export.parity.compare import FLOAT32_LIMITS, MAX_RELATIVE_L2, Limits
from edgeport_export.parity.onnx_original import OnnxOriginal
from edgeport_export.parity.reference import check_reference
from edgeport_export.quantize.given import Quantized, describe_quantized
from edgeport_export.source.given_contract import Opened, contract_for, input_of, notes_on_ports
from edgeport_export.source.given_fit import fit, noise
from edgeport_export.source.given_reference import read_reference
from edgeport_export.source.resolve import (
    ARCHITECTURE,
    COMMAND_LINE,
    CONTRACT_OPTIONS,
    resolve,
    sources_of,
    tell_architecture,
)
from edgeport_export.source.sidecar import tell_own_files, unused_files, weights_entry
from edgeport_export.source.subject import OWN_INPUT, check_given, command_line_of
from edgeport_models.weights import find_weights
from edgeport_runtime.bundle.manifest import CONTRACT_KEY, QUANTIZATION_KEY
from edgeport_runtime.engine.foreign import Asked
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_export.config import ExportConfig
    from edgeport_export.graph.onnx_file import GivenModel
    from edgeport_export.parity.chain import Chain
    from edgeport_export.source.resolve import Value
    from edgeport_models.weights import Source
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["GivenFile", "find_given", "is_given", "limits_of"]

_FLOAT16_LIMITS = Limits(relative_l2=5e-3, agreement=0.0, over="images")  # as of a variant in float16
_REFERENCE_LIMITS = Limits(relative_l2=MAX_RELATIVE_L2, agreement=1.0)  # another framework orders its additions freely
_QUANTIZED_LIMITS = Limits(relative_l2=0.1, agreement=0.0, over="images")  # as of a variant in int8
_IN_GRAPH_OPSET = 18  # of Resize with antialiasing
_PLAIN_NAME = 60  # characters of a producer's name


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenFile:
    """What is exported; the attributes that ``Subject`` has too mean the same.

    Attributes:
        original: the file as its author wrote it, in float32.
        model: with EdgePort's input and output.
        opset: of the bundle's models; ``model`` is in a later one where that is older than PyTorch writes.
        quantized: how it came quantized; None for floats.
        num_params: numbers in its float weights.
        float16: the file as it is, where it has float16; ``original`` computes that in float32.
        reference: the file that somebody gave to compare with, and its inputs and outputs.
    """

    name: str
    source: str
    contract: Contract
    weights: dict[str, Any]
    sources: dict[str, str]
    options: dict[str, str | bool] = field(default_factory=dict)
    notes: tuple[str, ...]
    original: OnnxOriginal = field(repr=False)
    model: onnx.ModelProto = field(repr=False)
    opset: int
    quantized: Quantized | None
    num_params: int
    float16: OnnxOriginal | None = field(repr=False)
    reference: tuple[Path, NDArray[np.float32], NDArray[np.float32]] | None = field(repr=False)

    def write(self, path: Path) -> Traced:
        """Write the model as the graph that the export begins with."""
        save_model(self.model, path, check=True, keep=True)
        return Traced(
            path=path,
            program=None,
            op_types=tuple(node.op_type for node in self.model.graph.node),
            opset=opset_of(self.model),
            is_rewritten=not has_products(self.model.graph),
        )

    def write_as_it_is(self, path: Path) -> None:
        """Write a quantized model with its contract, and nothing else changed."""
        assert self.quantized is not None
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        strip_metadata(model)
        told = {key: self.quantized.details[key] for key in ("scheme", "target")}
        sign(model, self.contract, **{QUANTIZATION_KEY: json.dumps(told, separators=(",", ":"))})
        save_model(model, path, check=True)

    def check_original(self, chain: Chain) -> None:
        """Compare the original with its float16 self, and with what its author says that it gives.

        Raises:
            ParityError: if it departs.
        """
        if self.float16 is not None:
            images = chain.images
            expected_BK = np.concatenate([self.float16.run(batch) for batch in images])
            ours_BK = chain.reference_BK[: len(expected_BK)]
            source = f"{self.original.name} as float16"
            chain.check_reference("float16", ours_BK, expected_BK, limits=_FLOAT16_LIMITS, source=source)
        if self.reference is not None:
            path, inputs_BCHW, expected_BK = self.reference
            limits = _REFERENCE_LIMITS if self.quantized is None else _QUANTIZED_LIMITS
            ours_BK = self.original.run(inputs_BCHW)
            chain.check_reference("reference", ours_BK, expected_BK, limits=limits, source=str(path))


def is_given(config: ExportConfig) -> bool:
    """Whether an export is of an ``.onnx`` file."""
    return (config.architecture or "").endswith(".onnx")


def limits_of(given: GivenFile) -> Limits:
    """What the stages of a file must meet before any variant is made of it."""
    return FLOAT32_LIMITS if given.quantized is None else _QUANTIZED_LIMITS


def find_given(config: ExportConfig) -> GivenFile:
    """Read the file, and find what is to be known of it.

    Raises:
        InputError: if the file or an option cannot be used, naming what to add or change.
        ExportError: if it is not the float or quantized network of a classifier.
    """
    check_given(config)
    command_line = command_line_of(config)
    given = read_onnx(Path(config.architecture or ""))
    name = given.path.name
    if any(entry.key == CONTRACT_KEY for entry in given.model.metadata_props):
        raise InputError(
            f"{name} was written by EdgePort, and its input would have to be told anew; run-model takes it as it is; "
            "for other variants or options, export the network again that it came from"
        )
    notes = _choose_output(given.model, config.output_name, name)
    quantized = _quantized(given.model, config, name)
    source = find_weights(given.path)
    beside = tell_own_files(source, OWN_INPUT, set(command_line))
    is_half = quantized is None and holds(given.model, onnx.TensorProto.FLOAT16)
    model = retype(given.model, WIDENED) if is_half else given.model
    asked = Asked(config.input_name, config.output_name, config.input_layout, config.image_size)
    size = resolve({ARCHITECTURE: tell_architecture(OWN_INPUT), **beside})["image_size"]
    asked = asked._replace(default_size=None if size.source == ARCHITECTURE else size.value)
    opened = Opened(model, asked, name)
    told = {ARCHITECTURE: tell_architecture(input_of(opened.ports)), **beside, COMMAND_LINE: command_line}
    notes += notes_on_ports(opened.ports, told, is_half=is_half)
    contract, values, finish = contract_for(opened, told, config, source, notes)
    runs_alone = quantized is not None and quantized.runs_alone
    original = OnnxOriginal(model, opened.session, opened.ports, name=name, finish=finish, runs_alone=runs_alone)
    few = noise(opened.ports, opened.ports.batch or contract.batch or 3)
    answers_BK = original.run(few)
    check_reference(answers_BK, contract, num_images=0, what=original.what)
    original.check_rows([few], [answers_BK], replace(contract, batch=opened.ports.batch or contract.batch))
    fitted = fit(model, opened.ports, contract, original, finish, config, is_quantized=quantized is not None)
    _check_in_graph(fitted.opset, config, name)
    float16 = None
    if is_half:
        half = Opened(given.model, asked, name)
        float16 = OnnxOriginal(given.model, half.session, half.ports, name=name, finish=finish)
    reference = None
    if config.reference is not None:
        reference = (config.reference, *read_reference(config.reference, opened.ports, fitted.contract))
    return GivenFile(
        name=given.path.stem,
        source=_source_of(given),
        contract=fitted.contract,
        weights=_weights(given, source, values),
        sources=sources_of(values, *CONTRACT_OPTIONS),
        notes=(*notes, *fitted.notes),
        original=original,
        model=fitted.model,
        opset=fitted.opset,
        quantized=quantized,
        num_params=_num_params(model),
        float16=float16,
        reference=reference,
    )


def _quantized(model: onnx.ModelProto, config: ExportConfig, name: str) -> Quantized | None:
    quantized = describe_quantized(model)
    if quantized is not None and config.quantize:
        raise InputError(
            f"{name} is quantized already, and is bundled as it is; omit --quantize, or give the float model"
        )
    return quantized


def _check_in_graph(opset: int, config: ExportConfig, name: str) -> None:
    if not config.bundle_options.has_in_graph or opset >= _IN_GRAPH_OPSET:
        return
    if opset == config.opset:
        raise InputError(
            f"preprocessing in the graph needs opset {_IN_GRAPH_OPSET}, but --opset is {opset}; use --opset "
            f"{_IN_GRAPH_OPSET} or later, or omit --preprocess in-graph and --script c"
        )
    raise InputError(
        f"preprocessing in the graph needs opset {_IN_GRAPH_OPSET}, and {name} stays in opset {opset}; omit "
        "--preprocess in-graph and --script c"
    )


def _choose_output(model: onnx.ModelProto, wanted: str | None, name: str) -> list[str]:
    """Leave the wanted output alone, and what it depends on; inputs that nothing reads are gone in any case."""
    outputs = [value.name for value in model.graph.output]
    if wanted in outputs and len(outputs) > 1:
        kept = [value for value in model.graph.output if value.name == wanted]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        remove_unused(model)
    index = GraphIndex(model.graph)
    unread = [value.name for value in model.graph.input if not index.consumers(value.name)]
    read = [value for value in model.graph.input if value.name not in unread]
    if not read:
        raise InputError(f"{name} gives the same whatever its input is, which no node reads; export the network again")
    del model.graph.input[:]
    model.graph.input.extend(read)
    return [f"nothing reads the inputs {', '.join(unread)}, which are left out"] if unread else []


def _weights(given: GivenModel, source: Source, values: dict[str, Value]) -> dict[str, Any]:
    entry = weights_entry(source, layout=None, notes=unused_files(source, values, layout=None))
    return {**entry, "source": "onnx", **({"data": given.data} if given.data else {})}


def _source_of(given: GivenModel) -> str:
    model = given.model
    words = f"{model.producer_name} {model.producer_version}".split()
    producer = "".join(c for c in " ".join(words) if c.isprintable())[:_PLAIN_NAME]
    return f"an ONNX file{f' by {producer}' if producer else ''}, opset {opset_of(model)}"


def _num_params(model: onnx.ModelProto) -> int:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return sum(
        math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floats and tensor.dims
    )
