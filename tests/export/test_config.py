"""From options to a module and its contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeport_export.config import ExportConfig, find_spec
from edgeport_export.source.resolve import resolve_preprocess
from edgeport_export.source.subject import find_subject as resolve
from edgeport_models import ARCHITECTURES
from edgeport_runtime import ExportError, InputError, WeightsError


def _config(architecture: str = "lenet5", **options: Any) -> ExportConfig:
    return ExportConfig(architecture=architecture, output=Path("unused"), **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"resize": "shorter", "resize_size": 256, "image_size": 224}),
        ({"image_size": 384}, {"resize_size": 438, "image_size": 384}),
        ({"image_size": 384, "crop_pct": 1.0}, {"resize_size": 384}),
        ({"crop_pct": 0.9}, {"resize_size": 248}),
        ({"crop_pct": 224 / 232}, {"resize_size": 232}),
        ({"image_size": 64, "crop_pct": 64 / 93}, {"resize_size": 93}),  # 64 / (64 / 93) is 92.99...
        ({"resize": "exact"}, {"resize": "exact", "resize_size": 224}),
        ({"resize": "exact", "crop_pct": 0.875}, {"resize_size": 256}),
        ({"resize": "none"}, {"resize": "none", "resize_size": 224}),
        ({"color": "bgr"}, {"color": "bgr", "mean": (0.485, 0.456, 0.406)}),
        ({"color": "grey"}, {"color": "grey", "mean": (0.449,), "std": (0.226,)}),
        ({"channels": 1}, {"color": "grey", "mean": (0.449,)}),
        ({"interpolation": "bicubic"}, {"interpolation": "bicubic"}),
        ({"image_size": (96, 160)}, {"resize_size": (109, 182), "image_size": (96, 160)}),
        ({"image_size": (96, 160), "crop_pct": 0.5}, {"resize_size": (192, 320), "image_size": (96, 160)}),
        ({"image_size": (96, 160), "resize": "exact"}, {"resize_size": (96, 160), "resize": "exact"}),
        ({"resize": "pad"}, {"resize": "pad", "resize_size": 224, "pad_color": (114, 114, 114)}),
        ({"resize": "pad", "pad_color": (9,)}, {"resize": "pad", "pad_color": (9, 9, 9)}),
        ({"resize": "pad", "pad_color": (1, 2, 3)}, {"resize": "pad", "pad_color": (1, 2, 3)}),
        (
            {"channels": 4, "resize": "pad", "mean": (0.0,) * 4, "std": (1.0,) * 4},
            {"color": "rgba", "resize": "pad", "pad_color": (114, 114, 114, 255)},
        ),
        ({"color": "la", "mean": (0.1, 0.2), "std": (1.0, 1.0)}, {"color": "la", "mean": (0.1, 0.2)}),
        (
            {"scale": "byte", "mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)},
            {"scale": "byte", "mean": (104.0, 117.0, 123.0)},
        ),
    ],
)
def test_options_change_the_input_contract(options: dict[str, Any], expected: dict[str, Any]) -> None:
    default = ARCHITECTURES["resnet18"].preprocess
    spec = resolve_preprocess(default, _config("resnet18", **options).input_options)
    assert {key: getattr(spec, key) for key in expected} == expected
    untouched = set(default.to_dict()) - set(expected) - {"resize_size", "std", "mean", "color"}
    assert all(getattr(spec, key) == getattr(default, key) for key in untouched - set(options))


def test_three_channels_repeat_the_grey_mean() -> None:
    spec = resolve_preprocess(ARCHITECTURES["lenet5"].preprocess, _config(channels=3).input_options)
    assert (spec.color, spec.mean) == ("rgb", (0.1307,) * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "grey", "channels": 3}, "--color grey contradicts --channels 3"),
        ({"color": "rgb", "channels": 1}, "--color rgb contradicts --channels 1"),
        ({"scale": "byte"}, "--scale byte needs --mean and --std, in pixel values"),
        ({"resize": "none", "crop_pct": 0.9}, "--crop-pct requires a resize with a crop, but --resize is none"),
        ({"resize": "pad", "crop_pct": 0.9}, "--crop-pct requires a resize with a crop, but --resize is pad"),
        ({"pad_color": (0,)}, "--pad-color is for --resize pad, but --resize is shorter"),
        ({"pad_color": (256,), "resize": "pad"}, "--pad-color is 256; every value must be from 0 to 255"),
        ({"pad_color": (1, 2), "resize": "pad"}, "pad_color has 2 values, but grey images have 1; give one for each"),
        ({"mean": (0.1, 0.2)}, "mean has 2 values, but grey images have 1"),
        ({"std": (0.0,)}, r"std is \(0.0,\); every value must be positive"),
        ({"crop_pct": 1.5}, "--crop-pct is 1.5; it must be above 0 and at most 1"),
        ({"channels": 5}, r"--channels is 5; it must be 1 \(grey\), 2 \(la\), 3"),
        ({"channels": 4}, "--mean is missing; rgba images need 4 values, one per channel"),
        ({"color": "rgba", "channels": 3}, "--color rgba contradicts --channels 3"),
        ({"image_size": 0}, "--image-size is 0; it must be from 1 to 4096"),
        ({"image_size": (32, 4097)}, "--image-size is 32 4097; it must be from 1 to 4096"),
        ({"image_size": (32, 32, 32)}, "--image-size is 32 32 32; give one side, or the height and the width"),
        ({"opset": 12}, "--opset is 12; it must be from 13 to 23"),
        ({"batch": 0}, "--batch is 0; it must be from 1 to 1024"),
        ({"seed": -1}, "--seed is -1; it must be from 0 to 4294967295"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_preprocess(ARCHITECTURES["lenet5"].preprocess, _config(**options).input_options)


def test_a_size_the_architecture_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match="vit_ti_16: image size 100 is not a multiple of the patch size 16"):
        resolve(_config("vit_ti_16", image_size=100))
    with pytest.raises(InputError, match="vit_digits: image size 32 66 is not a multiple of the patch size 4"):
        resolve(_config("vit_digits", image_size=(32, 66)))
    with pytest.raises(InputError, match="lenet5: image size 15 is too small for this network; use 16 or more"):
        resolve(_config("lenet5", image_size=(32, 15)))


def test_unknown_architecture_lists_the_closest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown architecture 'resnet19'; closest: resnet"):
        find_spec("resnet19")
    with pytest.raises(InputError, match=f"{tmp_path} is a folder; hf:{tmp_path} exports a network of transformers"):
        find_spec(str(tmp_path))
    with pytest.raises(InputError, match="unknown architecture 'zzz'; export-model --list shows all"):
        find_spec("zzz")


def test_classes_come_from_the_option_then_the_head_then_the_labels(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nowl\n", encoding="utf-8")
    weights = tmp_path / "lenet5.pth"
    torch.save(ARCHITECTURES["lenet5"].build(num_classes=3).state_dict(), weights)
    assert resolve(_config()).contract.num_classes == 10
    assert resolve(_config(num_classes=7)).contract.num_classes == 7
    assert resolve(_config(weights=weights)).contract.num_classes == 3
    with_labels = resolve(_config(weights=weights, labels=labels)).contract
    assert with_labels.labels == ("cat", "dog", "owl")
    assert resolve(_config(labels=labels)).contract.num_classes == 3
    with pytest.raises(ExportError, match=r"labels\.txt holds 3 labels, but the model has 7 classes"):
        resolve(_config(labels=labels, num_classes=7))
    with pytest.raises(WeightsError, match=r"other shape: fc3.weight is \(3, 84\), the model has \(7, 84\)"):
        resolve(_config(weights=weights, num_classes=7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 is empty"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (None, "No such file or directory"),
    ],
)
def test_bad_label_files_are_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=rf"labels .*labels\.txt.*{message}"):
        resolve(_config(labels=path))


def test_seed_decides_the_random_weights() -> None:
    one, same, other = (resolve(replace(_config(), seed=seed)).module.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
