"""The layers of a network: what each computes and holds, where it runs, what its quantization costs, and its time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.schema import expect_integer, expect_list, expect_object, expect_string, fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeport_runtime.engine.session import NodeTime

__all__ = ["Layer", "LayerInVariant", "layer_times"]

_MAX = 2**62
_KINDS = ("Conv", "Gemm", "MatMul")  # part of the name of every operator that a layer may run as
# What ONNX Runtime adds to the names of nodes and values that it reworks.
_FUSED = "fused "
_ADDED = re.compile(r"(?:_token_\d+|_nchwc|_quant|_QuantizeLinear|_DequantizeLinear)+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerInVariant:
    """A layer in a quantized variant.

    Attributes:
        is_float: it computes in float.
        reason: why it does.
        error: the relative L2 distance of the model's outputs when this layer alone is quantized; None if that was not
            measured.
    """

    is_float: bool
    reason: str | None = None
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"is_float": self.is_float, "reason": self.reason, "error": self.error}

    @classmethod
    def from_dict(cls, data: Any, context: str) -> LayerInVariant:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, tuple(cls.__slots__))
        if not isinstance(data["is_float"], bool):
            fail(f"{context}.is_float", f"is {data['is_float']!r}, not true or false")
        reason, error = data["reason"], data["error"]
        if error is not None and (
            not isinstance(error, int | float) or isinstance(error, bool) or not 0 <= error < _MAX
        ):
            fail(f"{context}.error", f"is {error!r}, not a number of at least 0")
        return cls(
            is_float=data["is_float"],
            reason=None if reason is None else expect_string(reason, f"{context}.reason"),
            error=error,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A convolution or a product of matrices.

    Attributes:
        name: of its node.
        op_type: its operator.
        multiply_adds: of one image.
        num_params: values of its weights and biases.
        also: names by which ONNX Runtime may call it, because it runs what follows in one node with it.
        variants: what becomes of it, by the name of a quantized variant.
    """

    name: str
    op_type: str
    multiply_adds: int
    num_params: int
    also: tuple[str, ...] = ()
    variants: Mapping[str, LayerInVariant] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "name": self.name,
            "op_type": self.op_type,
            "multiply_adds": self.multiply_adds,
            "num_params": self.num_params,
            "also": list(self.also),
            "variants": {name: one.to_dict() for name, one in self.variants.items()},
        }

    @classmethod
    def from_dict(cls, data: Any, context: str) -> Layer:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, tuple(cls.__slots__))
        variants = expect_object(data["variants"], f"{context}.variants")
        return cls(
            name=expect_string(data["name"], f"{context}.name"),
            op_type=expect_string(data["op_type"], f"{context}.op_type"),
            multiply_adds=expect_integer(data["multiply_adds"], f"{context}.multiply_adds", 0, _MAX),
            num_params=expect_integer(data["num_params"], f"{context}.num_params", 0, _MAX),
            also=tuple(
                expect_string(value, f"{context}.also[{i}]")
                for i, value in enumerate(expect_list(data["also"], f"{context}.also"))
            ),
            variants={
                name: LayerInVariant.from_dict(value, f"{context}.variants.{name}") for name, value in variants.items()
            },
        )


def layer_times(
    layers: Sequence[Layer], nodes: Sequence[NodeTime], variant: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Give each layer the time of the nodes that are it: by their names, or where those are lost by their order.

    Args:
        layers: of the network, in the graph's order.
        nodes: as ONNX Runtime ran them, in that order.
        variant: the one that ran.

    Returns:
        Milliseconds by the layer's name, and those of all other nodes by operator, both of one call.
    """
    known = {name: layer.name for layer in layers for name in (*layer.also, layer.name)}
    of_layers: dict[str, float] = {}
    others: dict[str, float] = {}
    nameless: list[NodeTime] = []
    for node in nodes:
        is_layer = any(kind in node.op_type for kind in _KINDS)
        owner = _owner(node.name, known) if is_layer else None
        if owner is not None:
            of_layers[owner] = of_layers.get(owner, 0.0) + node.milliseconds
        elif is_layer:
            nameless.append(node)
        else:
            others[node.op_type] = others.get(node.op_type, 0.0) + node.milliseconds
    left = [
        layer.name
        for layer in layers
        if layer.name not in of_layers and variant in layer.variants and not layer.variants[variant].is_float
    ]
    if len(left) == len(nameless):
        of_layers |= {name: node.milliseconds for name, node in zip(left, nameless, strict=True)}
    else:
        for node in nameless:
            others[node.op_type] = others.get(node.op_type, 0.0) + node.milliseconds
    return of_layers, others


def _owner(name: str, known: Mapping[str, str]) -> str | None:
    """The layer that a node belongs to: by its own name, or by what is left of it without what was added."""
    name = name.removeprefix(_FUSED)
    return known.get(name) or known.get(_ADDED.sub("", name))
