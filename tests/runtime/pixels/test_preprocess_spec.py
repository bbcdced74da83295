from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from edgeport_models.spec import IMAGENET as SPEC
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

PAD: dict[str, Any] = {"resize": "pad", "resize_size": 224, "pad_color": (1, 2, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "RGB"}, "color is 'RGB'; choose one of rgb, bgr, grey, rgba, la"),
        ({"color": ["rgb"]}, "color is ['rgb']; choose one of rgb, bgr, grey, rgba, la"),
        ({"resize": "longer"}, "resize is 'longer'; choose one of shorter, exact, pad, none"),
        ({"resize": None}, "resize is None; choose one of shorter, exact, pad, none"),
        (
            {"interpolation": "area"},
            "interpolation is 'area'; choose one of bilinear, bicubic, nearest, lanczos, box, hamming",
        ),
        ({"bits": 8}, "bits is 8; it must be a whole number from 9 to 16"),
        ({"bits": 12.0}, "bits is 12.0; it must be a whole number from 9 to 16"),
        ({"bits": True}, "bits is True; it must be a whole number from 9 to 16"),
        ({"scale": "signed"}, "scale is 'signed'; choose one of unit, byte"),
        ({"image_size": 0}, "image_size is 0; it must be a whole number of pixels from 1 to 4096"),
        ({"image_size": 224.0}, "image_size is 224.0; it must be a whole number of pixels from 1 to 4096"),
        ({"image_size": True}, "image_size is True; it must be a whole number of pixels from 1 to 4096"),
        ({"resize_size": 4097}, "resize_size is 4097; it must be a whole number of pixels from 1 to 4096"),
        ({"resize_size": "256"}, "resize_size is '256'; it must be a whole number of pixels from 1 to 4096"),
        ({"resize_size": 223}, "resize_size 223 is smaller than image_size 224"),
        ({"resize": "none"}, "without a resize, resize_size must equal image_size"),
        (
            {"image_size": (224, 224)},
            "image_size is (224, 224); give the height and the width, or one number where they are equal",
        ),
        (
            {"image_size": (1, 2, 3)},
            "image_size is (1, 2, 3); give the height and the width, or one number where they are equal",
        ),
        ({"image_size": (224, 0)}, "image_size is (224, 0); it must be a whole number of pixels from 1 to 4096"),
        ({"image_size": (100, 257)}, "resize_size 256 is smaller than image_size (100, 257)"),
        (
            {"resize": "pad", "pad_color": (1, 2, 3)},
            "with padding nothing is cropped, so that resize_size must equal image_size",
        ),
        ({"resize": "pad", "resize_size": 224}, "pad_color is None, but resize is pad; the two go together"),
        ({"pad_color": (1, 2, 3)}, "pad_color is (1, 2, 3), but resize is shorter; the two go together"),
        ({**PAD, "pad_color": (1, 2)}, "pad_color has 2 values, but rgb images have 3; give one for each channel"),
        (
            {**PAD, "pad_color": (1, 2, 256)},
            "pad_color is (1, 2, 256); give whole numbers from 0 to 255, one per channel",
        ),
        (
            {**PAD, "pad_color": (1, 2, True)},
            "pad_color is (1, 2, True); give whole numbers from 0 to 255, one per channel",
        ),
        ({"color": "rgba"}, "mean has 3 values, but rgba images have 4; give one for each channel"),
        ({"mean": (0.5,)}, "mean has 1 value, but rgb images have 3; give one for each channel"),
        ({"color": "grey"}, "mean has 3 values, but grey images have 1; give one for each channel"),
        ({"mean": [0.5] * 3}, "mean is [0.5, 0.5, 0.5]; give finite numbers, one per channel"),
        ({"mean": (0.5, 0.5, "x")}, "mean is (0.5, 0.5, 'x'); give finite numbers, one per channel"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean is (0.5, 0.5, nan); give finite numbers, one per channel"),
        ({"std": (1.0, 1.0, float("inf"))}, "std is (1.0, 1.0, inf); give finite numbers, one per channel"),
        ({"std": (1.0, 0.0, 1.0)}, "std is (1.0, 0.0, 1.0); every value must be positive"),
        ({"std": (1.0, 1.0, -1.0)}, "std is (1.0, 1.0, -1.0); every value must be positive"),
        ({"std": (1.0, 1.0)}, "std has 2 values, but rgb images have 3; give one for each channel"),
    ],
)
def test_impossible_value_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(SPEC, **change)
    assert str(caught.value) == message


def test_limits_themselves_are_accepted() -> None:
    assert replace(SPEC, resize_size=4096, image_size=4096).image_size == 4096
    assert replace(SPEC, resize="none", resize_size=1, image_size=1).resize_size == 1


def test_dict_is_json_and_comes_back() -> None:
    data = json.loads(json.dumps(SPEC.to_dict()))
    assert [*data, "bits", "pad_color", "crop_offset"] == [field.name for field in fields(SPEC)]
    assert PreprocessSpec.from_dict(data) == SPEC
    twelve = replace(SPEC, bits=12)
    assert twelve.to_dict() == {**data, "bits": 12}
    assert PreprocessSpec.from_dict(twelve.to_dict()) == twelve
    wide = replace(SPEC, resize="pad", resize_size=(96, 160), image_size=(96, 160), pad_color=(1, 2, 3))
    assert wide.to_dict() == {
        **data,
        "resize": "pad",
        "resize_size": [96, 160],
        "image_size": [96, 160],
        "pad_color": [1, 2, 3],
    }
    assert PreprocessSpec.from_dict(json.loads(json.dumps(wide.to_dict()))) == wide
    assert wide.input_shape == (3, 96, 160)
    down = replace(SPEC, crop_offset="down")
    assert down.to_dict() == {**data, "crop_offset": "down"}
    assert PreprocessSpec.from_dict(down.to_dict()) == down
    whole = PreprocessSpec.from_dict({**data, "scale": "byte", "mean": [123, 117, 104], "std": [1, 1, 1]})
    assert whole.mean == (123.0, 117.0, 104.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": "0.5"}, "mean is '0.5'; give a list of finite numbers, one per channel"),
        ({"mean": [0.5, 0.5, True]}, "mean is [0.5, 0.5, True]; give a list of finite numbers, one per channel"),
        ({"std": None}, "std is None; give a list of finite numbers, one per channel"),
        ({"std": [1.0, 1.0, 10**400]}, f"std is [1.0, 1.0, {10**400}]; give a list of finite numbers, one per channel"),
        ({"std": [1.0, 1.0]}, "std has 2 values, but rgb images have 3; give one for each channel"),
        ({"resize_size": 1}, "resize_size 1 is smaller than image_size 224"),
        ({"crop_offset": "up"}, "crop_offset is 'up'; choose one of even, down"),
        ({"bits": None}, "bits is None; omit it, or give a whole number"),
        (
            {"image_size": [224]},
            "image_size is (224,); give the height and the width, or one number where they are equal",
        ),
        ({"image_size": [224, "x"]}, "image_size is (224, 'x'); it must be a whole number of pixels from 1 to 4096"),
        ({"pad_color": [0, 0, 0]}, "pad_color is (0, 0, 0), but resize is shorter; the two go together"),
        ({"bits": "12"}, "bits is '12'; it must be a whole number from 9 to 16"),
    ],
)
def test_wrong_json_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        PreprocessSpec.from_dict({**SPEC.to_dict(), **change})
    assert str(caught.value) == message


def test_missing_and_unknown_fields_are_named() -> None:
    data = SPEC.to_dict()
    del data["scale"]
    names = "['color', 'image_size', 'interpolation', 'mean', 'resize', 'resize_size', 'scale', 'std']"
    with pytest.raises(InputError) as caught:
        PreprocessSpec.from_dict({**data, "gamma": 2.2})
    assert str(caught.value) == f"the fields are {names}, but ['gamma', 'scale'] are missing or unknown"


def test_digest_is_stable_and_tells_every_field_apart() -> None:
    # Written down in bundles: a change of it makes every bundle unreadable.
    assert SPEC.sha256() == "a3b2df4286b25c6f394c3fa199e07c9d507f1569ebb60ebfb71a9371dbe26d2c"
    changes: list[dict[str, Any]] = [
        {"color": "bgr"},
        {"resize": "exact"},
        {"resize_size": 257},
        {"interpolation": "bicubic"},
        {"image_size": 225},
        {"scale": "byte"},
        {"mean": (0.485, 0.456, 0.4060001)},
        {"std": (0.229, 0.224, 0.2250001)},
        {"bits": 16},
        {**PAD},
        {"crop_offset": "down"},
    ]
    assert {key for change in changes for key in change} == {field.name for field in fields(SPEC)}
    digests = {replace(SPEC, **change).sha256() for change in changes}
    assert len(digests | {SPEC.sha256()}) == len(changes) + 1


def test_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SPEC.image_size = 1  # type: ignore[misc]
