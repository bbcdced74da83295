"""What is quantized, and how: a table by family of network and target.

A recipe is chosen by what the graph computes, so that a user's own module has one as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BETWEEN",
    "MIN_SHARE",
    "SCHEMES",
    "TARGETS",
    "Family",
    "Recipe",
    "Scheme",
    "Target",
    "family_of",
    "find_recipe",
]

Target: TypeAlias = Literal["cpu", "cpu-avx2", "arm64", "openvino"]
Scheme: TypeAlias = Literal["static", "dynamic"]
Family: TypeAlias = Literal["convolutional", "saturating", "transformer"]

TARGETS: tuple[Target, ...] = get_args(Target)
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
MIN_SHARE = 0.5
"""Part of its multiply-adds that a variant must do in int8 to be called that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one family is quantized for one target.

    Attributes:
        scheme: ``static``: ranges of activations from calibration; ``dynamic``: from each input, when it runs.
        activations: type of quantized activations.
        is_symmetric: activations have zero point 0.
        num_weight_bits: 8, or 7 where pairs of products are added in 16 bits, which would saturate.
        layers: operators that are quantized where one input is a constant weight.
        others: operators that are quantized between quantized layers.
        has_float_outputs: layers give float values; only their inputs are quantized.
        is_planned: of what can run in int8, that which pays for the way there and back does (``plan``); otherwise all
            layers do, and whatever stands between two of them.
        fuses_attention: attention, in float, is one operator of ONNX Runtime's own.
        min_share: part of the multiply-adds that must run in int8 for a variant to be made.
        reason: why so.
        source: where it was measured or is documented.
    """

    scheme: Scheme
    activations: Literal["uint8", "int8"]
    is_symmetric: bool = False
    num_weight_bits: Literal[7, 8] = 8
    layers: tuple[str, ...]
    others: tuple[str, ...] = ()
    has_float_outputs: bool = False
    is_planned: bool = False
    fuses_attention: bool = False
    min_share: float = MIN_SHARE
    reason: str
    source: str


_LINEAR = ("Gemm", "MatMul")
_CONVOLUTIONS = ("Conv", *_LINEAR)
BETWEEN = ("MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Add")
"""Operators that keep values in a byte between layers, and have no constants."""
_NO_VNNI = "without VNNI two products are added in 16 bits, which saturates with weights of 8 bits"
_ORT_GUIDE = "ONNX Runtime, guide to quantization: choosing parameters for CPU inference"

_GATES = ("Mul", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "ReduceMean", "Split")

_CNN_CPU = Recipe(
    scheme="static",
    activations="uint8",
    layers=_CONVOLUTIONS,
    others=(*BETWEEN, *_GATES),
    is_planned=True,
    reason="x86 with VNNI multiplies unsigned activations with signed weights; with pools and residual additions in "
    "int8 as well, values stay in a byte between layers; the logits stay in float",
    source=_ORT_GUIDE,
)
_CNN_OPENVINO = replace(
    _CNN_CPU,
    others=BETWEEN,
    is_planned=False,
    reason="OpenVINO fuses a residual addition into the convolution before it where both are quantized",
    source="OpenVINO, low-precision transformations: fake quantization of element-wise additions",
)
_VIT_CPU = Recipe(
    scheme="dynamic",
    activations="uint8",
    layers=_LINEAR,
    has_float_outputs=True,
    fuses_attention=True,
    reason="linear layers are nearly all of the work; attention, softmax, norms and GELU lose accuracy and time in "
    "int8; attention in one operator was 1.06 times faster as a whole (vit_b_16 at batch 1 and 8)",
    source="ONNX Runtime, guide to quantization: method selection (dynamic for transformers, static for CNNs)",
)
_STATIC_VIT = replace(
    _VIT_CPU,
    scheme="static",
    fuses_attention=False,
    reason="linear layers are nearly all of the work; the rest loses accuracy and time in int8",
)

_DYNAMIC_LINEAR = replace(_VIT_CPU, fuses_attention=False, min_share=0.0, reason="asked for: linear layers only")
_SATURATING_CPU = replace(
    _DYNAMIC_LINEAR,
    reason="each tanh takes values back to float, and the convolutions are small: lenet5 ran at 0.56 of float32's "
    "speed with them in int8, at 1.01 with the linear layers alone, which hold nearly all of the weights",
    source="docs/quantization.md",
)

_RECIPES: dict[tuple[Family, Target], Recipe] = {
    ("convolutional", "cpu"): _CNN_CPU,
    ("convolutional", "cpu-avx2"): replace(
        _CNN_CPU,
        num_weight_bits=7,
        reason=_NO_VNNI,
        source=_ORT_GUIDE,
    ),
    ("convolutional", "arm64"): replace(
        _CNN_CPU,
        activations="int8",
        reason="ARM's dot product and matrix instructions multiply signed values",
        source=_ORT_GUIDE,
    ),
    ("convolutional", "openvino"): _CNN_OPENVINO,
    ("saturating", "openvino"): _CNN_OPENVINO,
    ("saturating", "cpu"): _SATURATING_CPU,
    ("saturating", "cpu-avx2"): replace(_SATURATING_CPU, num_weight_bits=7),
    ("saturating", "arm64"): _SATURATING_CPU,
    ("transformer", "cpu"): _VIT_CPU,
    ("transformer", "cpu-avx2"): replace(
        _VIT_CPU,
        num_weight_bits=7,
        reason=_NO_VNNI,
        source=_ORT_GUIDE,
    ),
    ("transformer", "arm64"): replace(
        _VIT_CPU, reason="as on x86: ONNX Runtime quantizes activations to unsigned values when it runs"
    ),
    ("transformer", "openvino"): replace(
        _STATIC_VIT,
        activations="int8",
        is_symmetric=True,
        reason="OpenVINO's int8 kernels take ranges that are fixed beforehand; symmetric inputs need no correction "
        "for a zero point",
        source="OpenVINO, low-precision transformations: fake quantization of matrix multiplications",
    ),
}


def family_of(model: onnx.ModelProto) -> Family:
    """The family of a float model, by where its multiply-adds are.

    ``transformer`` where the graph normalizes layers, or multiplies two values, as attention does (before opset 17
    there is no operator that normalizes layers), and does no less in linear layers than in convolutions;
    ``saturating`` where it has tanh or sigmoid and no ReLU, and less than a tenth of its weights in convolutions.
    """
    # These bring onnx, which the command line can spare.
    from edgeport_export.graph.index import has_products
    from edgeport_export.quantize.work import multiply_adds, share_of

    operators = {node.op_type for node in model.graph.node}
    if "LayerNormalization" in operators or has_products(model.graph):
        counts = multiply_adds(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        linear = [n.name for n in model.graph.node if n.op_type in _LINEAR and n.input[1] in constants]
        filters = [n.name for n in model.graph.node if n.op_type == "Conv"]
        return "transformer" if share_of(linear, counts) >= share_of(filters, counts) else "convolutional"
    if "Relu" not in operators and operators & {"Tanh", "Sigmoid"}:
        sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
        num_filters = sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type == "Conv")
        if num_filters < 0.1 * sum(sizes.values()):
            return "saturating"
    return "convolutional"


def find_recipe(family: Family, target: Target, scheme: Scheme | None) -> Recipe:
    """The recipe for a family and a target; ``scheme`` overrides that of the table.

    Raises:
        InputError: if the target cannot run the scheme.
    """
    recipe = _RECIPES[family, target]
    if scheme is None or scheme == recipe.scheme:
        return recipe
    if scheme == "dynamic":
        if target == "openvino":
            raise InputError("--target openvino needs static ranges; omit --scheme dynamic")
        # Convolutions with dynamic ranges (ConvInteger) do not load in every build of ONNX Runtime.
        return replace(_DYNAMIC_LINEAR, num_weight_bits=recipe.num_weight_bits)
    if family == "saturating":
        return replace(_RECIPES["convolutional", target], others=BETWEEN, is_planned=False)
    return replace(
        _STATIC_VIT,
        activations="int8" if target == "arm64" else "uint8",
        num_weight_bits=recipe.num_weight_bits,
        reason="asked for: ranges of activations fixed by calibration",
    )
