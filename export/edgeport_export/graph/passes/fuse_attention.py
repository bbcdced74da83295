"""Replace attention, written in ten nodes, by ONNX Runtime's one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx

from edgeport_export.graph.index import GraphIndex, remove_unused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DOMAIN", "fuse_attention"]

DOMAIN = "com.microsoft"


class _Match(NamedTuple):
    """Queries, keys and values as (B, N, D), the number of heads, and the node whose output is replaced."""

    inputs: tuple[str, str, str]
    num_heads: int
    last: onnx.NodeProto


def fuse_attention(model: onnx.ModelProto) -> bool:
    """Rewrite ``Softmax(Q K^T) V``, with heads split before and joined after, to ``com.microsoft.MultiHeadAttention``.

    The scores are not written to memory as a whole, and nothing is transposed (FlashAttention, Dao et al. 2022). Only
    for graphs that ONNX Runtime runs: the operator is not part of ONNX. Nothing happens where the heads are not split
    by one constant shape, or where something else reads a value between.

    Args:
        model: changed in place; scores are not scaled (see ``fold_attention_scale``).

    Returns:
        True if anything was replaced.
    """
    graph = model.graph
    index = GraphIndex(graph)
    matches = [match for node in graph.node if (match := _match(node, index)) is not None]
    for match in matches:
        place = list(graph.node).index(match.last)
        graph.node.remove(match.last)
        graph.node.insert(
            place,
            onnx.helper.make_node(
                "MultiHeadAttention",
                match.inputs,
                [match.last.output[0]],
                name=match.last.name,
                domain=DOMAIN,
                num_heads=match.num_heads,
                scale=1.0,
            ),
        )
    if matches:
        remove_unused(model)
        if all(opset.domain != DOMAIN for opset in model.opset_import):
            model.opset_import.add(domain=DOMAIN, version=1)
    return bool(matches)


def _match(node: onnx.NodeProto, index: GraphIndex) -> _Match | None:
    if node.op_type != "Reshape":
        return None
    joined = _only(index, node.input[0], "Transpose")
    if joined is None or _perm(joined) != [0, 2, 1, 3]:
        return None
    summed = _only(index, joined.input[0], "MatMul")
    weights = None if summed is None else _only(index, summed.input[0], "Softmax")
    if summed is None or weights is None or _axis(weights) not in (-1, 3):
        return None
    scores = _only(index, weights.input[0], "MatMul")
    if scores is None:
        return None
    sources = (
        _heads(index, scores.input[0], [0, 2, 1, 3]),
        _heads(index, scores.input[1], [0, 2, 3, 1]),
        _heads(index, summed.input[1], [0, 2, 1, 3]),
    )
    query, key, value = sources
    if query is None or key is None or value is None or not query[1] == key[1] == value[1]:
        return None
    target = index.constant(node.input[1])
    if target is None or len(target) != 3:
        return None
    return _Match((query[0], key[0], value[0]), query[1], node)


def _heads(index: GraphIndex, name: str, perm: Sequence[int]) -> tuple[str, int] | None:
    """What is split into heads, and into how many."""
    transpose = _only(index, name, "Transpose")
    if transpose is None or _perm(transpose) != list(perm):
        return None
    split = _only(index, transpose.input[0], "Reshape")
    shape = None if split is None else index.constant(split.input[1])
    if split is None or shape is None or len(shape) != 4 or shape[2] <= 0:
        return None
    return split.input[0], int(shape[2])


def _only(index: GraphIndex, name: str, op_type: str) -> onnx.NodeProto | None:
    return index.producer(name, op_type) if index.is_used_once(name) else None


def _perm(node: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])


def _axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), -1)
