"""Models that EdgePort did not write: which input takes the images, which output holds the classes, and how they pass.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from edgeport_runtime.engine.session import Session, SessionSettings
from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.pixels.preprocess import Size, as_size, sides_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.engine.providers import Provider

__all__ = ["LAYOUTS", "Asked", "ForeignSession", "Layout", "Ports", "find_ports"]

Layout: TypeAlias = Literal["nchw", "nhwc"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_CHANNELS = (1, 3)
_MAX_SIDE = 4096
_MAX_BATCH = 1024
_RANK = 4


class Asked(NamedTuple):
    """What a user says of a model's input and output; None for what is to be found.

    The default size is that of the image where neither the model nor the user says one.
    """

    input_name: str | None = None
    output_name: str | None = None
    layout: Layout | None = None
    image_size: Size | None = None
    default_size: Size | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Where images go in and what comes out.

    Attributes:
        input_name: of the one input.
        dtype: of its values.
        layout: order of its axes.
        batch: images that it takes at once; None for any number.
        channels: 1 or 3.
        image_size: side of the image; height and width where they differ.
        output_name: of the output that holds the classes.
        output_dtype: of its values.
        output_rank: how many axes it has.
        num_outputs: K.
        other_outputs: those that are not looked at.
    """

    input_name: str
    dtype: type[np.generic]
    layout: Layout
    batch: int | None
    channels: int
    image_size: Size
    output_name: str
    output_dtype: type[np.generic]
    output_rank: int
    num_outputs: int
    other_outputs: tuple[str, ...]

    def feed(self, x_BCHW: NDArray[np.float32]) -> NDArray[Any]:
        """A batch as the model takes it; of 8-bit values what lies outside them is cut off, and fractions as well."""
        return _feed(x_BCHW, self.layout, self.dtype)

    def take(self, output: NDArray[Any], num_images: int) -> NDArray[np.float32]:
        """The model's output as float32 (B, K)."""
        result: NDArray[np.float32] = output.reshape(num_images, self.num_outputs).astype(np.float32)
        return result


def find_ports(session: Any, asked: Asked, *, name: str) -> Ports:
    """Find input and output of a model, by what it says of them and by what it gives for black images.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        asked: what the user says.
        name: of the model, for messages.

    Raises:
        InputError: if the model does not take images alone or gives no row of K scores for each, or more must be said.
        SessionError: if it fails.
    """
    one = _choose_input(session.get_inputs(), asked, name)
    dtype = _DTYPES.get(one.type)
    if dtype is None:
        raise InputError(f"the input {one.name} of {name} is {one.type}, not an image of float, float16 or uint8")
    layout, channels, size = _read_shape(one, asked, name)
    fixed = one.shape[0] if isinstance(one.shape[0], int) else None
    if fixed is not None and not 1 <= fixed <= _MAX_BATCH:
        raise InputError(f"{name} takes {fixed} images at once; EdgePort takes models with 1 to {_MAX_BATCH}")
    names = [output.name for output in session.get_outputs()]
    for batch in (2, 1) if fixed is None else (fixed,):
        is_last = batch == 1 or fixed is not None
        black = _feed(np.zeros((batch, channels, *sides_of(size)), np.float32), layout, dtype)
        try:
            values = dict(zip(names, session.run(names, {one.name: black}), strict=True))
            output_name = _choose_output(values, batch, asked.output_name, name)
        except InputError:
            if is_last:
                raise
        except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base class
            if is_last:
                told = " ".join(str(error).split())
                raise SessionError(f"{name} fails on an input of shape {black.shape}: {told}") from None
        else:
            break
    return Ports(
        input_name=one.name,
        dtype=dtype,
        layout=layout,
        batch=None if fixed is None and batch > 1 else batch,
        channels=channels,
        image_size=size,
        output_name=output_name,
        output_dtype=values[output_name].dtype.type,
        output_rank=values[output_name].ndim,
        num_outputs=values[output_name].size // batch,
        other_outputs=tuple(other for other in names if other != output_name),
    )


class ForeignSession(Session):
    """As ``Session``, of a model whose input and output are found.

    Args:
        path: the ``.onnx`` file.
        provider: what to run it on.
        settings: how.
        asked: what the user says of its input and output.

    Attributes:
        ports: what was found.

    Raises:
        InputError, SessionError: as ``find_ports``.
    """

    def __init__(self, path: Path, *, provider: Provider, settings: SessionSettings, asked: Asked) -> None:
        self._asked = asked
        super().__init__(path, provider=provider, settings=settings)

    def _find_ends(self) -> None:
        self.ports = find_ports(self._session, self._asked, name=self.path.name)
        self.input_shape = [self.ports.batch or "batch", self.ports.channels, *sides_of(self.ports.image_size)]
        self.output_name = self.ports.output_name
        self.output_shape = [self.ports.batch or "batch", self.ports.num_outputs]

    def _bind(self, provider: Provider) -> None:
        """Its values pass through numpy."""

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's output (B, K) float32; errors as of ``Session.run``."""
        return self.ports.take(self._call({self.ports.input_name: self.ports.feed(x_BCHW)}), len(x_BCHW))


def _feed(x_BCHW: NDArray[np.float32], layout: Layout, dtype: type[np.generic]) -> NDArray[Any]:
    x = x_BCHW.transpose(0, 2, 3, 1) if layout == "nhwc" else x_BCHW
    return np.ascontiguousarray((x.clip(0, 255) if dtype is np.uint8 else x).astype(dtype))


def _choose_input(inputs: Sequence[Any], asked: Asked, name: str) -> Any:
    told = ", ".join(f"{one.name} {_shape(one.shape)}" for one in inputs)
    if asked.input_name is not None and asked.input_name not in [one.name for one in inputs]:
        raise InputError(f"--input-name is {asked.input_name}, but {name} takes {told or 'nothing'}")
    if len(inputs) != 1:
        raise InputError(
            f"{name} takes {told or 'nothing'}, and EdgePort gives one tensor of images; make the others constants in "
            "the framework that wrote the file"
        )
    return inputs[0]


def _read_shape(one: Any, asked: Asked, name: str) -> tuple[Layout, int, Size]:
    """Layout, channels and size of an input."""
    shape = one.shape
    if len(shape) != _RANK:
        raise InputError(
            f"{name} takes {one.name} {_shape(shape)}, which is no batch of images: those have 4 axes, (batch, "
            "channels, height, width) or (batch, height, width, channels)"
        )
    could_be = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in _CHANNELS]
    if asked.layout is None and len(could_be) != 1:
        is_open = any(isinstance(shape[axis], str | None) for axis in (1, 3)) or could_be
        raise InputError(
            f"{name} takes {one.name} {_shape(shape)}, "
            + (
                "which does not tell where the channels are; add --input-layout nchw or nhwc"
                if is_open
                else "and EdgePort prepares images with 1 or 3 channels"
            )
        )
    layout: Layout = asked.layout or ("nchw" if could_be == ["nchw"] else "nhwc")
    axis = 1 if layout == "nchw" else 3
    channels = shape[axis] if isinstance(shape[axis], int) else 3
    if channels not in _CHANNELS:
        raise InputError(
            f"{name} takes {one.name} {_shape(shape)}, {channels} channels as {layout}, and EdgePort prepares images "
            "with 1 or 3; is --input-layout right?"
        )
    told = [side if isinstance(side, int) else None for side in (shape[2:] if layout == "nchw" else shape[1:3])]
    fixed = [side for side in told if side is not None]
    wanted = next((size for size in (asked.image_size, asked.default_size, *fixed) if size is not None), None)
    if wanted is None:
        raise InputError(f"--image-size is missing; {name} takes {one.name} {_shape(shape)}, images of any size")
    height, width = (side or other for side, other in zip(told, sides_of(wanted), strict=True))
    size = as_size(height, width)
    if asked.image_size not in (None, size):
        wanted = asked.image_size
        told_size = wanted if isinstance(wanted, int) else " ".join(map(str, wanted))
        raise InputError(f"--image-size is {told_size}, but {name} takes {one.name} {_shape(shape)}")
    if not all(1 <= side <= _MAX_SIDE for side in (height, width)):
        raise InputError(f"{name} takes images of {height}x{width} pixels; EdgePort takes sides from 1 to {_MAX_SIDE}")
    return layout, channels, size


def _choose_output(values: Mapping[str, Any], batch: int, wanted: str | None, name: str) -> str:
    """The name of the output with a row of scores for each image."""
    told = ", ".join(f"{key} {_describe(value)}" for key, value in values.items())
    if wanted is not None and wanted not in values:
        raise InputError(f"--output-name is {wanted}, but {name} gives {told}; choose one of these")
    fitting = [key for key, value in values.items() if _is_row_each(value, batch) and wanted in (None, key)]
    if not fitting:
        raise InputError(
            f"{name} is no image classifier: for {batch} image{'s' * (batch > 1)} it gives {told}, "
            f"{'and' if wanted is None else f'and {wanted} is'} no row of K scores for each"
        )
    named = [key for key in fitting if key == "logits"]
    if len(fitting) > 1 and not named:
        raise InputError(f"{name} gives {told}, and several could be the classes; choose with --output-name NAME")
    return (named or fitting)[0]


def _is_row_each(value: Any, batch: int) -> bool:
    """Whether it is (B, K), (B, K, 1, 1), (K,) for one image, or (B,) with one score each; of floats."""
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float16, np.float64) or not value.size:
        return False
    if value.ndim == 1:
        return batch in (1, len(value))
    return value.ndim > 1 and len(value) == batch and all(side == 1 for side in value.shape[2:])


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    kind = "" if value.dtype == np.float32 else f" of {value.dtype}"
    return f"{_shape(value.shape)}{kind}"


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"
