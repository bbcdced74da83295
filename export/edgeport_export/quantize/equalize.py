"""Cross-layer equalization: a channel is scaled down in one layer and up in the next, where nothing else sees it.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", Section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_export.graph.index import GraphIndex, attribute

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from edgeport_export.quantize.observe import Observations

__all__ = ["Pair", "equalize", "find_pairs"]

_COMMUTES = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool")  # with a positive factor of each channel
_MAX_IMBALANCE = 8.0


class Pair(NamedTuple):
    """Two layers, and the value between them that is quantized."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    between: str


def find_pairs(model: onnx.ModelProto, layers: Sequence[onnx.NodeProto]) -> list[Pair]:
    """Layers whose output reaches one other layer only, through nothing that changes with a channel's scale."""
    names = {node.name for node in layers}
    index = GraphIndex(model.graph)
    pairs = []
    for first in layers:
        if not _is_plain(first) or not all(index.is_used_once(name) for name in first.input[1:]):
            continue
        value = first.output[0]
        while (second := index.sole_consumer(value)) is not None and second.op_type in _COMMUTES:
            value = second.output[0]
        if second is None or second.name not in names:
            continue
        if first.op_type == second.op_type and _is_plain(second) and index.is_used_once(second.input[1]):
            pairs.append(Pair(first, second, value))
    return pairs


def equalize(model: onnx.ModelProto, pairs: Sequence[Pair], seen: Observations) -> list[str]:
    """Scale the channels of pairs whose activations differ more than eightfold, in place; the function is unchanged.

    Returns:
        Names of the first layers of the pairs that were changed.
    """
    index = GraphIndex(model.graph)
    changed = []
    for pair in pairs:
        factor_C = _factors(pair, index, seen.channel_maxima[pair.between])
        if factor_C is None:
            continue
        changed.append(pair.first.name)
        for name in pair.first.input[1:]:
            values = index.constant(name)
            assert values is not None
            index.replace_constant(name, (values / factor_C.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32))
        weight = index.constant(pair.second.input[1])
        assert weight is not None
        shape = [1, -1, *[1] * (weight.ndim - 2)]
        index.replace_constant(pair.second.input[1], (weight * factor_C.reshape(shape)).astype(np.float32))
    return changed


def _factors(pair: Pair, index: GraphIndex, maxima_C: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """What each channel is divided by, or None where they are balanced well enough."""
    is_used = maxima_C > 0
    if is_used.sum() < 2:
        return None
    typical = float(np.median(maxima_C[is_used]))
    if maxima_C.max() <= _MAX_IMBALANCE * typical:
        return None
    weight = index.constant(pair.second.input[1])
    assert weight is not None
    reach_C = np.abs(weight).max(axis=(0, *range(2, weight.ndim))).astype(np.float64)
    is_used &= reach_C > 0
    factor_C = np.ones(len(maxima_C))
    factor_C[is_used] = np.sqrt(maxima_C[is_used] / reach_C[is_used])  # equal shares of both ranges (Equation 11)
    factor_C[is_used] /= np.exp(np.log(factor_C[is_used]).mean())
    return factor_C


def _is_plain(node: onnx.NodeProto) -> bool:
    """True for a convolution without groups, or a Gemm whose weight is stored one row per output."""
    if node.op_type == "Conv":
        return attribute(node, "group", [1]) == [1]
    return node.op_type == "Gemm" and attribute(node, "transB", [0]) == [1] and attribute(node, "transA", [0]) == [0]
