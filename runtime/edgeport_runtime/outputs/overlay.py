"""A photo with a heat map over it, drawn with Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draw", "enlarged"]

# Dark to bright, so that it reads in grey as well, and by people who do not tell red from green.
_COLOURS = ((20, 10, 60), (95, 25, 125), (185, 45, 110), (240, 105, 60), (250, 180, 45), (255, 250, 190))
_MIN_SIDE = 256  # smaller photos are enlarged, or nothing could be read
_PAPER, _INK = (255, 255, 255), (30, 30, 30)
_MARGIN, _BAR = 12, 16
_MAX_LETTERS = 60


def enlarged(photo: Image.Image) -> Image.Image:
    """A photo large enough to draw on: small ones with pixels that can be seen."""
    factor = -(-_MIN_SIDE // max(photo.size))
    return (
        photo if factor < 2 else photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.NEAREST)
    )


def draw(
    photo: Image.Image, values_HW: NDArray[np.float32], *, ends: tuple[float, float], lines: tuple[str, ...]
) -> Image.Image:
    """Put a map over a photo, with lines above and a colour bar beside.

    Args:
        photo: RGB.
        values_HW: float32, of the photo's size; NaN where there is none, which is shown pale.
        ends: the value of the darkest and of the brightest colour.
        lines: of text.
    """
    low, high = ends
    part = np.nan_to_num((values_HW - low) / (high - low if high > low else 1.0)).clip(0, 1)
    pixels = np.asarray(photo, np.float32)
    grey = (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, np.newaxis]
    share = (0.25 + 0.5 * part)[:, :, np.newaxis]
    mixed = share * _coloured(part) + (1 - share) * (0.5 * pixels + 0.5 * grey)
    mixed = np.where(np.isnan(values_HW)[:, :, np.newaxis], 0.5 * grey + 0.5 * 255, mixed)
    return _frame(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)), lines, (f"{high:.3g}", f"{low:.3g}"))


def _coloured(part: NDArray[np.float32]) -> NDArray[np.float32]:
    at = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(part, at, channel) for channel in np.transpose(_COLOURS)], axis=-1).astype(np.float32)


def _frame(picture: Image.Image, lines: tuple[str, ...], ends: tuple[str, str]) -> Image.Image:
    can_scale = features.check("freetype2")
    font = ImageFont.load_default(min(24, max(12, picture.height // 20)) if can_scale else None)
    lines = tuple(_plain(text, is_latin=not can_scale) for text in lines)
    measure = ImageDraw.Draw(picture)
    boxes = [measure.textbbox((0, 0), text, font=font) for text in (*lines, *ends)]
    line = max(int(box[3]) for box in boxes) + 4
    beside = max(_BAR, *(int(box[2]) for box in boxes[len(lines) :]))
    width = max(picture.width + 3 * _MARGIN + beside, *(int(box[2]) + 2 * _MARGIN for box in boxes[: len(lines)]))
    top, height = _MARGIN + len(lines) * line, max(picture.height, 4 * line)
    page = Image.new("RGB", (width, top + height + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(page)
    for i, text in enumerate(lines):
        pen.text((_MARGIN, _MARGIN // 2 + i * line), text, fill=_INK, font=font)
    page.paste(picture, (_MARGIN, top))
    left = picture.width + 2 * _MARGIN
    bar = _coloured(np.linspace(1, 0, height - 2 * line, dtype=np.float32)[:, np.newaxis].repeat(_BAR, 1))
    page.paste(Image.fromarray(bar.round().astype(np.uint8)), (left, top + line))
    pen.text((left, top), ends[0], fill=_INK, font=font)
    pen.text((left, top + height - line), ends[1], fill=_INK, font=font)
    return page


def _plain(text: str, *, is_latin: bool) -> str:
    """One short line: a label may be as long as its author likes."""
    text = " ".join(text.split())
    text = text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 3]}..."
    return text.encode("latin-1", "replace").decode("latin-1") if is_latin else text
