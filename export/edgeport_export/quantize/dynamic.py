"""Dynamic quantization: the weights of linear layers in int8, and the ranges of their inputs taken from each input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import QuantizationMode, QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

from edgeport_export.graph.passes.fuse_attention import fuse_attention
from edgeport_export.quantize.graph import layers_of
from edgeport_export.quantize.quiet import quiet_logging

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgeport_export.quantize.recipes import Recipe

__all__ = ["DynamicQuantizer"]


class DynamicQuantizer:
    """A float model from which any choice of its linear layers can be quantized.

    Args:
        model: float, with its weights and shapes inside, and marked by ``mark_inferred``.
        recipe: how.

    Attributes:
        notes: what ``fuse_attention`` changed in the last quantized model, and why it left what it left.
    """

    def __init__(self, model: onnx.ModelProto, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe
        self.notes: tuple[str, ...] = ()

    def layers(self) -> list[str]:
        """Names of the nodes that can be quantized, in the graph's order."""
        return [node.name for node in layers_of(self.model, self.recipe)]

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with these of its layers in int8."""
        source = onnx.ModelProto()
        source.CopyFrom(self.model)  # the quantizer changes what it is given
        quantizer = ONNXQuantizer(
            source,
            True,  # per channel
            self.recipe.num_weight_bits == 7,
            QuantizationMode.IntegerOps,
            False,  # not static
            QuantType.QInt8,
            QuantType.QUInt8,
            None,
            [*layers, *(f"{name}_MatMul" for name in layers)],  # so it renames a Gemm
            [],
            list(self.recipe.layers),
            {"MatMulConstBOnly": True},
        )
        with quiet_logging():
            quantizer.quantize_model()
        quantized: onnx.ModelProto = quantizer.model.model
        if self.recipe.fuses_attention:
            quantizer.model.topological_sort()  # nodes are appended
            self.notes = tuple(fuse_attention(quantized).notes(fuse_attention.__name__))
        return quantized
