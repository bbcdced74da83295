"""What the parity chain runs on: real or synthetic images, random values and constants.

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from edgeport_export.parity.witness import confirmed_pixels, normalized
from edgeport_runtime.pixels.decode import find_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["GoldenFile", "golden_files", "make_batches", "reference_input", "synthetic_image"]

MAX_KEPT, MAX_USED = 8, 64
_NUM_RANDOM = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenFile:
    """An image file of the chain.

    Attributes:
        name: file name it gets in the bundle, None if it is used in the chain only.
        source: where it came from, for messages.
        data: the file's bytes.
    """

    name: str | None
    source: str
    data: bytes


def golden_files(folder: Path | None, spec: PreprocessSpec, *, seed: int) -> list[GoldenFile]:
    """Images for the chain; those that the bundle keeps come first.

    Args:
        folder: searched recursively; up to 64 of its images, spread over the sorted list, are used and 8 of them kept.
            None makes 8 small synthetic images.
        spec: tells the synthetic images their size where it matters.
        seed: of the synthetic images.

    Raises:
        InputError: if the folder is missing or holds no image.
    """
    if folder is None:
        return [
            GoldenFile(name=f"{i}.png", source="synthetic", data=synthetic_image(spec, seed, i))
            for i in range(MAX_KEPT)
        ]
    paths = find_images(folder)
    used = [paths[i] for i in _spread(len(paths), MAX_USED)]
    kept = [used[i] for i in _spread(len(used), MAX_KEPT)]
    names = {path: f"{i}{path.suffix.lower()}" for i, path in enumerate(kept)}
    others = [path for path in used if path not in names]
    return [GoldenFile(name=names.get(path), source=str(path), data=path.read_bytes()) for path in kept + others]


def reference_input(data: bytes, spec: PreprocessSpec, *, source: str) -> NDArray[np.float32]:
    """An image's input by PyTorch's arithmetic, from pixels that the witness has confirmed; float32 CHW.

    Raises:
        InputError: if the image cannot be used.
        ParityError: naming the step by which the runtime's preprocessing departs from the contract.
    """
    pixels_CHW = torch.from_numpy(confirmed_pixels(data, spec, source=source).copy()).permute(2, 0, 1).contiguous()
    return normalized(pixels_CHW, spec).numpy()


def make_batches(images: Sequence[NDArray[np.float32]], contract: Contract, *, seed: int) -> list[NDArray[np.float32]]:
    """Batches that hold every kind of input and every batch size of the chain once.

    Kinds: images, seeded random values, the constants pixel 0 and pixel 255. Sizes: 8, 3, 2 and 1, or the contract's
    fixed one. The images come first, in their order; the batch of 1 is the last image of the first batch of 8, so that
    an answer is known beside others and alone.

    Args:
        images: preprocessed, float32 CHW each.
        contract: gives the shape and the batch.
        seed: of the random values.
    """
    spec = contract.preprocess
    shape = spec.input_shape
    generator = np.random.default_rng(seed)
    random = _random(generator, (_NUM_RANDOM, *shape))
    constants = torch.stack([normalized(torch.full(shape, pixel), spec) for pixel in (0.0, 255.0)]).numpy()
    stacked = np.stack(images)
    if contract.batch is None:
        chunks = [stacked[i : i + 8] for i in range(0, len(stacked), 8)]
        if len(chunks[0]) < 8:
            chunks.append(_random(generator, (8, *shape)))
        return [*chunks, random, constants, max(chunks, key=len)[-1:]]
    every = np.concatenate([stacked, random, constants])
    missing = -len(every) % contract.batch
    every = np.concatenate([every, _random(generator, (missing, *shape))])
    return [every[i : i + contract.batch] for i in range(0, len(every), contract.batch)]


def _random(generator: np.random.Generator, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Blocks of colour under noise; networks average noise alone away, and its logits would be small differences."""
    blocks_BC44 = generator.standard_normal((*shape[:2], 4, 4), dtype=np.float32)
    row, column = (np.arange(side) * 4 // side for side in shape[2:])
    noise_BCHW = generator.standard_normal(shape, dtype=np.float32)
    return blocks_BC44[:, :, row[:, np.newaxis], column] + np.float32(0.5) * noise_BCHW


def _spread(num_items: int, num_wanted: int) -> list[int]:
    """Indices spread evenly over a list, all of them if it is short."""
    if num_items <= num_wanted:
        return list(range(num_items))
    return [i * (num_items - 1) // (num_wanted - 1) for i in range(num_wanted)]


def synthetic_image(spec: PreprocessSpec, seed: int, number: int) -> bytes:
    """A small PNG: smooth colours under noise, of another aspect ratio each where the network's resize allows."""
    generator = np.random.default_rng([seed, number])
    if spec.resize == "none":
        height, width = spec.image_sides
    else:
        width, height = 96 + 16 * (number % 3), 96 + 16 * (number % 2)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = generator.integers(-12, 13, (height, width, 1), dtype=np.int16)
    image = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    if spec.mode in ("RGBA", "LA"):
        image.putalpha(image.getchannel("R").transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
