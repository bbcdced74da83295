"""Where a map lies on the photo, what occlusion gives, and the picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from contracts import make_contract
from edgeport_runtime.errors import InputError
from edgeport_runtime.outputs.heat import chosen_class, heatmap_of, occlude, place_input, scores_of
from edgeport_runtime.outputs.predictions import Prediction
from edgeport_runtime.outputs.tasks import probabilities
from edgeport_runtime.pixels.decode import load_image
from edgeport_runtime.pixels.preprocess import PreprocessSpec, to_pixels

if TYPE_CHECKING:
    from edgeport_runtime.bundle.contract import Task
    from edgeport_runtime.outputs.heat import Heatmap


def spec_of(**values: object) -> PreprocessSpec:
    defaults = {"resize_size": 64, "image_size": 64, "interpolation": "bilinear", "scale": "unit", "color": "rgb"}
    return PreprocessSpec(**(defaults | {"mean": (0.5,) * 3, "std": (0.5,) * 3} | values))


SPECS = {
    "crop": spec_of(resize="shorter", resize_size=72, image_size=56),
    "odd crop": spec_of(resize="shorter", resize_size=75, image_size=56, crop_offset="down"),
    "cover": spec_of(resize="shorter", resize_size=(72, 96), image_size=(64, 80)),
    "exact": spec_of(resize="exact", resize_size=(48, 80), image_size=(48, 80)),
    "pad": spec_of(resize="pad", pad_color=(0, 0, 0)),
    "pad, long": spec_of(resize="pad", resize_size=(64, 128), image_size=(64, 128), pad_color=(0, 0, 0)),
}


def heat_of(values: np.ndarray, photo: Image.Image, spec: PreprocessSpec) -> Heatmap:
    chosen = Prediction(0, "a", 0.5, True)
    return heatmap_of(values.astype(np.float32), "cam", chosen, photo, make_contract(preprocess=spec))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [(300, 200), (211, 307), (250, 250)])
def test_a_bright_spot_is_where_the_map_says(name: str, size: tuple[int, int]) -> None:
    spec, (width, height) = SPECS[name], size
    for x, y in ((0.5, 0.5), (0.42, 0.58), (0.55, 0.4)):
        pixels = np.zeros((height, width, 3), np.uint8)
        column, row = round(x * width), round(y * height)
        pixels[row - 12 : row + 12, column - 12 : column + 12] = 255
        photo = Image.fromarray(pixels)
        seen = to_pixels(photo, spec)[:, :, 0].astype(np.float64)
        heat = heat_of(seen, photo, spec)
        over = np.nan_to_num(heat.over(height, width))
        # the centre of gravity; its tolerance is half a pixel of the network's input
        middle = [(over.sum(axis) * (np.arange(n) + 0.5)).sum() / over.sum() for axis, n in ((1, height), (0, width))]
        left, top, right, bottom = heat.box
        half = max((right - left) / seen.shape[1], (bottom - top) / seen.shape[0]) / 2
        assert middle == pytest.approx([row, column], abs=half)


def test_the_photo_is_upright() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :20] = 255  # upper left as it is stored
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise: then it is upper right
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    spec = spec_of(resize="exact")
    photo = load_image(file.getvalue(), "RGB")
    heat = heat_of(to_pixels(file.getvalue(), spec)[:, :, 0], photo, spec)
    assert heat.size == (80, 40)
    over = heat.over(80, 40)
    assert over[5, 35] > 250
    assert over[5, 5] == over[75, 35] == 0


def test_there_is_nothing_where_the_network_did_not_look() -> None:
    spec = SPECS["crop"]  # of 200 by 100: the middle 56 of 144 by 72
    heat = heat_of(np.ones((7, 7)), Image.new("RGB", (200, 100)), spec)
    assert place_input((100, 200), spec) == pytest.approx((44 * 100 / 72, 8 * 100 / 72, 100 * 100 / 72, 64 * 100 / 72))
    over = heat.over(100, 200)
    assert np.isnan(over[:, :61]).all()
    assert np.isnan(over[:11]).all()
    np.testing.assert_allclose(over[12:88, 62:138], 1)
    pixels = np.asarray(heat.overlay(), int)
    assert heat.overlay().mode == "RGB"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # the colour bar


def test_between_values_the_map_is_linear() -> None:
    heat = heat_of(np.array([[0, 1], [2, 3]]), Image.new("RGB", (64, 64)), spec_of(resize="exact"))
    np.testing.assert_allclose(heat.over(4, 4)[0], [0, 0.25, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(heat.over(4, 4)[:, 0], [0, 0.5, 1.5, 2], atol=1e-6)


def test_a_photo_is_kept_small_enough_to_draw_on() -> None:
    heat = heat_of(np.ones((2, 2)), Image.new("RGB", (3000, 200)), spec_of(resize="exact"))
    assert heat.size == (200, 3000)
    assert max(heat.photo.size) == 1024
    assert max(heat.overlay().size) < 1200


@pytest.mark.parametrize("size", [(1024, 1), (1, 1024), (3, 3)])
def test_any_photo_and_label_can_be_drawn(size: tuple[int, int]) -> None:
    chosen = Prediction(0, "\u732b\n" * 1000, 0.5, True)
    contract = make_contract(preprocess=spec_of(resize="exact"))
    values = np.ones((7, 7), np.float32)  # one value everywhere
    picture = heatmap_of(values, "cam", chosen, Image.new("RGB", size), contract).overlay()
    assert max(picture.size) < 2000
    assert picture.height > 80


def test_occlusion_finds_the_place_that_counts() -> None:
    x_CHW = np.random.default_rng(0).standard_normal((3, 28, 28)).astype(np.float32)
    x_CHW[:, 20:24, 4:8] += 5
    seen: list[int] = []
    values = occlude(
        x_CHW,
        lambda x_BCHW: x_BCHW[:, :, 20:24, 4:8].sum((1, 2, 3)).astype(np.float64),
        on_progress=lambda done, total: seen.append(total - done),
    )
    assert values.shape == (14, 14)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert (row, column) in {(10, 2), (10, 3), (11, 2), (11, 3)}  # windows that cover it all
    assert values[0, 12] == 0
    assert seen[-1] == 0
    assert occlude(x_CHW[:, :5, :3], lambda x_BCHW: x_BCHW.sum((1, 2, 3)).astype(np.float64)).shape == (5, 3)


@pytest.mark.parametrize(
    ("task", "output", "index"),
    [("multiclass", "logits", 1), ("binary", "logits", 0), ("multilabel", "logits", 1), ("binary", "probabilities", 1)],
)
def test_scores_are_log_odds(task: Task, output: str, index: int) -> None:
    contract = make_contract(task, num_classes=2 if task == "binary" else 3, output=output)
    outputs_BK = np.random.default_rng(0).standard_normal((4, contract.num_outputs)).astype(np.float32)
    if output == "probabilities":
        outputs_BK = 1 / (1 + np.exp(-outputs_BK))
    p_BK = probabilities(outputs_BK, contract)
    p_B = p_BK[:, index] if task != "binary" else p_BK[:, 0] if index == 1 else 1 - p_BK[:, 0]
    np.testing.assert_allclose(scores_of(outputs_BK, index, contract), np.log(p_B / (1 - p_B)), atol=1e-5)


def test_a_class_is_found_by_name_or_number() -> None:
    contract = make_contract(num_classes=2, labels=("cat", "dog"))
    predictions = [Prediction(1, "dog", 0.9, True), Prediction(0, "cat", 0.1, False)]
    assert [chosen_class(predictions, contract, one).index for one in (None, "cat", 1)] == [1, 0, 1]
    with pytest.raises(InputError, match="no class is called 'cta'; closest: cat; there are 2"):
        chosen_class(predictions, contract, "cta")
