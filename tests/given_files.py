"""Writes small ``.onnx`` classifiers as other tools do: of any layout, type, operator set and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

NUM_CLASSES = 5
SIZE = 8


def write_net(
    path: Path,
    *,
    opset: int = 13,
    batch: int | str = "N",
    layout: str = "nchw",
    kind: int = TensorProto.FLOAT,
    size: int | None = SIZE,
    channels: int = 3,
    ending: tuple[str, ...] = (),
    rows: int | None = None,
    others: tuple[str, ...] = (),
    shuffled: bool = False,
) -> Path:
    """A convolution, a pool and a linear layer.

    Args:
        path: where to write.
        opset: ONNX operator set.
        batch: a number, or the name of a free axis.
        layout: ``nhwc`` as converters of TensorFlow write it, with a Transpose first.
        kind: type of the input.
        size: side of the image; None leaves it open.
        channels: of the input.
        ending: operators behind the linear layer.
        rows: the batch in the constant of a Reshape, as older exporters of PyTorch write it.
        others: names of further outputs, of features.
        shuffled: nodes in no order.
    """
    generator = np.random.default_rng(0)
    filters = (generator.standard_normal((8, channels, 3, 3)) / 4).astype(np.float32)
    head = (generator.standard_normal((8 * (SIZE - 2) ** 2 // 4, NUM_CLASSES)) / 4).astype(np.float32)
    weights = {"filters": filters, "bias": generator.standard_normal(8).astype(np.float32), "head": head}
    nodes = []
    value = "pixels"

    def add(operator: str, *inputs: str, to: str = "", **attributes: Any) -> None:
        nonlocal value
        made = to or f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, [value, *inputs], [made], name=f"node_{len(nodes)}", **attributes))
        value = made

    if kind != TensorProto.FLOAT:
        add("Cast", to=f"cast{len(nodes)}")
        nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    if kind == TensorProto.UINT8:
        weights["scale"] = np.full(1, 1 / 64, np.float32)
        add("Mul", "scale")
    if layout == "nhwc":
        add("Transpose", perm=[0, 3, 1, 2])
    add("Conv", "filters", "bias", kernel_shape=[3, 3])
    add("Relu")
    add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    if rows is None:
        add("Flatten", axis=1)
    else:
        weights["shape"] = np.array([rows, head.shape[0]], np.int64)
        add("Reshape", "shape")
    features = value
    add("MatMul", "head")
    for operator in ending:
        if operator == "Unsqueeze2":
            weights["ones"] = np.array([-1, NUM_CLASSES, 1, 1], np.int64)
            add("Reshape", "ones")
        else:
            add(operator)
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)]
    for name in others:
        nodes.append(helper.make_node("Identity", [features], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    sides = [channels, size, size] if layout == "nchw" else [size, size, channels]
    graph = helper.make_graph(
        nodes[::-1] if shuffled else nodes,
        "net",
        [helper.make_tensor_value_info("pixels", kind, [batch, *sides])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if opset < 9:  # as they were: weights among the inputs
        model.ir_version = 3
        for tensor in graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    path.write_bytes(model.SerializeToString())
    return path


def own_answers(path: Path, x: np.ndarray[Any, Any], output: str | None = None) -> np.ndarray[Any, Any]:
    """What ONNX Runtime gives for inputs as the file takes them, one by one where its batch is fixed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (one,) = session.get_inputs()
    pieces = [x] if isinstance(one.shape[0], str) else [x[i : i + one.shape[0]] for i in range(0, len(x), one.shape[0])]
    names = [output or session.get_outputs()[0].name]
    result: np.ndarray[Any, Any] = np.concatenate([session.run(names, {one.name: piece})[0] for piece in pieces])
    return result.reshape(len(x), -1)


def alter(path: Path, change: Any) -> Path:
    """Rewrite a file after a function has changed its model."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path
