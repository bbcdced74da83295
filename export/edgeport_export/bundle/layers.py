"""The layers of a bundle's first variant for its report: multiply-adds, parameters, and what became of each in int8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from edgeport_export.graph.index import GraphIndex
from edgeport_export.quantize.work import multiply_adds
from edgeport_runtime.report.layers import Layer, LayerInVariant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgeport_export.variants import Made
    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["layers_in"]

_MAX_NAMED = 4  # nodes behind a layer that ONNX Runtime runs in one with it: a bias, a sum, an activation


def layers_in(bundle: Path, manifest: Manifest, made: Sequence[Made]) -> tuple[Layer, ...]:
    """Each convolution and product of matrices of the first variant, in the graph's order.

    Args:
        bundle: the folder.
        manifest: its manifest.
        made: how the quantized variants were made.
    """
    model = onnx.load(bundle / manifest.variants[0].file, load_external_data=False)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    index = GraphIndex(model.graph)
    counts = multiply_adds(model)
    told = {one.plan.name: _of_variant(one, list(counts)) for one in made}
    return tuple(
        Layer(
            name=node.name,
            op_type=node.op_type,
            multiply_adds=counts[node.name],
            num_params=_num_params(node, sizes, index),
            also=tuple(_names_behind(node, index)),
            variants={name: found[node.name] for name, found in told.items()},
        )
        for node in model.graph.node
        if node.name in counts
    )


def _of_variant(made: Made, names: Sequence[str]) -> dict[str, LayerInVariant]:
    """By the layer's name: where it computes, why, and what its quantization costs."""
    details, returned, able = made.details, set(made.returned), set(made.layers)
    errors = {cost.node: cost.cost_db for cost in made.costs}
    errors |= {t.layer: t.signal_to_noise_db for t in made.trades if t.layer and t.signal_to_noise_db is not None}
    in_float = set(details["float_layers"]) | (set(names) - able)
    return {
        name: LayerInVariant(
            is_float=name in in_float,
            reason=_reason(made, is_able=name in able, is_returned=name in returned) if name in in_float else None,
            error=_relative(errors[name]) if name in errors else None,
        )
        for name in names
    }


def _reason(made: Made, *, is_able: bool, is_returned: bool) -> str:
    if is_returned:
        budget = "the budget of --max-drop" if made.trades else "the limits of the variant"
        return f"it went back to float for {budget}"
    if made.plan.kind == "fp16":
        return "its values do not fit into float16"
    if not is_able:
        return {
            "dynamic": "dynamic int8 is for linear layers with constant weights",
            "weights only": "it has too few weights, or none",
        }.get(made.details["scheme"], "it is no layer with constant weights that int8 is for")
    return "int8 would be no faster, with its values going there and back"


def _relative(decibels: float) -> float:
    """A signal to noise ratio as the relative distance that it stands for."""
    return 0.0 if math.isinf(decibels) else float(f"{10 ** (-decibels / 20):.4g}")


def _num_params(node: onnx.NodeProto, sizes: Mapping[str, int], index: GraphIndex) -> int:
    """Values of the constants that a node reads, also through the node that makes floats of them."""
    total = 0
    for name in node.input:
        maker = index.producer(name)
        source = maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else name
        total += sizes.get(source, 0)
    return total


def _names_behind(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """Names of the values behind a layer, by one of which ONNX Runtime calls what it makes of all of them."""
    for _ in range(_MAX_NAMED):
        yield node.output[0]
        readers = index.consumers(node.output[0])
        if len(readers) != 1 or readers[0].op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return
        node = readers[0]
        yield node.name
