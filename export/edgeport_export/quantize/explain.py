"""What each node of a quantized model loses, and where."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgeport_export.quantize.graph import layers_of
from edgeport_export.quantize.static import StaticQuantizer

if TYPE_CHECKING:
    from edgeport_export.quantize.search import Quantizer

__all__ = ["NodeCost", "explain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCost:
    """One quantized layer.

    Attributes:
        node: its name.
        op_type: its operator.
        low, high: range of its input; None where it is taken from each input as it comes.
        clipped: fraction of the input's values outside the range; None likewise.
        input_noise_db: signal to quantization noise of the input, in decibels; None likewise.
        cost_db: signal to quantization noise at the model's outputs when this layer alone is quantized, in decibels;
            the lower, the more it costs.
    """

    node: str
    op_type: str
    low: float | None
    high: float | None
    clipped: float | None
    input_noise_db: float | None
    cost_db: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; an infinite ratio (no noise at all) becomes null."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def explain(quantizer: Quantizer, costs: list[tuple[str, float]]) -> list[NodeCost]:
    """Describe layers in the order of their costs.

    Args:
        quantizer: made ready.
        costs: names of layers and what ``rank`` found for them.
    """
    if not isinstance(quantizer, StaticQuantizer):
        return [_dynamic(name, cost, quantizer) for name, cost in costs]
    nodes = {node.name: node for node in layers_of(quantizer.model, quantizer.recipe)}
    result = []
    for name, cost in costs:
        value = nodes[name].input[0]
        low, high = quantizer.ranges[value]
        seen = quantizer.histograms[value]
        result.append(
            NodeCost(
                node=name,
                op_type=nodes[name].op_type,
                low=low,
                high=high,
                clipped=seen.clipped(low, high),
                input_noise_db=seen.signal_to_noise(low, high),
                cost_db=cost,
            )
        )
    return result


def _dynamic(name: str, cost: float, quantizer: Quantizer) -> NodeCost:
    op_type = next(node.op_type for node in quantizer.model.graph.node if node.name == name)
    return NodeCost(node=name, op_type=op_type, low=None, high=None, clipped=None, input_noise_db=None, cost_db=cost)
