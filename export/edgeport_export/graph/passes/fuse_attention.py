"""Replace attention, written in ten nodes, by ONNX Runtime's one."""

from __future__ import annotations

from typing import NamedTuple

import onnx

from edgeport_export.graph.index import GraphIndex, attribute, remove_unused
from edgeport_export.graph.outcome import Left, Outcome, find_matches

__all__ = ["DOMAIN", "fuse_attention"]

DOMAIN = "com.microsoft"

_SCALES_OR_MASKS = ("Add", "Div", "Mul")


class _Match(NamedTuple):
    """Queries, keys and values as (B, N, D), the number of heads, and the node whose output is replaced."""

    inputs: tuple[str, str, str]
    num_heads: int
    last: onnx.NodeProto


def fuse_attention(model: onnx.ModelProto) -> Outcome:
    """Rewrite ``Softmax(Q K^T) V``, with heads split before and joined after, to ``com.microsoft.MultiHeadAttention``.

    The scores are not written to memory as a whole, and nothing is transposed (FlashAttention, Dao et al. 2022). Only
    for graphs that ONNX Runtime runs: the operator is not part of ONNX. A place is left where the heads are not split
    by one constant shape, or where something else reads a value between.

    Args:
        model: changed in place; scores are not scaled (see ``fold_attention_scale``).

    Returns:
        How many places were rewritten, and why others were left.
    """
    graph = model.graph
    index = GraphIndex(graph)
    matches, left = find_matches(graph.node, lambda node: _match(node, index))
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
    absent = "no softmax reads a product of two values, or goes into one"
    return Outcome(num_changed=len(matches), left=left, absent=absent)


def _match(softmax: onnx.NodeProto, index: GraphIndex) -> _Match | None:
    """The attention around a softmax; None where there is none. Raises Left where it has to stay."""
    if softmax.op_type != "Softmax" or not _looks_like_attention(softmax, index):
        return None
    if attribute(softmax, "axis", [-1])[0] not in (-1, 3):
        raise Left("its softmax is not over the keys")
    scores = _maker(index, softmax.input[0], "MatMul", "its scores")
    query, num_heads = _heads(index, scores.input[0], [0, 2, 1, 3], "its queries")
    key, num_key_heads = _heads(index, scores.input[1], [0, 2, 3, 1], "its keys")
    summed = _reader(index, softmax.output[0], "MatMul", "its weights")
    if summed.input[0] != softmax.output[0]:
        raise Left("its weights are the second factor")
    value, num_value_heads = _heads(index, summed.input[1], [0, 2, 1, 3], "its values")
    if not num_heads == num_key_heads == num_value_heads:
        raise Left("its queries, keys and values differ in their number of heads")
    moved = _reader(index, summed.output[0], "Transpose", "its sums")
    if attribute(moved, "perm", []) != [0, 2, 1, 3]:
        raise Left("the axes of its sums are in another order")
    joined = _reader(index, moved.output[0], "Reshape", "its sums")
    shape = index.constant(joined.input[1])
    if shape is None or len(shape) != 3:
        raise Left("its heads are not joined by a constant shape of 3 axes")
    return _Match((query, key, value), num_heads, joined)


def _looks_like_attention(softmax: onnx.NodeProto, index: GraphIndex) -> bool:
    before = index.producer(softmax.input[0])
    sources = [softmax.input[0]]
    if before is not None and before.op_type in _SCALES_OR_MASKS:
        sources += before.input
    results = [node.output[0] for node in index.consumers(softmax.output[0])]
    return any(index.product(name) is not None for name in [*sources, *results])


def _heads(index: GraphIndex, name: str, perm: list[int], what: str) -> tuple[str, int]:
    """What is split into heads, and into how many."""
    transpose = _maker(index, name, "Transpose", what)
    if attribute(transpose, "perm", []) != perm:
        raise Left(f"the axes of {what} are in another order")
    split = _maker(index, transpose.input[0], "Reshape", what)
    shape = index.constant(split.input[1])
    if shape is None or len(shape) != 4 or shape[2] <= 0:
        raise Left(f"{what} are not split by a constant shape of 4 axes")
    return split.input[0], int(shape[2])


def _maker(index: GraphIndex, name: str, op_type: str, what: str) -> onnx.NodeProto:
    """The node of that type that makes a value which nothing else reads."""
    if not index.is_used_once(name):
        raise Left(f"something else reads {what}")
    node = index.producer(name, op_type)
    if node is None:
        raise Left(f"no {op_type} makes {what}")
    return node


def _reader(index: GraphIndex, name: str, op_type: str, what: str) -> onnx.NodeProto:
    """The node of that type that alone reads a value."""
    node = index.sole_consumer(name)
    if node is None:
        raise Left(f"something else reads {what}")
    if node.op_type != op_type:
        raise Left(f"no {op_type} reads {what}")
    return node
