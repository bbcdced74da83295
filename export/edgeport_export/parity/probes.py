"""Images that put every step of the preprocessing to the test; made from the seed, for the comparison alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["probe_images"]

_ORIENTATION_TAG = 274


def probe_images(spec: PreprocessSpec, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """What each image is, and its file: every EXIF orientation, other colours, wider, taller, smaller.

    Shapes that a contract without a resize forbids are left out.
    """
    generator = np.random.default_rng([seed, 1])
    size = spec.image_size
    small = (size, size) if spec.resize == "none" else (size // 2 + 9, size // 2 + 6)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        yield f"an image with EXIF orientation {orientation}", _file(_picture(generator, *small), exif=exif)
    colours = _picture(generator, *small)
    yield "a grey image", _file(colours.convert("L"))
    yield "an image with transparency", _file(_with_alpha(colours, generator))
    yield "an image with a palette", _file(colours.quantize(64))
    deep = generator.integers(0, 2 ** (spec.bits or 16), small[::-1], dtype=np.uint16)
    yield "an image of 16 bits", _file(Image.fromarray(deep))
    if spec.resize == "none":
        return
    shorter = spec.resize_size + spec.resize_size // 3 + 1
    yield "a wider image", _file(_picture(generator, _longer(shorter, spec, rest=3), shorter))
    yield "a taller image", _file(_picture(generator, shorter, _longer(shorter, spec, rest=1)))


def _longer(shorter: int, spec: PreprocessSpec, *, rest: int) -> int:
    """A longer side for which it matters how the contract rounds.

    Its length after the resize has a fraction of a half or more, which must be cut off; and what is cropped of it is
    ``rest`` more than a multiple of 4: half of it is rounded up (3) or down (1) to an even number.
    """
    for longer in range(2 * shorter, 12 * shorter):
        resized, fraction = divmod(spec.resize_size * longer, shorter)
        if 2 * fraction >= shorter and (resized - spec.image_size) % 4 == rest:
            return longer
    return 2 * shorter + 1


def _picture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Colours that no turn, exchange or shift leaves as they are: blocks under noise."""
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    blocks = generator.integers(20, 236, (4, 4, 3), dtype=np.int16)[rows[:, np.newaxis], columns]
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray((blocks + noise).astype(np.uint8))


def _with_alpha(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    alpha = generator.integers(0, 256, (image.height, image.width), dtype=np.uint8)
    return Image.merge("RGBA", (*image.split(), Image.fromarray(alpha)))


def _file(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({} if exif is None else {"exif": exif}))
    return buffer.getvalue()
