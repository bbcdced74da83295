"""From a PyTorch module to an ONNX graph, by torch.export."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from edgeport_export.user_lines import line_of_node, user_line
from edgeport_runtime.engine.session import INPUT_NAME
from edgeport_runtime.errors import ExportError, TraceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["Traced", "trace"]

# A batch of 1 is specialised away: ViT came out with 1 baked into a Reshape.
_TRACE_BATCH = 2
_UNTRANSLATED = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_DATA_DEPENDENT = "data-dependent expression"


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """The graph that an export begins with.

    Attributes:
        path: the ``.onnx`` file, its weights beside it.
        program: what PyTorch captured; its node names are the graph's value names. None where the graph came as a file.
        op_types: operator of every node of the graph.
        opset: of the graph.
        is_rewritten: onnxsim's rewrites help it. In a ViT they turn MatMul and Add into Gemm with Reshapes and
            com.microsoft operators, slower and tied to one engine.
    """

    path: Path
    program: torch.export.ExportedProgram | None
    op_types: tuple[str, ...]
    opset: int
    is_rewritten: bool


def trace(module: nn.Module, contract: Contract, *, opset: int, path: Path) -> Traced:
    """Export with torch.onnx (dynamo) into a file, the batch dynamic unless the contract fixes it.

    Args:
        module: in evaluation mode.
        contract: gives the input's shape.
        opset: ONNX operator set.
        path: where to write; the weights go into a second file beside it.

    Raises:
        TraceError: if PyTorch cannot capture the module, or not in that opset.
        ExportError: if the file cannot be written.
    """
    example_BCHW = torch.zeros(contract.batch or _TRACE_BATCH, *contract.input_shape)
    dynamic_shapes = ({0: torch.export.Dim("batch")},) if contract.batch is None else None
    with _quiet(), _without_gc(), _AttentionIn4d():
        try:
            program = torch.onnx.export(
                module,
                (example_BCHW,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=dynamic_shapes,
                input_names=[INPUT_NAME],
                output_names=[contract.output],
                verbose=False,
            )
        except Exception as error:  # whatever the user's module raises, and the exporter's own errors
            raise TraceError(_explain(error, module, example_BCHW, dynamic_shapes)) from error
        if program is None or program.exported_program is None:
            raise TraceError("PyTorch returned no graph for the module")
        if contract.batch is None and isinstance(_batch_of(program), int):
            raise TraceError(
                "the batch size is fixed in the graph, because the module's code makes a number of it; use x.shape[0] "
                "or -1 where it says len(x), loops over the images or compares their number, or fix it with --batch 1"
            )
        actual = program.model.opset_imports.get("", 0)
        if actual != opset:
            raise TraceError(
                f"this network cannot be written in opset {opset}: PyTorch wrote opset {actual}; use --opset {actual}"
            )
        try:
            program.save(path, external_data=True)
        except OSError as error:  # numpy writes the weights, and its error lacks the system's reason
            raise ExportError(
                f"cannot write the traced graph beside the output (is the disk full?): {error}"
            ) from error
    op_types = tuple(node.op_type for node in program.model.graph.all_nodes())
    return Traced(
        path=path,
        program=program.exported_program,
        op_types=op_types,
        opset=opset,
        is_rewritten="MatMul" not in op_types,
    )


class _AttentionIn4d(TorchFunctionMode):
    """Brings attention of more or fewer than four dimensions to four, the only ones that torch.onnx translates."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(_ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
        return func(**given) if given["query"].ndim == 4 else _attend_in_4d(**given)


def _attend_in_4d(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """The axes before the last three become one; where there are fewer than four, axes of 1 are put before them."""
    shapes = [x.shape[:-2] for x in (query, key, value)]
    lead = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]

    def in_4d(x: torch.Tensor) -> torch.Tensor:
        x = x.expand(*lead, *x.shape[-2:])
        return x.flatten(0, -4) if x.ndim > 4 else x.reshape(*[1] * (4 - x.ndim), *x.shape)

    if attn_mask is not None and attn_mask.ndim > 2:
        attn_mask = in_4d(attn_mask)
    result = scaled_dot_product_attention(in_4d(query), in_4d(key), in_4d(value), attn_mask, **options)
    return result.reshape(*lead, *result.shape[-2:])


def _batch_of(program: torch.onnx.ONNXProgram) -> object:
    """A number where PyTorch froze the batch, otherwise a symbol."""
    shape = program.model.graph.inputs[0].shape
    return None if shape is None else shape[0]


def _explain(error: Exception, module: nn.Module, example_BCHW: torch.Tensor, dynamic_shapes: Any) -> str:
    """What could not be traced, and where in the user's source."""
    causes = [error, *_causes(error)]
    text = "\n".join(str(cause) for cause in causes)
    untranslated = _UNTRANSLATED.search(text)
    if untranslated is not None:
        # The error names the operator; only the captured program knows which line that came from.
        program = torch.export.export(module, (example_BCHW,), dynamic_shapes=dynamic_shapes, strict=False)
        operator = untranslated[1].rpartition(".")[2]
        lines = [line_of_node(node) for node in program.graph.nodes if operator in str(node.target)]
        where = f" (at {lines[0]})" if lines and lines[0] else ""
        return f"the operator {untranslated[1]} has no counterpart in ONNX{where}; replace it in the module"
    line = user_line(error)
    place = f" (at {line})" if line else ""
    if _DATA_DEPENDENT in text:
        return (
            f"the module's control flow depends on the values of its input{place}, which a graph cannot hold; "
            "compute both sides and choose with torch.where"
        )
    reason = str(causes[1] if len(causes) > 1 else error).strip().splitlines() or [type(error).__name__]
    return f"PyTorch could not trace the module: {reason[0]}{place}"


def _causes(error: BaseException) -> list[BaseException]:
    cause = error.__cause__
    return [] if cause is None else [cause, *_causes(cause)]


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Tracing makes millions of small objects that live on; searching them for garbage took an eighth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back notes of torch and onnxscript that a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
