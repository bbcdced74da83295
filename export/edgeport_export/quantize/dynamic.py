"""Dynamic quantization: weights of linear layers in int8, ranges of their inputs from each input as it comes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgeport_export.quantize.graph import layers_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgeport_export.quantize.recipes import Recipe

__all__ = ["DynamicQuantizer"]


class DynamicQuantizer:
    """A float model from which any choice of its linear layers can be quantized.

    Args:
        model: float, with its weights inside.
        recipe: how.
    """

    def __init__(self, model: onnx.ModelProto, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe

    def layers(self) -> list[str]:
        """Names of the nodes that can be quantized, in the graph's order."""
        return [node.name for node in layers_of(self.model, self.recipe)]

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with these of its layers in int8."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            source = onnx.ModelProto()
            source.CopyFrom(self.model)  # the quantizer changes what it is given
            logging.disable(logging.WARNING)  # it logs to the root logger
            try:
                quantize_dynamic(
                    source,
                    path,
                    op_types_to_quantize=list(self.recipe.layers),
                    per_channel=True,
                    reduce_range=self.recipe.num_weight_bits == 7,
                    weight_type=QuantType.QInt8,
                    nodes_to_quantize=[*layers, *(f"{name}_MatMul" for name in layers)],  # so it renames a Gemm
                    extra_options={"MatMulConstBOnly": True},
                )
            finally:
                logging.disable(logging.NOTSET)
            return onnx.load(path)
