"""Each option has one row, its value comes from the first place that tells it, and its source is that place."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edgeport_export.config import ExportConfig
from edgeport_export.source.processor import CONFIG, PROCESSOR
from edgeport_export.source.resolve import (
    ARCHITECTURE,
    CHECKPOINT,
    COMMAND_LINE,
    INPUT_FIELDS,
    LABELS_FILE,
    LIBRARY,
    OPTIONS,
    preprocess_of,
    resolve,
    sources_of,
    tell_architecture,
    tell_command_line,
)
from edgeport_models import ARCHITECTURES
from edgeport_runtime import InputError

_DEFAULT = tell_architecture(ARCHITECTURES["resnet18"].preprocess, num_classes=1000, positions="learned")
_TOLD: dict[str, Any] = {
    "task": "multilabel",
    "color": "bgr",
    "resize": "exact",
    "resize_size": 300,
    "interpolation": "bicubic",
    "image_size": 96,
    "scale": "byte",
    "mean": (1.0, 2.0, 3.0),
    "std": (4.0, 5.0, 6.0),
    "bits": 12,
    "crop_offset": "down",
    "num_classes": 7,
    "labels": ("one", "two"),
    "positions": "sinusoidal",
    "pooling": "mean",
    "transform_input": True,
}


def _resolve(*places: str, **more: Any) -> dict[str, Any]:
    return resolve({ARCHITECTURE: _DEFAULT, **dict.fromkeys(places, _TOLD), **more})


def test_every_option_has_one_row() -> None:
    names = [option.name for option in OPTIONS]
    assert len(names) == len(set(names))
    assert set(INPUT_FIELDS) <= set(names)
    known = {field.name for field in fields(ExportConfig)}
    assert {option.name for option in OPTIONS if COMMAND_LINE in option.order} <= known


@pytest.mark.parametrize("name", [option.name for option in OPTIONS if len(option.order) > 1])
def test_the_first_place_that_tells_is_believed(name: str) -> None:
    order = next(option.order for option in OPTIONS if option.name == name)
    for first, later in itertools.pairwise(order):
        told = {
            place: {} for place in (ARCHITECTURE, LIBRARY, LABELS_FILE, CHECKPOINT, CONFIG, PROCESSOR, COMMAND_LINE)
        }
        told[ARCHITECTURE] = dict(_DEFAULT)
        told[later] = told[later] | {name: _DEFAULT.get(name, "of the later place")}
        told[first] = told[first] | {name: _TOLD[name]}
        if name == "scale":
            told[first] |= {"mean": _TOLD["mean"], "std": _TOLD["std"]}
        value, source = resolve(told)[name]
        assert (value, source) == (_TOLD[name], first)


def test_the_sources_of_a_whole_configuration() -> None:
    values = _resolve(CHECKPOINT, **{COMMAND_LINE: {"image_size": 160}, LABELS_FILE: {"num_classes": 2}})
    assert sources_of(values, "image_size", "resize_size", "color", "num_classes", "pooling", "labels") == {
        "image_size": COMMAND_LINE,
        "resize_size": COMMAND_LINE,
        "color": CHECKPOINT,
        "num_classes": CHECKPOINT,
        "pooling": CHECKPOINT,
    }
    assert preprocess_of(values).resize_size == 160 * 300 // 96


def test_a_file_of_labels_gives_the_number_where_the_checkpoint_does_not() -> None:
    values = resolve({ARCHITECTURE: _DEFAULT, LABELS_FILE: {"num_classes": 2}})
    assert values["num_classes"] == (2, LABELS_FILE)
    assert sources_of(values, "num_classes") == {"num_classes": COMMAND_LINE}


def test_half_is_the_threshold_of_the_tasks_that_have_one() -> None:
    assert "threshold" not in _resolve()
    assert _resolve(CONFIG)["threshold"] == ((0.5,), ARCHITECTURE)
    assert _resolve(CONFIG, **{COMMAND_LINE: {"threshold": (0.9,)}})["threshold"] == ((0.9,), COMMAND_LINE)
    assert "threshold" not in _resolve(CONFIG, **{COMMAND_LINE: {"task": "multiclass"}})


def test_values_of_pixels_up_to_255_need_their_own_normalization() -> None:
    with pytest.raises(InputError, match="--scale byte needs --mean and --std, in pixel values"):
        _resolve(**{COMMAND_LINE: {"scale": "byte", "mean": (1.0, 2.0, 3.0)}})


def test_views_hold_each_option_of_their_group() -> None:
    config = ExportConfig(
        output=Path("b"), architecture="lenet5", image_size=48, opset=19, seed=3, ort=True, script="c"
    )
    assert config.input_options.image_size == 48
    assert config.graph_options == (19, None, "runtime")
    assert config.quantize_options.seed == 3
    assert config.bundle_options.has_in_graph
    assert config.bundle_options.ort
    assert tell_command_line(config) == {"image_size": 48}
