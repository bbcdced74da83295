from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pytest
from PIL import Image

import edgeport_runtime
from edgeport_models.spec import IMAGENET
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import Interpolation, PreprocessSpec, normalize, preprocess, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PIXELS_ONLY = replace(IMAGENET, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
ACROSS_PILLOW = (
    IMAGENET,
    replace(IMAGENET, resize="exact", resize_size=224),
    replace(IMAGENET, resize="exact", resize_size=64, image_size=64, interpolation="bicubic"),
    replace(IMAGENET, resize_size=232, interpolation="bicubic"),
    replace(IMAGENET, resize="exact", interpolation="nearest"),
)

# The digest of each photo's pixels, of the project and of a single call of resize(); run under either Pillow.
DIGESTS = """
import hashlib, json, sys
import PIL
from PIL import Image
from edgeport_runtime.pixels.preprocess import PreprocessSpec, to_pixels

def digests(pixels):
    return [hashlib.sha256(pixels(path).tobytes()).hexdigest() for path in photos]

specs, photos = json.load(sys.stdin)
specs = [PreprocessSpec.from_dict(spec) for spec in specs]
ours = [digests(lambda path: to_pixels(path, spec)) for spec in specs]
one_call = digests(lambda path: Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
json.dump([PIL.__version__, ours, one_call], sys.stdout)
"""


def reference_pixels(path: Path, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Horizontal pass, vertical pass, centre crop, straight from Pillow."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    target = (spec.resize_size, spec.resize_size)
    if spec.resize == "shorter":
        short = min(width, height)
        target = (width * spec.resize_size // short, height * spec.resize_size // short)
    resampling = Image.Resampling[spec.interpolation.upper()]
    image = image.resize((target[0], height), resampling).resize(target, resampling)
    x, y = (round((side - spec.image_size) / 2) for side in target)
    return np.asarray(image)[y : y + spec.image_size, x : x + spec.image_size]


def test_no_photo_is_rotated_by_exif(photos: list[Path]) -> None:
    # The reference knows nothing of EXIF; tests/runtime/test_images.py covers it.
    assert {Image.open(path).getexif().get(0x0112, 1) for path in photos} == {1}


def test_every_photo_equals_horizontal_then_vertical_pillow(photos: list[Path]) -> None:
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    for path in photos:
        pixels = reference_pixels(path, IMAGENET)
        np.testing.assert_array_equal(to_pixels(path, IMAGENET), pixels)
        exact = (pixels.transpose(2, 0, 1) / 255 - mean) / std
        x = preprocess(path, IMAGENET)
        assert (x.dtype, x.shape) == (np.float32, (3, 224, 224))
        # 3.7e-7 measured on these photos: float32 rounding of values up to 2.7.
        assert np.abs(x - exact).max() < 1e-6


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize(("resize", "sizes"), [("shorter", (256, 224)), ("exact", (224, 224)), ("shorter", (97, 64))])
def test_resizes_equal_horizontal_then_vertical_pillow(
    photos: list[Path],
    resize: Literal["shorter", "exact"],
    sizes: tuple[int, int],
    interpolation: Interpolation,
) -> None:
    spec = replace(IMAGENET, resize=resize, resize_size=sizes[0], image_size=sizes[1], interpolation=interpolation)
    shapes = {Image.open(path).size: path for path in photos}
    by_aspect = [shapes[size] for size in sorted(shapes, key=lambda size: size[0] / size[1])]
    for path in by_aspect[:6] + by_aspect[-6:]:
        np.testing.assert_array_equal(to_pixels(path, spec), reference_pixels(path, spec))


def test_pixels_do_not_depend_on_the_version_of_pillow(photos: list[Path], peer: Callable[[str], Path]) -> None:
    packages = Path(edgeport_runtime.__file__).parent.parent
    task = json.dumps([[spec.to_dict() for spec in ACROSS_PILLOW], [str(path) for path in photos]])

    def run(*path: Path) -> Any:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, packages]))}
        command = [sys.executable, "-c", DIGESTS]
        done = subprocess.run(command, input=task, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    version_12, ours_12, one_call_12 = run(peer("pillow12"))
    version_13, ours_13, one_call_13 = run()
    assert (version_12[:3], version_13[:3]) == ("12.", "13.")
    assert ours_13 == ours_12
    # In one call, Pillow 12 always goes horizontally first and 13 does not: what the two explicit passes are for.
    assert ours_13[1] == one_call_12
    assert one_call_13 != one_call_12


def test_long_side_is_truncated_as_torchvision_does() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8))
    width = 384  # of 451 * 256 / 300 = 384.85
    resized = image.resize((width, 300), Image.Resampling.BILINEAR).resize((width, 256), Image.Resampling.BILINEAR)
    left = (width - 256) // 2
    pixels = to_pixels(image, replace(IMAGENET, image_size=256))
    np.testing.assert_array_equal(pixels, np.asarray(resized)[:, left : left + 256])


@pytest.mark.parametrize(("side", "first"), [(5, 0), (6, 1), (7, 2), (8, 2), (9, 2), (11, 4)])
def test_crop_rounds_half_to_even_as_torchvision_does(side: int, first: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    spec = replace(IMAGENET, resize="exact", resize_size=side, image_size=4)
    np.testing.assert_array_equal(to_pixels(array, spec), array[first : first + 4, first : first + 4])


@pytest.mark.parametrize(("side", "first"), [(5, 0), (6, 1), (7, 1), (8, 2), (9, 2), (11, 3)])
def test_crop_rounds_half_down_as_transformers_does(side: int, first: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    spec = replace(IMAGENET, resize="exact", resize_size=side, image_size=4, crop_offset="down")
    np.testing.assert_array_equal(to_pixels(array, spec), array[first : first + 4, first : first + 4])


def test_colour_order_and_scale() -> None:
    array = np.array([[[0, 128, 255]]], np.uint8)
    one_pixel = replace(PIXELS_ONLY, resize="none", resize_size=1, image_size=1)
    assert to_pixels(array, one_pixel).ravel().tolist() == [0, 128, 255]
    bgr = replace(one_pixel, color="bgr", mean=(1.0, 0.0, 0.0))
    assert to_pixels(array, bgr).ravel().tolist() == [255, 128, 0]
    assert preprocess(array, bgr).ravel().tolist() == [0.0, float(np.float32(128 / 255)), 0.0]
    byte = replace(one_pixel, scale="byte", mean=(0.0, 100.0, 5.0), std=(1.0, 2.0, 1.0))
    assert preprocess(array, byte).ravel().tolist() == [0.0, 14.0, 250.0]
    grey = replace(one_pixel, color="grey", scale="byte", mean=(4.0,), std=(2.0,))
    luma = round(0.587 * 128 + 0.114 * 255)
    assert to_pixels(array, grey).tolist() == [[[luma]]]
    assert preprocess(array, grey).tolist() == [[[(luma - 4) / 2]]]


def test_normalize_covers_all_values_of_a_pixel() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = (np.arange(256).reshape(1, 16, 16) / 255 - np.reshape(IMAGENET.mean, (3, 1, 1))) / np.reshape(
        IMAGENET.std, (3, 1, 1)
    )
    # 3.7e-7 measured over all values of a pixel.
    assert np.abs(normalize(pixels, IMAGENET) - expected).max() < 1e-6


def test_arrays_of_a_caller_are_not_written_to() -> None:
    array = np.full((224, 224, 3), 7, np.uint8)
    preprocess(array, replace(IMAGENET, resize="none", resize_size=224))
    assert (array == 7).all()


def test_another_size_without_a_resize_is_refused(tmp_path: Path) -> None:
    spec = replace(IMAGENET, resize="none", resize_size=224)
    path = tmp_path / "small.png"
    Image.new("RGB", (300, 224)).save(path)
    remedy = "without resizing; resize the image first, or export with --resize shorter"
    for source, name in ((path, str(path)), (path.read_bytes(), "the image data"), (Image.open(path), "the image")):
        with pytest.raises(InputError) as caught:
            preprocess(source, spec)
        assert str(caught.value) == f"{name} is 300x224 pixels, but this model takes 224x224 {remedy}"


@pytest.mark.parametrize(("width", "height"), [(1, 2000), (2000, 1)])
def test_image_too_narrow_to_resize_is_refused(width: int, height: int) -> None:
    size = "256x512000" if width == 1 else "512000x256"
    with pytest.raises(InputError) as caught:
        preprocess(np.zeros((height, width, 3), np.uint8), IMAGENET)
    assert str(caught.value) == (
        f"the image, of {width}x{height} pixels, is too narrow to resize to {size}; at most 89,478,485 are accepted"
    )


def ramp(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "new_height", "new_width"),
    [(100, 100, 160, 160), (96, 160, 96, 160), (200, 300, 106, 160), (50, 90, 96, 172), (300, 100, 480, 160)],
)
def test_the_smallest_that_covers_two_sides_is_cropped(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    spec = replace(PIXELS_ONLY, resize_size=(96, 160), image_size=(96, 160))
    image = Image.fromarray(ramp(height, width))
    resized = image.resize((new_width, height), 2).resize((new_width, new_height), 2)
    top, left = round((new_height - 96) / 2), round((new_width - 160) / 2)
    expected = np.asarray(resized)[top : top + 96, left : left + 160]
    np.testing.assert_array_equal(to_pixels(image, spec), expected)
    assert preprocess(image, spec).shape == (3, 96, 160)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns", "top", "left"),
    [
        (10, 10, 8, 8, 0, 2),
        (8, 12, 8, 12, 0, 0),
        (5, 12, 5, 12, 1, 0),  # 3 rows are left: 1 above, 2 below
        (24, 15, 8, 5, 0, 3),  # 7 columns are left: 3 before, 4 behind
        (10, 24, 5, 12, 1, 0),
        (16, 3, 8, 2, 0, 5),  # 1.5 columns: halves to even
        (16, 5, 8, 2, 0, 5),  # 2.5 columns
        (4, 500, 1, 12, 3, 0),  # 0.096 rows: at least 1
    ],
)
def test_a_letterbox_has_the_image_in_its_middle(
    height: int, width: int, rows: int, columns: int, top: int, left: int
) -> None:
    spec = replace(
        PIXELS_ONLY, color="bgr", resize="pad", resize_size=(8, 12), image_size=(8, 12), pad_color=(10, 20, 30)
    )
    image = Image.fromarray(ramp(height, width))
    expected = np.empty((8, 12, 3), np.uint8)
    expected[:] = 30, 20, 10
    resized = image.resize((columns, height), 2).resize((columns, rows), 2)
    expected[top : top + rows, left : left + columns] = np.asarray(resized)
    np.testing.assert_array_equal(to_pixels(image, spec), expected[:, :, ::-1])


def test_alpha_is_one_channel_more() -> None:
    spec = replace(
        PIXELS_ONLY,
        color="rgba",
        resize="exact",
        resize_size=(5, 6),
        image_size=(5, 6),
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
    )
    array = ramp(9, 8, 4)
    bands = [Image.fromarray(array[:, :, i]).resize((6, 9), 2).resize((6, 5), 2) for i in range(4)]
    np.testing.assert_array_equal(to_pixels(array, spec), np.stack(bands, axis=2))
    np.testing.assert_array_equal(to_pixels(Image.fromarray(array), spec), np.stack(bands, axis=2))
    np.testing.assert_array_equal(to_pixels(array[:, :, [2, 1, 0, 3]], spec, color="bgr"), np.stack(bands, axis=2))
    opaque = to_pixels(array[:, :, :3], spec)
    assert (opaque[:, :, 3] == 255).all()
    np.testing.assert_array_equal(opaque[:, :, :3], np.stack(bands[:3], axis=2))
    grey = replace(spec, color="la", mean=(0.0,) * 2, std=(1.0,) * 2, resize="none")
    two = ramp(5, 6, 2)
    np.testing.assert_array_equal(to_pixels(two, grey), two)
    np.testing.assert_array_equal(to_pixels(Image.fromarray(two), grey), two)
    with pytest.raises(InputError, match="HWC with 1, 3 or 4 channels"):
        to_pixels(two, spec)
