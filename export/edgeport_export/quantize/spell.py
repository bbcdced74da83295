"""Says an operator that ONNX Runtime has in float alone by operators that it has in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeport_export.graph.index import GraphIndex

if TYPE_CHECKING:
    from collections.abc import Set

__all__ = ["GATE", "add_instead", "spell_out"]

GATE = (0.0, 1.0)
"""The range of a hard sigmoid; 8 bits that hold it and no more cut off what it cuts off."""
_SIXTH, _HALF = 1 / 6, 0.5  # a hard swish's


def spell_out(model: onnx.ModelProto, nodes: Set[str], ranges: dict[str, tuple[float, float]]) -> list[str]:
    """Write HardSwish as a product with HardSigmoid, and the mean over height and width as a pool, in place.

    Args:
        model: float.
        nodes: those that will run in int8; others stay as they are.
        ranges: the ranges of new values are added.

    Returns:
        Names of the nodes that will run in int8 now.
    """
    written: list[onnx.NodeProto] = []
    names: list[str] = []
    for node in model.graph.node:
        if node.name in nodes and node.op_type == "HardSwish":
            gate = f"{node.output[0]}/gate"
            ranges[gate] = GATE
            model.graph.value_info.append(helper.make_tensor_value_info(gate, onnx.TensorProto.FLOAT, None))
            made = [
                helper.make_node("HardSigmoid", node.input, [gate], name=gate, alpha=_SIXTH, beta=_HALF),
                helper.make_node("Mul", [node.input[0], gate], node.output, name=node.name),
            ]
        elif node.name in nodes and node.op_type == "ReduceMean":
            made = [helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name)]
        else:
            written.append(node)
            names += [node.name] if node.name in nodes else []
            continue
        written += made
        names += [new.name for new in made]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in written]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return names


def add_instead(model: onnx.ModelProto) -> None:
    """Let each quantized HardSigmoid be an addition, in place: its slope goes into the scale that its input has there.

    The output's range is ``GATE``, so that its 8 bits saturate where the operator does.
    """
    index = GraphIndex(model.graph)
    made: list[onnx.NodeProto] = []
    for node in model.graph.node:
        restored = index.producer(node.input[0], "DequantizeLinear") if node.op_type == "HardSigmoid" else None
        if restored is None:
            made.append(node)
            continue
        values = {a.name: a.f for a in node.attribute}
        scale, zero = (index.constant(name) for name in restored.input[1:3])
        assert scale is not None
        assert zero is not None
        last, base = np.iinfo(zero.dtype).max, node.output[0]
        constants = {
            "slope": np.float32(scale * np.float32(values.get("alpha", 0.2))),
            "half": np.array(last, zero.dtype),
            "scale": np.float32(values.get("beta", 0.5) / last),
            "zero": np.array(0, zero.dtype),
        }
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{base}/{name}"))
        steep = [restored.input[0], f"{base}/slope", restored.input[2]]
        half = [f"{base}/half", f"{base}/scale", f"{base}/zero"]
        made += [
            helper.make_node("DequantizeLinear", steep, [f"{base}/steep"], name=f"{node.name}/steep"),
            helper.make_node("DequantizeLinear", half, [f"{base}/shift"], name=f"{node.name}/shift"),
            helper.make_node("Add", [f"{base}/steep", f"{base}/shift"], node.output, name=node.name),
        ]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del model.graph.node[:]
    model.graph.node.extend(kept)
