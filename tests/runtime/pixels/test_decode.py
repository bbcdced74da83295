from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import MAX_PIXELS, find_images, load_image
from edgeport_runtime.pixels.formats import image_suffixes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = "JPEG, PNG, BMP, GIF, PPM, TIFF, WEBP, AVIF"
GREY = np.array([[0, 10, 20], [130, 140, 255]], np.uint8)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
SCALE_IT = "scale its values to that range, and convert it with .astype(np.uint8)"
GREY16 = np.array([[0, 255, 256], [511, 32768, 65535]], np.uint16)
HIGH_BYTES = np.array([[0, 0, 1], [1, 128, 255]], np.uint8)

PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
INDICES = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)

# EXIF 2.32, tag 274: where row 0 and column 0 of the stored pixels lie in the picture as a person sees it.
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(PALETTE.ravel().tolist())
    return image


def decode(source: Any, mode: Any = "RGB") -> NDArray[np.uint8]:
    image = load_image(source, mode)
    assert image.mode == mode
    return np.asarray(image)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def grey_as_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(Image.fromarray(RGB), "PNG"), RGB, id="rgb"),
        pytest.param(encode(Image.fromarray(GREY), "PNG"), grey_as_rgb(GREY), id="grey"),
        pytest.param(
            encode(Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA"), "PNG"), grey_as_rgb(GREY), id="grey-alpha"
        ),
        pytest.param(encode(Image.fromarray(np.dstack([RGB, GREY])), "PNG"), RGB, id="rgba"),
        pytest.param(encode(palette_image(), "PNG"), PALETTE[INDICES], id="palette"),
        pytest.param(encode(palette_image(), "PNG", transparency=1), PALETTE[INDICES], id="palette-one-transparent"),
        pytest.param(
            encode(palette_image(), "PNG", transparency=bytes([0, 90, 255, 1])), PALETTE[INDICES], id="palette-alpha"
        ),
        pytest.param(encode(palette_image(), "GIF"), PALETTE[INDICES], id="gif"),
        pytest.param(
            encode(Image.fromarray(GREY).point(lambda v: 255 * (v > 128), "1"), "PNG"),
            grey_as_rgb(np.where(GREY > 128, 255, 0).astype(np.uint8)),
            id="one-bit",
        ),
        pytest.param(encode(Image.fromarray(GREY16), "PNG"), grey_as_rgb(HIGH_BYTES), id="grey16-png"),
        pytest.param(encode(Image.fromarray(GREY16), "TIFF"), grey_as_rgb(HIGH_BYTES), id="grey16-tiff"),
        pytest.param(
            encode(Image.fromarray(GREY16.astype(">u2")), "TIFF"), grey_as_rgb(HIGH_BYTES), id="grey16-tiff-big-endian"
        ),
    ],
)
@pytest.mark.filterwarnings("error", "ignore::edgeport_runtime.ImageWarning")
def test_every_kind_of_file_gives_its_8_bit_colours(data: bytes, expected: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decode(data), expected)


def test_grey_is_the_luma_of_the_colours() -> None:
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    # ITU-R 601-2 in Pillow's 16-bit fixed point: within one level of the exact sum.
    assert np.abs(decode(encode(Image.fromarray(RGB), "PNG"), "L") - luma).max() <= 1
    for options in ({}, {"transparency": 1}, {"transparency": bytes([0, 90, 255, 1])}):
        np.testing.assert_array_equal(
            decode(encode(palette_image(), "PNG", **options), "L"), decode(PALETTE[INDICES], "L")
        )


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 255, 0), (0, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 55), (200, 200, 200)),
    ],
)
def test_cmyk_jpeg(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
    # Flat colours survive JPEG at quality 100: the difference measured is 0, an inverted reading is off by 255.
    assert np.abs(decode(data).astype(int) - colour).max() <= 1


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_exif_orientation_turns_the_picture_upright(
    orientation: int, file_format: str, options: dict[str, Any]
) -> None:
    image = Image.fromarray(RGB.repeat(8, axis=0).repeat(8, axis=1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, file_format, exif=exif, **options)
    stored = decode(encode(image, file_format, **options))
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(decode(Image.open(io.BytesIO(data))), expected)


def test_orientation_outside_the_standard_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    np.testing.assert_array_equal(decode(encode(Image.fromarray(RGB), "PNG", exif=exif)), RGB)


def test_sources_of_one_picture_agree(tmp_path: Path) -> None:
    data = encode(Image.fromarray(RGB), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    flipped_twice = RGB[::-1][::-1]
    assert not RGB[:, ::-1].flags.c_contiguous
    sources: list[Any] = [path, str(path), data, bytearray(data), memoryview(data), Image.fromarray(RGB), RGB]
    sources += [np.dstack([RGB, GREY]), flipped_twice, np.asfortranarray(RGB)]
    for source in sources:
        np.testing.assert_array_equal(decode(source), RGB)
    np.testing.assert_array_equal(decode(RGB[:, ::-1]), RGB[:, ::-1])
    for array in (GREY, GREY[:, :, np.newaxis]):
        np.testing.assert_array_equal(decode(array), grey_as_rgb(GREY))
        np.testing.assert_array_equal(decode(array, "L"), GREY)


def test_pil_image_of_the_caller_is_left_as_it_was() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encode(palette_image(), "PNG", exif=exif, transparency=b"\0\1"))) as image:
        load_image(image, "RGB")
        assert (image.mode, image.size, image.getexif()[0x0112]) == ("P", (3, 2), 6)
        assert image.info["transparency"] == b"\0\1"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the image data is empty (0 bytes)"),
        (b"a,b\n1,2\n", f"the image data cannot be read as an image ({FORMATS})"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", f"the image data cannot be read as an image ({FORMATS})"),
        (
            Image.new("F", (2, 2)),
            "the image has floating-point values, whose range is undefined; save it with 8 bits",
        ),
        (Image.new("I", (2, 2), 70_000), "the image has integers of more than 16 bits; save it with 8 bits"),
        (Image.new("I", (2, 2), -1), "the image has integers of more than 16 bits; save it with 8 bits"),
        (Image.new("RGB", (0, 2)), "the image has no pixels"),
        (RGB / 255, f"an image array must be of type uint8 (0 to 255), not float64; {SCALE_IT}"),
        (GREY16, f"an image array must be of type uint8 (0 to 255), not uint16; {SCALE_IT}"),
        (GREY > 0, f"an image array must be of type uint8 (0 to 255), not bool; {SCALE_IT}"),
        (RGB[:, :, :2], "an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape (2, 3, 2)"),
        (
            RGB[np.newaxis],
            "an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape (1, 2, 3, 3); "
            "give several images to predict_batch or stream",
        ),
        (
            np.zeros((3, 8, 9), np.uint8),
            "an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape (3, 8, 9); "
            "put the channels last with .transpose(1, 2, 0)",
        ),
        (GREY[0], "an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape (3,)"),
        (RGB[:0], "an image array must be HWC with 1, 3 or 4 channels, or HW, not of shape (0, 3, 3)"),
        (
            np.broadcast_to(np.uint8(0), (10_000, 10_000, 3)),
            f"the image array has 10000x10000 pixels; at most {MAX_PIXELS:,} are accepted",
        ),
        (7, "an image is a path, bytes, a binary file, a PIL image or a uint8 array HWC, not int"),
        (None, "the image is None, which cv2.imread gives for a file that it cannot read; check the path"),
    ],
)
def test_source_that_is_no_image_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_image(source, "RGB")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the image is None, which cv2.imread gives for a file that it cannot read; check the path"),
        ([[1, 2], [3, 4]], "an image is a path, bytes, a binary file, a PIL image or a uint8 array HWC, not list"),
    ],
)
def test_what_is_no_image_is_said_before_its_colours(source: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_image(source, "RGB", color="bgr")
    assert str(caught.value) == message


def test_path_that_holds_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("notes.jpg", f" cannot be read as an image ({FORMATS})"),
        ("empty.png", " is empty (0 bytes)"),
        ("absent.png", ": No such file or directory"),
        ("", ": Is a directory"),
    ):
        path = tmp_path / name
        with pytest.raises(InputError) as caught:
            load_image(path, "RGB")
        assert str(caught.value) == f"{path}{message}"


@pytest.mark.parametrize("side", [9_460, 13_000, 40_000])
def test_too_many_pixels_are_refused_before_decoding(side: int) -> None:
    assert side**2 > MAX_PIXELS
    # The file holds no pixels at all: had decoding begun, the message would be of damage.
    with pytest.raises(
        InputError, match=rf"^the image data has (too many|{side}x{side}) pixels; at most 89,478,485 are accepted$"
    ):
        load_image(png_header(side, side), "RGB")


def test_largest_number_of_pixels_is_still_decoded() -> None:
    with pytest.raises(InputError, match=r"^the image data is damaged or cut short"):
        load_image(png_header(9_459, 9_459), "RGB")


def test_photo_cut_short_is_named(photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(photos[0].read_bytes()[:10_000])
    with pytest.raises(InputError) as caught:
        load_image(path, "RGB")
    assert str(caught.value).startswith(f"{path} is damaged or cut short (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the damage
def test_damage_raises_input_error_and_nothing_else(file_format: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8))
    exif = {} if file_format in ("BMP", "GIF", "PPM") else {"exif": Image.Exif()}
    data = encode(noise, file_format, **exif)
    cut = [data[:length] for length in range(1, len(data), max(1, len(data) // 100))]
    changed = []
    for _ in range(200):
        altered = bytearray(data)
        for position in rng.integers(0, min(len(data), int(rng.choice([40, 300, len(data)]))), 3):
            altered[position] = rng.integers(256)
        changed.append(bytes(altered))
    num_refused = 0
    path = tmp_path / "damaged"
    for damaged in cut + changed:
        path.write_bytes(damaged)
        for source in (damaged, path):
            try:
                load_image(source, "RGB")
            except InputError:
                num_refused += 1
    assert num_refused >= len(cut)  # some formats show what is there of a file that is cut short late


def test_find_images_searches_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/notes.txt", "c.webp", "a/b/c.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a/b/c.tiff", "a/z.png", "b.JPG", "c.webp"]


def test_find_images_names_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_images(tmp_path)
    assert str(caught.value) == f"{tmp_path} contains no image ({' '.join(sorted(image_suffixes()))})"
    with pytest.raises(InputError) as caught:
        find_images(tmp_path / "absent")
    assert str(caught.value) == f"{tmp_path / 'absent'} is not a folder of images"
