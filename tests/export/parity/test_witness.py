"""Preprocessing against an independent implementation: what is wrong on both sides of every comparison of logits."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgeport_export import ExportConfig, export
from edgeport_export.parity.probes import probe_images
from edgeport_export.parity.witness import confirmed_pixels
from edgeport_runtime import ParityError
from edgeport_runtime.pixels import decode, preprocess
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import PreprocessSpec, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_spec(**values: Any) -> PreprocessSpec:
    defaults: dict[str, Any] = {
        "color": "rgb",
        "resize": "shorter",
        "resize_size": 64,
        "interpolation": "bilinear",
        "image_size": 56,
        "scale": "unit",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return PreprocessSpec(**defaults | values)


@pytest.mark.parametrize("color", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("resize", ["shorter", "exact"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_photos_are_confirmed(color: str, resize: str, interpolation: str, shared: Callable[[str], Path]) -> None:
    grey: dict[str, Any] = {"mean": (0.5,), "std": (0.25,)} if color == "grey" else {}
    spec = make_spec(color=color, resize=resize, interpolation=interpolation, **grey)
    for photo in find_images(shared("data/cats-dogs/test"))[::25]:
        data = photo.read_bytes()
        pixels_HWC = confirmed_pixels(data, spec, source=photo.name)
        assert np.array_equal(pixels_HWC, to_pixels(data, spec))


@pytest.mark.parametrize("crop_offset", ["even", "down"])
def test_both_offsets_of_the_crop_are_confirmed(crop_offset: str) -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (67, 71, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    spec = make_spec(resize_size=67, crop_offset=crop_offset)  # 11 and 15 pixels are cropped
    expected = pixels_HWC[6:62, 8:64] if crop_offset == "even" else pixels_HWC[5:61, 7:63]
    assert np.array_equal(confirmed_pixels(buffer.getvalue(), spec, source="noise"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_every_kind_of_pixel_is_confirmed(mode: str, color: str) -> None:
    generator = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(generator.integers(0, 65536, (70, 80), dtype=np.uint16))
    else:
        image = Image.fromarray(generator.integers(0, 256, (70, 80, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    spec = make_spec(color=color, **({"mean": (0.5,), "std": (0.25,)} if color == "grey" else {}))
    pixels_HWC = confirmed_pixels(buffer.getvalue(), spec, source=mode)
    assert np.array_equal(pixels_HWC, to_pixels(buffer.getvalue(), spec))
    assert np.ptp(pixels_HWC) > 100


GEOMETRIES: tuple[dict[str, Any], ...] = (
    {"resize_size": (48, 80), "image_size": (40, 72)},
    {"resize": "exact", "resize_size": (80, 48), "image_size": (72, 48)},
    {"resize": "pad", "resize_size": 56, "pad_color": 114},
    {"resize": "pad", "resize_size": (40, 72), "image_size": (40, 72), "pad_color": 0},
    {"resize": "none", "resize_size": (40, 72), "image_size": (40, 72)},
)


def _with_channels(color: str, values: dict[str, Any]) -> PreprocessSpec:
    channels = {"grey": 1, "la": 2, "rgb": 3, "bgr": 3, "rgba": 4}[color]
    pad = {"pad_color": tuple(values["pad_color"] + i for i in range(channels))} if "pad_color" in values else {}
    return make_spec(color=color, **{**values, **pad}, mean=(0.5,) * channels, std=(0.25,) * channels)


@pytest.mark.parametrize(
    ("color", "values"),
    [
        *zip(("rgb", "la", "bgr", "rgba", "grey"), GEOMETRIES, strict=True),
        ("grey", GEOMETRIES[2]),
        ("la", GEOMETRIES[3]),
    ],
)
@pytest.mark.filterwarnings("ignore::edgeport_runtime.ImageWarning")
def test_other_shapes_and_channels_are_confirmed(color: str, values: dict[str, Any]) -> None:
    spec = _with_channels(color, values)
    for name, data in probe_images(spec, seed=0):
        assert confirmed_pixels(data, spec, source=name).shape == (*spec.image_sides, spec.num_channels)


def _confirm_probes(spec: PreprocessSpec) -> None:
    for source, data in probe_images(spec, seed=0):
        confirmed_pixels(data, spec, source=source)


def _left_in_excess(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    padded = Image.new(image.mode, spec.image_sides[::-1], spec.pad_color)
    left, top = (-(-(side - own) // 2) for side, own in zip(padded.size, image.size, strict=True))
    padded.paste(image, (left, top))
    return padded


def _truncated(height: int, width: int, spec: PreprocessSpec) -> tuple[int, int]:
    rows, columns = spec.image_sides
    factor = min(rows / height, columns / width)
    return int(height * factor + 1e-9), int(width * factor + 1e-9)


@pytest.mark.parametrize(("name", "wrong"), [("_padded", _left_in_excess), ("resized_sides", _truncated)])
@pytest.mark.parametrize("values", GEOMETRIES[2:4])
def test_another_letterbox_is_found(
    name: str, wrong: Any, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, name, wrong)
    spec = _with_channels("grey", values)
    with pytest.raises(ParityError, match="the step resize departs"):
        _confirm_probes(spec)


def test_exchanged_sides_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = preprocess.resized_sides
    monkeypatch.setattr(preprocess, "resized_sides", lambda height, width, spec: own(height, width, spec)[::-1])
    spec = make_spec(**GEOMETRIES[1])
    with pytest.raises(ParityError, match="the step resize departs"):
        _confirm_probes(spec)


def test_probes_tell_every_step() -> None:
    sizes = {}
    for name, data in probe_images(make_spec(), seed=0):
        with Image.open(io.BytesIO(data)) as image:
            sizes[name] = image.size
            if "EXIF" in name:
                assert image.getexif()[0x0112] == int(name[-1])
    assert sum("EXIF" in name for name in sizes) == 7
    wide, tall = sizes["a wider image"], sizes["a taller image"]
    assert wide[0] > 2 * wide[1] > 128
    assert tall[1] > 2 * tall[0] > 128
    longer = 64 * wide[0] / wide[1]
    assert int(longer) != round(longer)
    assert {
        size for _, data in probe_images(make_spec(resize="none", resize_size=56), seed=0) for size in [_size(data)]
    } == {(56, 56)}


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def _exchanged(image: Image.Image, spec: PreprocessSpec, *, name: str) -> Image.Image:
    """Vertically first."""
    turned = RESIZE(image.transpose(Image.Transpose.TRANSPOSE), spec, name=name)
    return turned.transpose(Image.Transpose.TRANSPOSE)


def _one_pixel_off(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    box = [(side - spec.image_size) // 2 + 1 for side in image.size]
    return image.crop((box[0], box[1], box[0] + spec.image_size, box[1] + spec.image_size))


RESIZE = preprocess.resize_image
PATCHES: dict[str, tuple[str, Any]] = {
    "resize": ("edgeport_export.parity.witness.resize_image", _exchanged),
    "crop": ("edgeport_export.parity.witness.centre_crop", _one_pixel_off),
}


@pytest.mark.parametrize("step", PATCHES)
def test_an_export_names_the_step_that_departs(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PATCHES[step])
    with pytest.raises(ParityError, match=rf"^preprocessing: the step {step} departs from the contract on an image"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=()))
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_orientation_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_TRANSPOSE", {})
    with pytest.raises(ParityError, match=r"the step decode departs .* EXIF orientation 2: .* of the values differ"):
        export(ExportConfig(architecture="lenet5", output=tmp_path / "bundle", quantize=()))


def test_a_filter_of_another_kind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(preprocess._FILTERS, "bilinear", Image.Resampling.BICUBIC)
    name, data = next(iter(probe_images(make_spec(), seed=0)))
    with pytest.raises(ParityError, match="the step resize departs"):
        confirmed_pixels(data, make_spec(), source=name)
