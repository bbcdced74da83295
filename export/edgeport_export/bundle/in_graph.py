"""Preprocessing as part of the graph, in standard ONNX operators: the model takes 8-bit pixels of any size.

It is the runtime's preprocessing (``docs/bundle.md``), except that it decodes no files and does no EXIF rotation. A
bilinear or bicubic resize is ONNX's Resize, whose arithmetic differs from Pillow's by a level here and there;
everything else is equal to the bit. ONNX has no filter lanczos, box or hamming: the graph computes Pillow's weights for
the size of its image, and multiplies by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeport_runtime.engine.session import INPUT_NAME
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["check_in_graph", "put_in_graph"]

_PREFIX = "preprocess/"
# ITU-R 601-2 luma in 16 bits, as Pillow converts to grey.
_LUMA, _WHOLE = (19595, 38470, 7471), 65536
_FIRST_ANTIALIASED = 18
_ANTIALIASED: dict[str, Any] = {"antialias": 1, "exclude_outside": 1, "coordinate_transformation_mode": "half_pixel"}
# Reach of Pillow's filters in pixels, and the bits of its weights (Pillow, src/libImaging/Resample.c).
_REACH = {"lanczos": 3.0, "box": 0.5, "hamming": 1.0}
_WEIGHT = 2**22
_TINY = 1e-300  # in place of 0 in sin(x) / x, which then is 1
_RESIZE: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear", **_ANTIALIASED},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, **_ANTIALIASED},
}


def check_in_graph(spec: PreprocessSpec, opset: int) -> None:
    """Raise InputError if that operator set cannot express the resize."""
    if spec.resize != "none" and spec.interpolation in _RESIZE and opset < _FIRST_ANTIALIASED:
        raise InputError(
            f"preprocessing in the graph by {spec.interpolation} needs ONNX's antialias, which opset {opset} lacks; "
            f"use --opset {_FIRST_ANTIALIASED} or later, --interpolation {', '.join(_REACH)}, or another --resize"
        )


def put_in_graph(model: onnx.ModelProto, spec: PreprocessSpec) -> None:
    """Let a model take pixels: its input becomes ``image``, uint8 (height, width, 3) in RGB order, one image per call.

    A contract with alpha makes that (height, width, 4), RGBA. Without a resize the height and the width are fixed.

    Args:
        model: with input ``image``, float32 (batch or 1, C, H, W); changed in place.
        spec: what is put before it.
    """
    graph = model.graph
    steps = _Steps()
    resized, sides = steps.resize(steps.channels(spec), spec)
    result = steps.normalize(steps.crop(steps.pad(resized, sides, spec), sides, spec), spec)
    for node in graph.node:
        node.input[:] = [result if name == INPUT_NAME else name for name in node.input]
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*steps.nodes, *network])
    graph.initializer.extend(steps.constants)
    shape = [*(spec.image_sides if spec.resize == "none" else ("height", "width")), len(spec.pixel_mode)]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape))
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]  # of any batch


class _Steps:
    """Nodes and constants, in order. Values are named by what they hold."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def channels(self, spec: PreprocessSpec) -> str:
        """Uint8 (1, C, H, W) in the order of ``spec.color``."""
        pixels = INPUT_NAME
        if spec.color in ("grey", "la"):
            wide = self._add("Cast", [pixels], to=TensorProto.INT32)
            of_alpha = (0,) if spec.has_alpha else ()
            weighted = self._add("Mul", [wide, self._constant(_LUMA + of_alpha, np.int32)])
            total = self._add("ReduceSum", [weighted, self._constant([2], np.int64)], keepdims=1)
            rounded = self._add("Add", [total, self._constant(_WHOLE // 2, np.int32)])
            luma = self._add("Div", [rounded, self._constant(_WHOLE, np.int32)])
            grey = self._add("Cast", [luma], to=TensorProto.UINT8)
            if spec.has_alpha:
                alpha = self._add("Gather", [pixels, self._constant([3], np.int64)], axis=2)
                grey = self._add("Concat", [grey, alpha], axis=2)
            pixels = grey
        elif spec.color == "bgr":
            pixels = self._add("Gather", [pixels, self._constant([2, 1, 0], np.int64)], axis=2)
        planes = self._add("Transpose", [pixels], perm=[2, 0, 1])
        return self._add("Unsqueeze", [planes, self._constant([0], np.int64)])

    def resize(self, pixels: str, spec: PreprocessSpec) -> tuple[str, str]:
        """Uint8 (1, C, H, W) after the resize (and the crop, with a filter that ONNX lacks), and the new (H, W)."""
        target = self._constant(sides_of(spec.resize_size), np.int64)
        if spec.resize == "none":
            return pixels, target
        shape = self._add("Shape", [pixels])
        sides, both = self._add("Slice", [shape, *self._range(2, 4)]), target
        if spec.resize == "shorter" and isinstance(spec.resize_size, int):
            both = self._add("Div", [self._add("Mul", [sides, target]), self._add("ReduceMin", [sides], keepdims=1)])
        elif spec.resize in ("shorter", "pad"):
            both = self._kept_aspect(sides, target, spec)
        if spec.interpolation == "nearest":
            for axis in (0, 1):
                pixels = self._add("Gather", [pixels, self._nearest(sides, both, axis)], axis=2 + axis)
            return pixels, both
        if spec.interpolation in _REACH:
            return self._resample(pixels, sides, both, spec), both
        sizes = self._add("Concat", [self._add("Slice", [shape, *self._range(0, 2)]), both], axis=0)
        return self._add("Resize", [pixels, "", "", sizes], **_RESIZE[spec.interpolation]), both

    def _kept_aspect(self, sides: str, target: str, spec: PreprocessSpec) -> str:
        """The smallest (H, W) that covers the target, or the largest within it: each side follows from the other."""
        turned = self._constant(sides_of(spec.resize_size)[::-1], np.int64)
        across = self._add("Gather", [sides, self._constant([1, 0], np.int64)])
        product = self._add("Mul", [sides, turned])
        if spec.resize == "shorter":
            return self._add("Max", [target, self._add("Div", [product, across])])
        operands = [self._add("Cast", [value], to=TensorProto.DOUBLE) for value in (product, across)]
        rounded = self._add("Cast", [self._add("Round", [self._add("Div", operands)])], to=TensorProto.INT64)
        one = self._constant([1], np.int64)
        return self._add("Min", [target, self._add("Max", [one, rounded])])

    def pad(self, pixels: str, sides: str, spec: PreprocessSpec) -> str:
        """The image in the middle of the input; of an odd number of pixels the larger half is below or to the right."""
        if spec.pad_color is None:
            return pixels
        margin = self._add("Sub", [self._constant(spec.image_sides, np.int64), sides])
        before = self._add("Div", [margin, self._constant([2], np.int64)])
        none = self._constant([0, 0], np.int64)
        pads = self._add("Concat", [none, before, none, self._add("Sub", [margin, before])], axis=0)
        if len(set(spec.pad_color)) == 1:
            return self._add("Pad", [pixels, pads, self._constant(spec.pad_color[0], np.uint8)])
        planes = []
        for channel, level in enumerate(spec.pad_color):
            plane = self._add("Gather", [pixels, self._constant([channel], np.int64)], axis=1)
            planes.append(self._add("Pad", [plane, pads, self._constant(level, np.uint8)]))
        return self._add("Concat", planes, axis=1)

    def _nearest(self, sides: str, both: str, axis: int) -> str:
        """Which row or column each new one is: Pillow adds up steps in double precision, from half a step on."""
        old, new = (self._add("Slice", [size, *self._range(axis, axis + 1)]) for size in (sides, both))
        old_wide, new_wide = (self._add("Cast", [size], to=TensorProto.DOUBLE) for size in (old, new))
        step = self._add("Div", [old_wide, new_wide])
        half = self._add("Mul", [step, self._constant(0.5, np.float64)])
        others = self._add("Expand", [step, self._add("Sub", [new, self._constant([1], np.int64)])])
        steps = self._add("Concat", [half, others], axis=0)
        places = self._add("Floor", [self._add("CumSum", [steps, self._constant(0, np.int64)])])
        return self._add("Cast", [places], to=TensorProto.INT64)

    def _resample(self, pixels: str, sides: str, both: str, spec: PreprocessSpec) -> str:
        """Pillow's resize with antialiasing, horizontally, then vertically, each rounded to 8 bits.

        Only what the crop keeps is computed: of a narrow image the rest would be nearly all.
        """
        x = self._add("Cast", [pixels], to=TensorProto.DOUBLE)
        start = self._constant([0, 0], np.int64) if spec.resize == "pad" else self._start(both, spec)
        for axis in (1, 0):
            weights = self._weights(sides, both, start, axis, spec)
            operands = [weights, x] if axis == 0 else [x, self._add("Transpose", [weights], perm=[1, 0])]
            whole = self._add("Add", [self._add("MatMul", operands), self._double(_WEIGHT / 2)])
            level = self._add("Floor", [self._add("Div", [whole, self._double(_WEIGHT)])])
            x = self._add("Clip", [level, self._double(0), self._double(255)])
        return self._add("Cast", [x], to=TensorProto.UINT8)

    def _weights(self, sides: str, both: str, start: str, axis: int, spec: PreprocessSpec) -> str:
        """Double (kept, old), whole numbers: what each row or column that is kept takes of the old, of ``_WEIGHT``."""
        name, half, one = spec.interpolation, self._double(0.5), self._double(1)
        old, new, first = (
            self._add("Cast", [self._add("Gather", [size, self._constant(axis, np.int64)])], to=TensorProto.DOUBLE)
            for size in (sides, both, start)
        )
        scale = self._add("Div", [old, new])
        stretch = self._add("Max", [scale, one])
        reach = self._add("Mul", [stretch, self._double(_REACH[name])])
        kept = new if spec.resize == "pad" else self._double(spec.image_sides[axis])
        rows = self._add("Range", [first, self._add("Add", [first, kept]), one])
        columns = self._add("Range", [self._double(0), old, one])
        centres = self._add("Mul", [self._add("Add", [rows, half]), scale])
        centres = self._add("Unsqueeze", [centres, self._constant([1], np.int64)])
        bounds = [
            self._add("Floor", [self._add("Add", [self._add(side, [centres, reach]), half])]) for side in ("Sub", "Add")
        ]
        is_near = self._add(
            "And", [self._add("GreaterOrEqual", [columns, bounds[0]]), self._add("Less", [columns, bounds[1]])]
        )
        offsets = self._add("Add", [self._add("Sub", [columns, centres]), half])
        values = self._filter(self._add("Mul", [offsets, self._add("Div", [one, stretch])]), name)
        values = self._add("Mul", [values, self._add("Cast", [is_near], to=TensorProto.DOUBLE)])
        total = self._add("ReduceSum", [values, self._constant([1], np.int64)], keepdims=1)
        weights = self._add("Mul", [self._add("Div", [values, total]), self._double(_WEIGHT)])
        size = self._add("Floor", [self._add("Add", [self._add("Abs", [weights]), half])])
        return self._add("Mul", [self._add("Sign", [weights]), size])

    def _filter(self, x: str, name: str) -> str:
        """A filter's values, for distances in its own unit."""
        if name == "box":
            inside = [self._add("Greater", [x, self._double(-0.5)]), self._add("LessOrEqual", [x, self._double(0.5)])]
            return self._add("Cast", [self._add("And", inside)], to=TensorProto.DOUBLE)
        if name == "lanczos":
            return self._add("Mul", [self._sinc(x), self._sinc(self._add("Div", [x, self._double(3)]))])
        # cos(a) as 1 - 2 sin(a/2)^2: ONNX Runtime has no cosine in double precision.
        sine = self._add("Sin", [self._add("Mul", [x, self._double(np.pi / 2)])])
        cosine = self._add(
            "Sub", [self._double(1), self._add("Mul", [self._add("Mul", [sine, sine]), self._double(2)])]
        )
        # Pillow's constants are of single precision, and do not sum to 1; it has 1 in the middle all the same.
        level, swing = (self._double(float(np.float32(value))) for value in (0.54, 0.46))
        window = self._add("Add", [level, self._add("Mul", [swing, cosine])])
        values = self._add("Mul", [self._sinc(x), window])
        return self._add("Where", [self._add("Equal", [x, self._double(0)]), self._double(1), values])

    def _sinc(self, x: str) -> str:
        angle = self._add("Mul", [self._add("Abs", [x]), self._double(np.pi)])
        angle = self._add("Max", [angle, self._double(_TINY)])
        return self._add("Div", [self._add("Sin", [angle]), angle])

    def crop(self, pixels: str, sides: str, spec: PreprocessSpec) -> str:
        """The centre; halves are rounded to even, or down."""
        is_whole = spec.resize != "shorter" and spec.resize_size == spec.image_size
        if is_whole or (spec.resize != "none" and spec.interpolation in _REACH):
            return pixels
        start, size = self._start(sides, spec), self._constant(spec.image_sides, np.int64)
        return self._add("Slice", [pixels, start, self._add("Add", [start, size]), self._constant([2, 3], np.int64)])

    def _start(self, sides: str, spec: PreprocessSpec) -> str:
        """The first row and column of the crop."""
        size = self._constant(spec.image_sides, np.int64)
        margin = self._add("Cast", [self._add("Sub", [sides, size])], to=TensorProto.DOUBLE)
        rounding = "Round" if spec.crop_offset == "even" else "Floor"
        half = self._add(rounding, [self._add("Div", [margin, self._constant(2, np.float64)])])
        return self._add("Cast", [half], to=TensorProto.INT64)

    def normalize(self, pixels: str, spec: PreprocessSpec) -> str:
        """Float32, in the runtime's order of operations."""
        x = self._add("Cast", [pixels], to=TensorProto.FLOAT)
        if spec.scale == "unit":
            x = self._add("Div", [x, self._constant(255, np.float32)])
        shape = (1, spec.num_channels, 1, 1)
        x = self._add("Sub", [x, self._constant(np.reshape(spec.mean, shape), np.float32)])
        return self._add("Div", [x, self._constant(np.reshape(spec.std, shape), np.float32)])

    def _add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{_PREFIX}{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, value: Any, dtype: type) -> str:
        name = f"{_PREFIX}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _double(self, value: float) -> str:
        return self._constant(value, np.float64)

    def _range(self, start: int, end: int) -> tuple[str, str]:
        return self._constant([start], np.int64), self._constant([end], np.int64)
