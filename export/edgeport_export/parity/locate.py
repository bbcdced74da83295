"""Finds the node of a failed stage that departs first from PyTorch, by one run with every intermediate value."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import torch

from edgeport_export.graph.index import GraphIndex
from edgeport_export.graph.model_file import save_model
from edgeport_export.parity.float64 import NOT_IN_FLOAT64
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.engine.session import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["first_departure", "first_inexact", "values_of_program"]

Record: TypeAlias = "Callable[[str], dict[str, NDArray[Any]]]"

_TOLERANCE = 1e-3  # far above what the order of additions changes in one network, far below a wrong weight's effect


def first_departure(record: Record, path: Path, x_BCHW: NDArray[np.float32]) -> str | None:
    """Compare values of the same name in the original and in a graph.

    Args:
        record: gives the original's values on that input by their names; it is told what the graph's output is called.
        path: the failed stage's ``.onnx``.
        x_BCHW: an input on which the stage failed.

    Returns:
        Name and operator of the first node whose value departs and after which everything that depends on it departs
        too (a value that a fusion gave another meaning is followed by ones that agree). Nodes just before it that have
        no counterpart in the original may be to blame as well, and are named with it. None if there is none.
    """
    model = onnx.load(path)
    expected = record(model.graph.output[0].name)
    actual = _run_with_intermediates(model, x_BCHW, wanted=set(expected), beside=path.parent)
    departs = {name: _differs(actual[name], expected[name]) for name in actual}
    index = GraphIndex(model.graph)
    # From the outputs back: a node is suspect if no compared value that depends on it agrees again.
    recovers: dict[str, bool] = {}
    for node in reversed(model.graph.node):
        for name in node.output:
            following = [output for consumer in index.consumers(name) for output in consumer.output]
            recovers[name] = any(departs.get(f) is False or recovers[f] for f in following)
    for node in model.graph.node:
        if any(departs.get(name) and not recovers[name] for name in node.output):
            suspects = [node]
            for suspect in suspects:
                unseen = (index.producer(name) for name in suspect.input if name not in departs)
                suspects += [producer for producer in unseen if producer is not None and producer not in suspects]
            return ", ".join(f"{suspect.name} ({suspect.op_type})" for suspect in reversed(suspects))
    return None


def values_of_program(
    program: torch.export.ExportedProgram, x_BCHW: NDArray[np.float32], *, output: str
) -> dict[str, NDArray[Any]]:
    """Every value of PyTorch's captured program by its name; its output is called ``output``."""
    return _Recorder(program).record(torch.from_numpy(x_BCHW), output=output)


def first_inexact(program: torch.export.ExportedProgram, x_BCHW: NDArray[np.float32]) -> str | None:
    """Name the node of a captured program where float32 departs from float64; its weights are in float64 afterwards.

    Args:
        program: what PyTorch captured.
        x_BCHW: the input on which it departs.

    Returns:
        Name and operator of the first such node; None if there is none, or the program does not run in float64.
    """
    operators = {node.name: str(node.target) for node in program.graph.nodes}
    values = []
    for dtype in (torch.float32, torch.float64):
        recorder = _Recorder(program, dtype)
        try:
            values.append(recorder.record(torch.tensor(x_BCHW, dtype=dtype)))
        except NOT_IN_FLOAT64:
            return None
    single, double = values
    first = next((name for name, value in single.items() if _differs(value, double[name])), None)
    return None if first is None else f"{first} ({operators.get(first, 'call')})"


class _Recorder(torch.fx.Interpreter):
    """Runs a captured program and keeps the value of every node by name."""

    def __init__(self, program: torch.export.ExportedProgram, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(program.module().to(dtype))
        self._values: dict[str, NDArray[Any]] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            self._values[n.name] = value.detach().numpy().copy()
        return value

    def record(self, x_BCHW: torch.Tensor, *, output: str | None = None) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            self.run(x_BCHW)
        if output is not None:  # the graph's output carries a name of ours
            for node in self.graph.output_node().all_input_nodes:
                self._values[output] = self._values[node.name]
        return self._values


def _run_with_intermediates(
    model: onnx.ModelProto, x_BCHW: NDArray[np.float32], *, wanted: set[str], beside: Path
) -> dict[str, NDArray[Any]]:
    ort = import_onnxruntime()
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    outputs = {value.name for value in probed.graph.output}
    for node in probed.graph.node:
        for name in node.output:
            if name in wanted and name not in outputs:
                probed.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        path = Path(folder) / "probed.onnx"
        save_model(probed, path, check=False)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {
        name: value
        for name, value in zip(names, session.run(names, {INPUT_NAME: x_BCHW}), strict=True)
        if name in wanted
    }


def _differs(value: NDArray[Any], expected: NDArray[Any]) -> bool:
    if value.shape != expected.shape:
        return True
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    distance = float(np.linalg.norm(value.astype(np.float64) - expected))
    return not distance <= _TOLERANCE * norm
