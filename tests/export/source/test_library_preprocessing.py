"""What EdgePort makes of images, by the description of a library, is what the library makes of them, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeport_export.source.processor import PROCESSOR, processor_fields
from edgeport_export.source.resolve import ARCHITECTURE, preprocess_of, resolve, tell_architecture
from edgeport_export.source.subject import OWN_INPUT
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

E2E = Path(__file__).parents[2] / "e2e"
LIBRARIES = [f"timm_{name}" for name in ("bicubic", "bilinear", "most", "all", "squash")]
LIBRARIES += [f"torchvision_{name}" for name in ("bilinear", "bicubic", "close")]
TRANSFORMERS = [
    f"transformers_{name}"
    for name in (
        *("vit", "deit", "bit", "clip", "convnext", "convnext_384", "efficientnet", "levit", "mobilenet", "mobilevit"),
        *("poolformer", "siglip"),
    )
]


@pytest.fixture(scope="module")
def photos(shared: Callable[[str], Path]) -> list[Path]:
    return find_images(shared("data/cats-dogs/test"))[6::12]  # 8, of as many shapes


@pytest.fixture(scope="module")
def reference(
    photos: list[Path], peer: Callable[[str], Path], once: Callable[[str, Callable[[Path], object]], Path]
) -> Path:
    """The descriptions and pixels of tests/e2e/preprocessing_reference.py."""
    folders = [str(peer("pillow12")), *filter(None, sys.path), str(E2E)]
    folders += [str(peer(name)) for name in ("timm", "torchvision", "transformers")]
    return once(
        "preprocessing",
        lambda folder: subprocess.run(
            [sys.executable, E2E / "preprocessing_reference.py", folder, *photos],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            check=True,
        ),
    )


def _pixels(case: str, reference: Path, photos: list[Path]) -> np.ndarray:
    told = json.loads((reference / f"{case}.json").read_text())
    if case in TRANSFORMERS:
        fields = processor_fields(told, set())
    else:
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    spec = preprocess_of(resolve({ARCHITECTURE: tell_architecture(OWN_INPUT), PROCESSOR: fields}))
    return np.stack([to_pixels(photo, spec) for photo in photos])


@pytest.mark.parametrize("case", [*LIBRARIES, *TRANSFORMERS])
def test_pixels_are_the_librarys_to_the_bit(case: str, reference: Path, photos: list[Path]) -> None:
    np.testing.assert_array_equal(_pixels(case, reference, photos), np.load(reference / f"{case}.npy"))


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_pixels_of_transformers_with_torchvision_are_near(case: str, reference: Path, photos: list[Path]) -> None:
    """torchvision rounds a resized tensor otherwise than Pillow: at most 2 levels, in at most 0.49% of the values."""
    ours, theirs = (x.astype(int) for x in (_pixels(case, reference, photos), np.load(reference / f"{case}.fast.npy")))
    assert np.abs(ours - theirs).max() <= 2
    assert (ours != theirs).mean() <= 0.01


@pytest.mark.parametrize(
    ("case", "reason"), [("timm_border", "crop_mode is 'border'"), ("timm_padded", "crop_pct is 1.15")]
)
def test_what_cannot_be_done_is_refused(case: str, reason: str, reference: Path) -> None:
    told = json.loads((reference / f"{case}.json").read_text())
    assert reason in told
    assert "set --resize" in told


def test_efficientnet_is_normalized_twice() -> None:
    """Pixels times a factor, less 1, normalized, and divided by the deviation once more, as one mean and deviation."""
    document = {"image_processor_type": "EfficientNetImageProcessor", "size": 64, "rescale_factor": 1 / 127.5}
    document |= {"rescale_offset": True, "include_top": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4] * 3}
    fields = processor_fields(document, set())
    pixels = np.arange(256.0)[:, None]
    mean, std = np.array(document["image_mean"]), np.array(document["image_std"])
    expected = (pixels / 127.5 - 1 - mean) / std / std
    np.testing.assert_allclose((pixels / 255 - fields["mean"]) / fields["std"], expected, rtol=1e-12, atol=1e-12)
