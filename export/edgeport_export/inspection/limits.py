"""What would keep a graph from a target, by what the target's own documents say; each row with its source."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from onnx import TensorProto

from edgeport_export.graph.index import GraphIndex
from edgeport_export.graph.onnx_file import opset_of

if TYPE_CHECKING:
    import onnx

__all__ = ["TARGETS", "Limit", "Target", "find_limits"]

Target: TypeAlias = Literal["tensorrt", "openvino", "coreml", "tflite", "ort-mobile", "webgpu", "opencv"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """Something in a graph that a target does not take.

    Attributes:
        what: it is.
        count: how many nodes.
        effect: what follows.
        source: the address of the document that says so.
    """

    what: str
    count: int
    effect: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


class _Operators(NamedTuple):
    """Which operators a target takes: those that are listed, or all but those; others follow ``effect``."""

    listed: frozenset[str]
    is_taken: bool
    effect: str
    source: str


def _words(text: str, domain: str = "") -> frozenset[str]:
    return frozenset(f"{domain}{word}" for word in text.split())


_ONNX_TENSORRT = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
_TENSORRT_OPSETS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html"
_OPENVINO = "https://github.com/openvinotoolkit/openvino/blob/master/src/frontends/onnx/docs/supported_ops.md"
_COREML = (
    "https://github.com/microsoft/onnxruntime/blob/main/tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md"
)
_COREML_SHAPES = "https://onnxruntime.ai/docs/api/objectivec/Classes/ORTCoreMLExecutionProviderOptions.html"
_WEBGPU = "https://app.unpkg.com/onnxruntime-web@1.30.0/files/docs/webgpu-operators.md"
_ONNX2TF = "https://github.com/PINTO0309/onnx2tf#supported-layers"
_OPENCV = "https://github.com/opencv/opencv/blob/5.x/modules/dnn/src/onnx/onnx_importer2.cpp"
_OPENCV_INT8 = "https://github.com/opencv/opencv/issues/26310"

_ELSEWHERE = "ONNX Runtime runs these on the CPU, and copies at both ends"
_OPERATORS: dict[Target, _Operators] = {
    # The table of operators that are not supported, TensorRT 11, read in November 2026.
    "tensorrt": _Operators(
        _words(
            "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Col2Im CenterCropPad Compress "
            "ConcatFromSequence ConvInteger Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool "
            "MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement "
            "QLinearConv QLinearMatMul RegexFullMatch"
        ),
        False,
        "TensorRT's parser refuses the file",
        _ONNX_TENSORRT,
    ),
    # Those with no supported version, read in November 2026.
    "openvino": _Operators(
        _words(
            "Bernoulli DeformConv Det ImageDecoder LpPool MaxUnpool MelWeightMatrix Optional OptionalGetElement "
            "OptionalHasElement RegexFullMatch SequenceMap StringConcat StringNormalizer StringSplit TfIdfVectorizer"
        )
        | _words(
            "BiasSoftmax CDist ComplexMul ConvTransposeWithDynamicPads CropAndResize DecoderAttention "
            "FusedMatMulActivation GemmFastGelu GemmFloat8 GridSample Inverse Irfft LongformerAttention MatMulBnb4 "
            "MatMulFpQ4 MatMulInteger16 MoE MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool PackedAttention "
            "PackedMultiHeadAttention QAttention QGemm QLinearConv QMoE RelativePositionBias Rfft SkipGroupNorm "
            "SparseAttention SparseToDenseMatMul TransposeMatMul",
            "com.microsoft:",
        ),
        False,
        "OpenVINO refuses the file; its provider for ONNX Runtime leaves these to the CPU",
        _OPENVINO,
    ),
    # The table of ML programs.
    "coreml": _Operators(
        _words(
            "Add ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu Erf Exp GatherND "
            "Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid Identity "
            "InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow Range Reciprocal "
            "ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split "
            "Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze com.microsoft:FusedConv com.microsoft:QuickGelu"
        ),
        True,
        _ELSEWHERE,
        _COREML,
    ),
    # Those that ask for help in the list, and what it does not name, of onnx2tf 1.24.
    "tflite": _Operators(
        _words(
            "BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad DFT DeformConv GroupNormalization Loop "
            "MaxRoiPool Optional Scan TfIdfVectorizer Attention com.microsoft:MultiHeadAttention"
        ),
        False,
        "onnx2tf does not convert these",
        _ONNX2TF,
    ),
    # The list of the package's own documents, of onnxruntime-web 1.30.
    "webgpu": _Operators(
        _words(
            "Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Clip "
            "Concat Conv ConvTranspose Cos Cosh CumSum DFT DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp "
            "Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater "
            "GreaterOrEqual GridSample HardSigmoid HardSwish If InstanceNormalization LayerNormalization LeakyRelu "
            "Less LessOrEqual Log MatMul MaxPool Mul Neg Not Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
            "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize "
            "ScatterND Shape Sigmoid SimplifiedLayerNormalization Sin Sinh Slice Softmax Split Sqrt Squeeze Sub Tan "
            "Tanh ThresholdedRelu Tile Transpose Unsqueeze Where"
        )
        | _words(
            "Attention BiasAdd BiasSplitGelu FastGelu FusedConv GatherBlockQuantized Gelu GroupQueryAttention "
            "MatMulNBits MultiHeadAttention QuickGelu RotaryEmbedding SkipLayerNormalization "
            "SkipSimplifiedLayerNormalization",
            "com.microsoft:",
        ),
        True,
        _ELSEWHERE,
        _WEBGPU,
    ),
    # What the importer of OpenCV 5 dispatches.
    "opencv": _Operators(
        _words(
            "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Cast "
            "Ceil Celu Clip Concat Constant ConstantFill ConstantOfShape Conv ConvTranspose Cos Cosh CumSum "
            "DepthToSpace DequantizeLinear DetectionOutput Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor "
            "GRU Gather GatherElements Gelu GeluApproximation Gemm GlobalAveragePool GlobalMaxPool Greater "
            "GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity If ImageScaler InstanceNormalization LRN "
            "LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool MaxUnpool Mean Min "
            "Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
            "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize "
            "Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus "
            "Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Unsqueeze "
            "Upsample Where Xor com.microsoft:Attention"
        ),
        True,
        "OpenCV 5 refuses the file",
        _OPENCV,
    ),
}

_FREE_AXES: dict[Target, tuple[str, str]] = {
    "coreml": ("inputs of any shape may be slower; --batch 1 fixes it", _COREML_SHAPES),
    "tflite": ("fewer of such files convert; give onnx2tf the option -b 1", "https://github.com/PINTO0309/onnx2tf"),
}
"""What follows where a size of the input is left open."""
_MIN_TENSORRT_OPSET, _MAX_TENSORRT_OPSET = 9, 25


def find_limits(model: onnx.ModelProto, target: Target) -> list[Limit]:
    """What the target does not take of a graph; empty where nothing is known to keep it from it.

    Args:
        model: as ``read_graph`` gives it.
        target: ``ort-mobile`` is ONNX Runtime's packages for Android and iOS, which hold every operator
            (https://mvnrepository.com/artifact/com.microsoft.onnxruntime/onnxruntime-android); ``tflite`` goes by
            onnx2tf, ``coreml`` and ``webgpu`` by ONNX Runtime's providers.
    """
    limits = _of_operators(model, target)
    if target == "tensorrt":
        limits += _of_tensorrt(model)
    if target in _FREE_AXES and _has_free_axis(model):
        effect, source = _FREE_AXES[target]
        limits.append(Limit(what="an axis of the input is free", count=0, effect=effect, source=source))
    if target == "opencv":
        count = sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
        if count:
            effect = "OpenCV 5's importer has an open bug with them"
            limits.append(Limit(what="quantizers", count=count, effect=effect, source=_OPENCV_INT8))
    return limits


def _of_operators(model: onnx.ModelProto, target: Target) -> list[Limit]:
    known = _OPERATORS.get(target)
    if known is None:
        return []
    found: Counter[str] = Counter()
    for node in model.graph.node:
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
        # A table of ONNX's own operators that are refused says nothing of those of others, which none of them takes.
        is_foreign = target == "tensorrt" and ":" in name
        if ((name in known.listed) != known.is_taken or is_foreign) and node.op_type != "Constant":
            found[name] += 1
    return [
        Limit(what=f"operator {name}", count=count, effect=known.effect, source=known.source)
        for name, count in found.most_common()
    ]


def _of_tensorrt(model: onnx.ModelProto) -> list[Limit]:
    limits = []
    opset = opset_of(model)
    if not _MIN_TENSORRT_OPSET <= opset <= _MAX_TENSORRT_OPSET:
        told = f"opset {opset}; TensorRT 11 takes {_MIN_TENSORRT_OPSET} to {_MAX_TENSORRT_OPSET}"
        limits.append(Limit(what=told, count=0, effect="the parser may refuse it", source=_TENSORRT_OPSETS))
    index = GraphIndex(model.graph)
    count = 0
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = index.initializer(node.input[2])
            is_unsigned = zero is not None and zero.data_type == TensorProto.UINT8
            values = None if zero is None or _is_elsewhere(zero) else index.constant(node.input[2])
            count += is_unsigned or (values is not None and bool(values.astype("float32").any()))
    if count:
        told = "quantizers with a zero point that is not 0, or unsigned"
        limits.append(Limit(what=told, count=count, effect="TensorRT refuses the file", source=_ONNX_TENSORRT))
    return limits


def _is_elsewhere(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _has_free_axis(model: onnx.ModelProto) -> bool:
    stored: set[Any] = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return any(not dim.HasField("dim_value") for value in inputs for dim in value.type.tensor_type.shape.dim)
