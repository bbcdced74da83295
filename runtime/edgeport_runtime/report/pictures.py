"""Small pictures for the page, and the way of an image to the network's input, step by step. H W image, C channels."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgeport_runtime.pixels.decode import load_image, orientation_of
from edgeport_runtime.pixels.preprocess import centre_crop, normalize, resize_image, to_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["input_steps", "thumbnail"]

_SIDE, _SMALL, _QUALITY = 160, 64, 82
_SPAN = 3.0  # normalized values that are shown, black to white: images hardly have others

# What undoes the rotation of `load_image`, to show an image as its file holds it.
_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def thumbnail(image: Image.Image) -> str:
    """A picture of at most 160 pixels a side as the URL of its own bytes: JPEG, or PNG where it is small as it is."""
    small = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    is_small = max(small.size) <= _SMALL
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    if is_small:
        small.save(buffer, "PNG", optimize=True)
    else:
        small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def input_steps(path: Path, spec: PreprocessSpec, *, has_pictures: bool) -> list[dict[str, Any]]:
    """What becomes of an image on its way to the network.

    Args:
        path: its file.
        spec: the input contract.
        has_pictures: show the image; otherwise sizes alone.

    Returns:
        For each step its ``name``, ``size`` (width, height), what is to be said of it (``note``), and ``picture``, the
        URL of a small one (None without pictures).

    Raises:
        InputError: if the image cannot be used.
    """
    orientation = orientation_of(path)
    upright = load_image(path, spec.mode, bits=spec.bits)
    resized = resize_image(upright, spec, name=path.name)
    cropped = centre_crop(resized, spec)
    steps = []

    def add(name: str, image: Image.Image, note: str) -> None:
        picture = thumbnail(image) if has_pictures else None
        steps.append({"name": name, "size": list(image.size), "note": note, "picture": picture})

    if orientation != 1:
        add("decoded", upright.transpose(_UNDONE[orientation]), f"as the file holds it, in {spec.mode}")
        add("rotated", upright, f"as EXIF orientation {orientation} says")
    else:
        add("decoded", upright, f"upright as the file holds it, in {spec.mode}")
    if spec.resize == "none":
        add("resized", resized, "no resize: the image must have this size")
    else:
        add("resized", resized, _resize_note(spec))
    add("cropped", cropped, "from the centre" if cropped.size != resized.size else "nothing is cut off")
    x_CHW = normalize(to_pixels(path, spec), spec)
    values_HWC = np.clip((x_CHW.transpose(1, 2, 0) + _SPAN) * (255 / (2 * _SPAN)), 0, 255).astype(np.uint8)
    shown = values_HWC[:, :, :3] if spec.num_channels >= 3 else values_HWC[:, :, 0]
    add("normalized", Image.fromarray(np.ascontiguousarray(shown)), _normalized_note(spec, x_CHW))
    return steps


def _resize_note(spec: PreprocessSpec) -> str:
    told = {"shorter": "to cover", "exact": "to exactly", "pad": "to fit into, and padded to"}[spec.resize]
    height, width = (spec.resize_size, spec.resize_size) if isinstance(spec.resize_size, int) else spec.resize_size
    return f"{told} {width}x{height}, {spec.interpolation}"


def _normalized_note(spec: PreprocessSpec, x_CHW: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    channels = {"rgb": "RGB", "bgr": "BGR", "grey": "grey", "rgba": "RGBA", "la": "grey and alpha"}[spec.color]
    return (
        f"what the network sees, {channels}: values {x_CHW.min():.2f} to {x_CHW.max():.2f}, mean {x_CHW.mean():.2f}; "
        f"black is {-_SPAN:g}, white {_SPAN:g}"
    )
