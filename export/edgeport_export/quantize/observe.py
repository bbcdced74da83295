"""What a float model's activations are like on calibration images, in passes whose memory does not grow with them.

Shapes: B batch, C channels, H W image, O outputs of a layer, I inputs of one of its outputs, R sampled rows.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgeport_export.graph.index import attribute
from edgeport_export.graph.model_file import save_model
from edgeport_export.quantize.histogram import Histogram
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.engine.session import INPUT_NAME
from edgeport_runtime.errors import InputError, QuantizeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from edgeport_export.quantize.calibration import CalibrationImages

__all__ = ["Observations", "observe", "run_with"]

_BATCH = 2  # every activation of a batch is in memory at once
_MAX_SAMPLES = 2**13  # of each tensor per image: histograms of more values look the same
_MAX_INPUTS = 4608  # of a layer whose second moments are kept: 81 MB for the largest
_ROWS_PER_INPUT = 2
_NUM_GATHERED = 256  # rows before a product: of a few rows it costs as much


@dataclass(frozen=True, kw_only=True, slots=True)
class Observations:
    """What the passes saw.

    Attributes:
        histograms: of each value by name.
        channel_maxima: largest absolute value of each channel (C,) of each value with channels.
        moments: of each layer by its node's name, the second moments of its inputs (I, I), summed over sampled rows.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    channel_maxima: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    moments: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def observe(
    model: onnx.ModelProto, names: Sequence[str], layers: Sequence[onnx.NodeProto], images: CalibrationImages
) -> Observations:
    """Run the float model on every image once.

    Args:
        model: with its weights inside.
        names: values to observe.
        layers: nodes whose inputs' second moments are wanted; their first input is among ``names``.
        images: what to run on.

    Raises:
        InputError: if too many images cannot be read, or none is left.
        QuantizeError: if a value is NaN or infinite.
    """
    seen = Observations(histograms={name: Histogram() for name in names})
    gathered: dict[str, list[NDArray[np.float32]]] = {}
    sizes = {t.name: t.dims for t in model.graph.initializer}
    sampled = [n for n in layers if (size := _num_inputs(n, sizes)) is not None and size <= _MAX_INPUTS]
    generator = np.random.default_rng(0)
    num_images = 0
    for x_BCHW, values in run_with(model, names, images.batches(_BATCH)):
        num_images += len(x_BCHW)
        for name, value in values.items():
            _count(seen, name, value)
        for node in sampled:
            num_inputs = _num_inputs(node, sizes) or 0
            wanted = -(-_ROWS_PER_INPUT * num_inputs // len(images)) * len(x_BCHW)
            rows_RI = _rows(node, values[node.input[0]], sizes[node.input[1]], wanted, generator)
            gathered.setdefault(node.name, []).append(rows_RI)
            if sum(map(len, gathered[node.name])) >= _NUM_GATHERED:
                _add_moment(seen, node.name, gathered.pop(node.name))
    for name, parts in gathered.items():
        _add_moment(seen, name, parts)
    if not num_images:
        raise InputError("--calibration: none of the images could be read")
    return seen


def _add_moment(seen: Observations, name: str, parts: list[NDArray[np.float32]]) -> None:
    rows_RI = np.concatenate(parts)
    moment_II = rows_RI.T @ rows_RI
    if name in seen.moments:
        seen.moments[name] += moment_II
    else:
        seen.moments[name] = moment_II


def run_with(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[NDArray[np.float32]]
) -> Iterable[tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]]:
    """Run a model on batches and give each with the values of those names."""
    ort = import_onnxruntime()
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    outputs = {value.name for value in probed.graph.output}
    computed = [name for name in names if name != INPUT_NAME]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in outputs)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # numpy needs the cores between runs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probed.onnx"
        save_model(probed, path, check=False)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    del probed
    for x_BCHW in batches:
        values = dict(zip(computed, session.run(computed, {INPUT_NAME: x_BCHW}), strict=True)) if computed else {}
        if INPUT_NAME in names:
            values[INPUT_NAME] = x_BCHW
        yield x_BCHW, values


def _count(seen: Observations, name: str, value: NDArray[np.float32]) -> None:
    flat = value.ravel()
    step = max(1, flat.size // (_MAX_SAMPLES * len(value))) | 1  # odd: an even step could always hit the same column
    try:
        seen.histograms[name].add(flat[::step], low=float(flat.min()), high=float(flat.max()))
    except QuantizeError as error:
        raise QuantizeError(f"activation {name}: {error}") from None
    if value.ndim in (2, 4):
        maxima_C = np.abs(value).max(axis=tuple(i for i in range(value.ndim) if i != 1))
        seen.channel_maxima[name] = np.maximum(seen.channel_maxima.get(name, 0), maxima_C)


def _num_inputs(node: onnx.NodeProto, sizes: dict[str, Sequence[int]]) -> int | None:
    """Inputs of one output of a layer; None for a convolution in groups, whose outputs have different ones."""
    shape = sizes[node.input[1]]
    if node.op_type == "Conv":
        return None if attribute(node, "group", [1]) != [1] or len(shape) != 4 else int(np.prod(shape[1:]))
    return int(shape[1] if node.op_type == "Gemm" and attribute(node, "transB", [0]) == [1] else shape[0])


def _rows(
    node: onnx.NodeProto, value: NDArray[np.float32], shape: Sequence[int], wanted: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Inputs (R, I) of a layer at sampled places."""
    if node.op_type != "Conv":
        rows_RI = value.reshape(-1, value.shape[-1])
        chosen = generator.choice(len(rows_RI), min(wanted, len(rows_RI)), replace=False)
        return rows_RI[chosen]
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    (stride_y, stride_x), (step_y, step_x) = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    padded = np.pad(value, ((0, 0), (0, 0), (top, bottom), (left, right)))
    extent_y, extent_x = (shape[2] - 1) * step_y + 1, (shape[3] - 1) * step_x + 1
    rows = (padded.shape[2] - extent_y) // stride_y + 1
    columns = (padded.shape[3] - extent_x) // stride_x + 1
    places = generator.choice(len(value) * rows * columns, min(wanted, len(value) * rows * columns), replace=False)
    image, rest = np.divmod(places, rows * columns)
    y, x = np.divmod(rest, columns)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (extent_y, extent_x), axis=(2, 3))
    patches = windows[image, :, y * stride_y, x * stride_x, ::step_y, ::step_x]
    return np.ascontiguousarray(patches).reshape(len(places), -1)
