"""The region that speaks for an answer, as a second output of a graph; and the features, as its only one.

Shapes: B batch, C channels, h w of the map, D features, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from onnx import TensorProto, helper

from edgeport_export.graph.adder import Adder
from edgeport_export.graph.head import find_features, gradient_of_head
from edgeport_export.graph.index import check_graph, remove_unused, sort_nodes
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.graph.outcome import Left
from edgeport_export.graph.rollout import roll_out
from edgeport_export.graph.shapes import infer_shapes
from edgeport_runtime.engine.side import EVIDENCE_NAME, FEATURES_NAME, SEED_NAME

if TYPE_CHECKING:
    import onnx

    from edgeport_runtime.bundle.side_files import Method

__all__ = ["Found", "add_evidence", "keep_features"]


class Found(NamedTuple):
    """What a graph's map is.

    Attributes:
        method: how it is made.
        sides: h, w.
    """

    method: Method
    sides: tuple[int, int]


def add_evidence(model: onnx.ModelProto) -> Found:
    """Add the output ``evidence`` (B, h, w) float32, and for a map of a class the input ``seed`` (B, K) float32.

    With the last feature map A, the gradient G of ``sum_k seed_k logit_k`` there, and its sum g over the positions:

    - ``cam``, where the head is the mean over all positions and a linear layer: ``sum_c g_c A_c``, which is the class
      activation map (Zhou et al. 2016, "Learning deep features for discriminative localization", Equation 2). Its mean
      and the layer's bias add up to the logit.
    - ``grad-cam``, for other heads: ``relu(sum_c mean(G_c) A_c)`` (Selvaraju et al. 2017, "Grad-CAM", Equations 1, 2).
    - ``attention-rollout``, where no feature map reaches the outputs, for transformers
      (``roll_out``); it is the same for all classes.

    Args:
        model: changed in place; weights may be elsewhere.

    Returns:
        What was added.

    Raises:
        Left: with the reasons, if none of these fits.
    """
    graph = model.graph
    shapes = infer_shapes(model)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    num_outputs = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    adder = Adder(graph)
    try:
        gradient = gradient_of_head(graph, shapes, SEED_NAME, opset_of(model), adder)
    except Left as no_map:
        adder = Adder(graph)
        try:
            rollout = roll_out(graph, shapes, adder)
        except Left as no_rollout:
            raise Left(f"{no_map}; {no_rollout}") from None
        found, value = Found("attention-rollout", rollout.sides), rollout.flow
    else:
        height, width = gradient.sides
        maps = adder.floats(gradient.features)
        if gradient.is_last:
            weighed = [adder.reshape(maps, 0, -1, gradient.num_channels), adder.reshape(gradient.weights, 0, -1, 1)]
        else:
            weighed = [adder.reshape(gradient.weights, 0, 1, -1), adder.reshape(maps, 0, 0, -1)]
        value = adder.reshape(adder.node("MatMul", weighed), 0, height, width)
        if not gradient.is_exact:
            value = adder.node("Relu", [adder.node("Div", [value, adder.number(height * width)])])
        found = Found("cam" if gradient.is_exact else "grad-cam", gradient.sides)
        graph.input.append(helper.make_tensor_value_info(SEED_NAME, TensorProto.FLOAT, [None, num_outputs]))
        graph.input[-1].type.tensor_type.shape.dim[0].CopyFrom(batch)
    adder.finish(value, EVIDENCE_NAME)
    graph.output.append(helper.make_tensor_value_info(EVIDENCE_NAME, TensorProto.FLOAT, [None, *found.sides]))
    graph.output[-1].type.tensor_type.shape.dim[0].CopyFrom(batch)
    sort_nodes(graph)
    check_graph(model)
    return found


def keep_features(model: onnx.ModelProto) -> int:
    """Let the graph end before its last linear layer, in the output ``features`` (B, D) float32.

    Args:
        model: changed in place; weights may be elsewhere.

    Returns:
        D.

    Raises:
        Left: with the reason, if the graph does not end in a linear layer over one row per image.
    """
    graph = model.graph
    name = find_features(graph)
    shape = infer_shapes(model).get(name, ())
    if len(shape) != 2:
        raise Left(f"its last linear layer reads {shape or 'values of unknown shape'}, not one row per image")
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    adder = Adder(graph)
    adder.finish(adder.floats(name), FEATURES_NAME)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(FEATURES_NAME, TensorProto.FLOAT, [None, shape[1]]))
    graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(batch)
    remove_unused(model)
    check_graph(model)
    return shape[1]
