"""12 bits in files of 16: what the file says, what the contract says, and a warning where neither does."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from edgeport_runtime import ImageWarning, InputError
from edgeport_runtime.pixels.decode import load_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def grey(photos: list[Path]) -> NDArray[np.uint8]:
    with Image.open(photos[0]) as image:
        return np.asarray(image.convert("L"))


@pytest.fixture(scope="module")
def deep(grey: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The photo with 12 bits per value."""
    noise = np.random.default_rng(0).integers(0, 16, grey.shape, dtype=np.uint16)
    return grey.astype(np.uint16) << 4 | noise


def png(values: NDArray[np.uint16], *, sbit: int | None = None) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if sbit is not None:
        info.add(b"sBIT", bytes([sbit]))
    Image.fromarray(values).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def tiff(values: NDArray[np.uint16], **tags: int) -> bytes:
    info, file = TiffImagePlugin.ImageFileDirectory_v2(), io.BytesIO()
    for name, value in tags.items():
        number = {"MaxSampleValue": 281, "SMaxSampleValue": 341}[name]
        info.tagtype[number] = 3
        info[number] = value
    Image.fromarray(values).save(file, "TIFF", tiffinfo=info)
    return file.getvalue()


def packed_tiff(values: NDArray[np.uint16]) -> bytes:
    """BitsPerSample of 12: two values in three bytes."""
    height, width = values.shape
    assert width % 2 == 0
    pairs = values.astype(np.uint32).reshape(-1, 2)
    both = pairs[:, 0] << 12 | pairs[:, 1]
    data = np.stack([both >> 16, both >> 8, both], axis=1).astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def pgm(values: NDArray[np.uint16], maximum: int) -> bytes:
    height, width = values.shape
    return f"P5\n{width} {height}\n{maximum}\n".encode() + values.astype(">u2").tobytes()


def png_of_colours(values_HWC: NDArray[np.uint16]) -> bytes:
    height, width, _ = values_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def decoded(source: Any, bits: int | None) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageWarning)
        return np.asarray(load_image(source, "L", bits=bits))


def test_what_the_file_says_comes_first(grey: NDArray[np.uint8], deep: NDArray[np.uint16]) -> None:
    even = deep[:, : deep.shape[1] // 2 * 2]
    scaled = (deep << 4 | deep >> 8).astype(np.uint16)  # as PNG wants values of 12 bits
    for bits in (12, 14, 16):
        for data in (
            png(deep, sbit=12),
            png(scaled, sbit=12),
            tiff(deep, SMaxSampleValue=4095),
            tiff(deep, MaxSampleValue=4095),
        ):
            np.testing.assert_array_equal(decoded(data, bits), grey)
        np.testing.assert_array_equal(decoded(packed_tiff(even), bits), grey[:, : even.shape[1]])
        # Pillow scales by the maximum: 4095 to 65535, and rounds.
        assert np.abs(decoded(pgm(deep, 4095), bits).astype(int) - grey).max() <= 1


def test_the_contract_says_it_of_the_others(grey: NDArray[np.uint8], deep: NDArray[np.uint16]) -> None:
    for source in (png(deep), tiff(deep), pgm(deep, 65535), Image.fromarray(deep)):
        np.testing.assert_array_equal(decoded(source, 12), grey)
        with pytest.warns(ImageWarning, match="uses less than a sixteenth of its range"):
            dark = np.asarray(load_image(source, "L", bits=16))
        np.testing.assert_array_equal(dark, deep >> 8)
    assert (round(float(grey.mean())), round(float(dark.mean()))) == (114, 7)


def test_bundles_of_the_first_release_keep_the_high_byte(deep: NDArray[np.uint16]) -> None:
    even = deep[:, : deep.shape[1] // 2 * 2]
    for source, values in (
        (png(deep, sbit=12), deep),
        (tiff(deep, SMaxSampleValue=4095), deep),
        (packed_tiff(even), even),
    ):
        with pytest.warns(ImageWarning, match="nearly black to the model"):
            np.testing.assert_array_equal(load_image(source, "L", bits=None), values >> 8)


def test_a_dark_picture_of_16_bits_is_told_once_and_kept(deep: NDArray[np.uint16]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            load_image(png(deep), "L", bits=16)
        load_image(png(deep * 16), "L", bits=16)
        load_image(png(deep * 0), "L", bits=16)
    assert len(seen) == 1


def test_values_beyond_what_was_said_are_refused(deep: NDArray[np.uint16], tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(png(deep * 4))
    with pytest.raises(InputError) as caught:
        load_image(path, "L", bits=12)
    assert str(caught.value) == (
        f"{path} has values up to {int(deep.max()) * 4:,}, which are more than 12 bits; give it the range of the other "
        "images, or export with --bits 16"
    )


def test_a_statistic_is_not_taken_for_the_range(deep: NDArray[np.uint16]) -> None:
    """MaxSampleValue may be the largest value of the one picture."""
    dark = deep // 5
    np.testing.assert_array_equal(decoded(tiff(dark, MaxSampleValue=int(dark.max())), 12), dark >> 4)


def test_colours_of_which_pillow_gives_the_high_byte_only(photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        colours = np.asarray(image.convert("RGB"))[:40, :60]
    full, low = png_of_colours(colours.astype(np.uint16) * 257), png_of_colours(colours.astype(np.uint16) << 4)
    for bits in (None, 16):
        np.testing.assert_array_equal(load_image(full, "RGB", bits=bits), colours)
        with pytest.warns(ImageWarning, match="less than a sixteenth"):
            np.testing.assert_array_equal(load_image(low, "RGB", bits=bits), colours >> 4)
    with pytest.raises(InputError, match="has colours of 16 bits, of which Pillow reads only the high byte, but this"):
        load_image(low, "RGB", bits=12)
