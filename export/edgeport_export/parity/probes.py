"""Images that put every step of the preprocessing to the test; made from the seed, for the comparison alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["probe_images"]

_ORIENTATION_TAG = 274
_FIRST_EXCHANGED = 5  # from this orientation on, what is stored as rows is seen as columns


def probe_images(spec: PreprocessSpec, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """What each image is, and its file: every EXIF orientation, other colours, wider, taller, smaller.

    Shapes that a contract without a resize forbids are left out.
    """
    generator = np.random.default_rng([seed, 1])
    rows, columns = spec.image_sides
    small = (columns, rows) if spec.resize == "none" else (columns // 2 + 9, rows // 2 + 6)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        stored = small[::-1] if spec.resize == "none" and orientation >= _FIRST_EXCHANGED else small
        yield f"an image with EXIF orientation {orientation}", _file(_picture(generator, *stored), exif=exif)
    colours = _picture(generator, *small)
    yield "a grey image", _file(colours.convert("L"))
    yield "an image with transparency", _file(_with_alpha(colours, generator))
    yield "an image with a palette", _file(colours.quantize(64))
    if spec.color in ("rgba", "la"):
        levels = generator.integers(0, 256, 64, dtype=np.uint8)
        yield "an image with a transparent palette", _file(colours.quantize(64), transparency=levels.tobytes())
        yield "an image with a transparent colour", _file(colours, transparency=colours.getpixel((1, 1)))
    deep = generator.integers(0, 2 ** (spec.bits or 16), small[::-1], dtype=np.uint16)
    yield "an image of 16 bits", _file(Image.fromarray(deep))
    if spec.resize == "none":
        return
    wide, tall = _longer(spec, axis=1, rest=3), _longer(spec, axis=0, rest=1)
    yield "a wider image", _file(_picture(generator, *wide))
    yield "a taller image", _file(_picture(generator, *tall[::-1]))


def _longer(spec: PreprocessSpec, *, axis: int, rest: int) -> tuple[int, int]:
    """A side, and one across, for which it matters how the contract rounds; ``axis`` says which the first is.

    Its length after a resize by ``shorter`` has a fraction of a half or more, which must be cut off; and what is
    cropped of it is ``rest`` more than a multiple of 4: half of it is rounded up (3) or down (1) to an even number. By
    ``pad`` it is the side across that is rounded, and the rest of it is odd.
    """
    box, kept = sides_of(spec.resize_size), spec.image_sides
    across = box[1 - axis] + box[1 - axis] // 3 + 1
    shortest = max(2 * across, -(-across * box[axis] // box[1 - axis]) + 1)
    for side in range(shortest, shortest + 10 * across):
        if spec.resize == "pad":
            resized, fraction = divmod(box[axis] * across, side)
            if 2 * fraction > side and (box[1 - axis] - resized - 1) % 2:
                return side, across
        else:
            resized, fraction = divmod(box[1 - axis] * side, across)
            if 2 * fraction >= across and (resized - kept[axis]) % 4 == rest:
                return side, across
    return 2 * across + 1, across


def _picture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Colours that no turn, exchange or shift leaves as they are: blocks under noise."""
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    blocks = generator.integers(20, 236, (4, 4, 3), dtype=np.int16)[rows[:, np.newaxis], columns]
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray((blocks + noise).astype(np.uint8))


def _with_alpha(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    alpha = generator.integers(0, 256, (image.height, image.width), dtype=np.uint8)
    return Image.merge("RGBA", (*image.split(), Image.fromarray(alpha)))


def _file(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()
