"""preprocessor_config.json and config.json beside a checkpoint: taken where they can be, refused by file and key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edgeport_export.config import ExportConfig
from edgeport_export.source.subject import Subject
from edgeport_export.source.subject import find_subject as resolve
from edgeport_models import ARCHITECTURES
from edgeport_runtime.errors import InputError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

HALF = [0.5, 0.5, 0.5]
VIT = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 64, "width": 64}}
CONVNEXT = {"feature_extractor_type": "ConvNextFeatureExtractor", "do_resize": True, "size": 224, "crop_pct": 0.875}
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 72}, "crop_size": 64}
TIMM = {"architecture": "resnet20", "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 0.9, "mean": HALF}}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "resnet20.pth"
    torch.save(ARCHITECTURES["resnet20"].build().state_dict(), path)
    return path


def _resolve(weights: Path, *, processor: Any = None, config: Any = None, **options: Any) -> Subject:
    for name, document in (("preprocessor_config.json", processor), ("config.json", config)):
        if document is not None:
            weights.with_name(name).write_text(json.dumps(document))
    return resolve(ExportConfig(architecture="resnet20", weights=weights, output=weights.with_name("out"), **options))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (VIT, {"resize": "exact", "resize_size": 64, "image_size": 64}),
        (VIT | {"size": 64}, {"resize": "exact", "resize_size": 64, "image_size": 64}),
        (
            VIT | {"size": {"height": 64, "width": 32}},
            {"resize": "exact", "resize_size": (64, 32), "image_size": (64, 32)},
        ),
        (CLIP | {"crop_size": {"height": 64, "width": 32}}, {"resize_size": 72, "image_size": (64, 32)}),
        ({"size": 64, "do_resize": True}, {"resize": "exact", "image_size": 64}),
        (VIT | {"size": 72, "do_center_crop": True, "crop_size": 64}, {"resize_size": 72, "image_size": 64}),
        (CONVNEXT, {"resize": "shorter", "resize_size": 256, "image_size": 224}),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, {"resize": "exact", "resize_size": 384, "image_size": 384}),
        (CLIP, {"resize": "shorter", "resize_size": 72, "image_size": 64}),
        ({"do_resize": False}, {"resize": "none", "resize_size": 32, "image_size": 32}),
        ({"resample": 0}, {"interpolation": "nearest"}),
        ({"resample": 1}, {"interpolation": "lanczos"}),
        ({"resample": 3}, {"interpolation": "bicubic"}),
        ({"resample": 4}, {"interpolation": "box"}),
        ({"resample": 5}, {"interpolation": "hamming"}),
        ({"do_rescale": False, "image_mean": [104, 117, 123], "image_std": 1}, {"scale": "byte", "std": (1.0,) * 3}),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"image_mean": HALF, "image_std": HALF}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
    ],
)
def test_image_processors(processor: dict[str, Any], expected: dict[str, Any], weights: Path) -> None:
    subject = _resolve(weights, processor=processor)
    spec = subject.contract.preprocess
    assert {name: getattr(spec, name) for name in expected} == expected
    assert all(subject.sources[name] == "preprocessor_config.json" for name in expected if name in processor)


@pytest.mark.parametrize(
    ("processor", "message", "override"),
    [
        (
            {"resample": 6},
            r"resample is 6; only 0 \(nearest\), 1 .*; set --interpolation",
            {"interpolation": "bicubic"},
        ),
        ({"resample": "3"}, "resample is '3'", {"interpolation": "bicubic"}),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784", {"scale": "unit"}),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]", {"mean": (0.1, 0.2, 0.3)}),
        ({"image_mean": "0.5"}, "image_mean is '0.5'", {"mean": (0.1, 0.2, 0.3)}),
        ({"image_std": [True] * 3}, "image_std is", {"std": (0.1, 0.2, 0.3)}),
        ({"image_processor_type": "TextNetImageProcessor"}, "image_processor_type is 'TextNet", {"resize": "exact"}),
        ({"image_processor_type": "PerceiverImageProcessor"}, "image_processor_type is 'Perc", {"resize": "exact"}),
        ({"do_pad": True}, "do_pad is True; this step is not supported", {"resize": "exact"}),
        ({"size": {"shortest_edge": 64}}, "would differ in shape", {"resize": "exact"}),
        ({"size": {"height": 64, "width": 0}}, "size is {'height': 64, 'width': 0}", {"resize": "exact"}),
        (CONVNEXT | {"size": {"height": 64, "width": 32}}, "only one side, or shortest_edge", {"resize": "exact"}),
        ({"size": {"longest_edge": 64}}, "only shortest_edge, or", {"resize": "exact"}),
        ({"size": 10**9}, "from 1 to 4096", {"resize": "exact"}),
        ({"size": "64"}, "size is '64'", {"resize": "exact"}),
        ({"do_resize": "yes", "size": 64}, "do_resize is 'yes'; it must be true or false", None),
        (VIT | {"size": None}, "size is None", {"resize": "exact"}),
        (CONVNEXT | {"crop_pct": 2}, "crop_pct is 2; it must be above 0", {"resize": "exact"}),
        ({"do_resize": False, "do_center_crop": True}, "do_center_crop is True", {"resize": "exact"}),
        (CLIP | {"crop_size": 80}, "resize_size 72 is smaller than image_size 80", {"resize": "exact"}),
    ],
)
def test_processors_that_cannot_be_done(
    processor: dict[str, Any], message: str, override: dict[str, Any] | None, weights: Path
) -> None:
    with pytest.raises(WeightsError, match=rf"preprocessor_config\.json.*{message}"):
        _resolve(weights, processor=processor)
    if override is not None:
        spec = _resolve(weights, processor=processor, **override).contract.preprocess
        assert {name: getattr(spec, name) for name in override} == override


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TIMM, {"resize": "shorter", "resize_size": 71, "image_size": 64, "mean": (0.5,) * 3}),
        (
            {"architecture": "x", "input_size": [3, 64, 64], "crop_pct": 1.0, "crop_mode": "squash"},
            {"resize": "exact", "resize_size": 64},
        ),
        ({"architecture": "x", "interpolation": "bicubic"}, {"interpolation": "bicubic"}),
        (
            {"architecture": "x", "input_size": [3, 64, 32], "crop_pct": 0.8, "crop_mode": "squash"},
            {"resize": "exact", "resize_size": (80, 40), "image_size": (64, 32)},
        ),
        ({"model_type": "vit", "image_size": [64, 32]}, {"image_size": (64, 32), "resize_size": (64, 32)}),
        ({"model_type": "resnet", "image_size": 64, "num_channels": 3}, {"image_size": 64, "resize_size": 64}),
        ({"name": "of something else"}, {"image_size": 32, "resize": "shorter"}),
    ],
)
def test_configs(config: dict[str, Any], expected: dict[str, Any], weights: Path) -> None:
    spec = _resolve(weights, config=config).contract.preprocess
    assert {name: getattr(spec, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pretrained_cfg": [1]}, r"pretrained_cfg is \[1\]"),
        ({"architecture": "x", "interpolation": "random"}, "interpolation is 'random'"),
        ({"architecture": "x", "input_size": [3, 64, 32]}, "timm rounds the longer side of an input that is not"),
        ({"architecture": "x", "input_size": 64}, "input_size is 64"),
        ({"architecture": "x", "input_size": [3, 64, 64], "crop_mode": "border"}, "crop_mode is 'border'"),
        ({"architecture": "x", "mean": "a"}, "mean is 'a'"),
        ({"num_channels": 4}, "num_channels is 4"),
        ({"id2label": {"0": "a"}}, "id2label has 1 names, but the model has 10 classes; give --labels"),
        ({"id2label": {str(i + 1): "a" for i in range(10)}}, "id2label has no name for class 0"),
        ({"id2label": dict.fromkeys(map(str, range(10)), 3)}, "id2label has no name for class 0"),
        ({"id2label": 3}, "id2label is of type int"),
    ],
)
def test_configs_that_cannot_be_used(config: dict[str, Any], message: str, weights: Path) -> None:
    with pytest.raises(WeightsError, match=rf"config\.json.*{message}"):
        _resolve(weights, config=config)


def test_processor_before_config_and_command_line_before_both(weights: Path) -> None:
    both = {"processor": VIT | {"image_mean": HALF}, "config": TIMM | {"model_type": "x"}}
    subject = _resolve(weights, **both)
    assert subject.contract.preprocess.image_size == 64
    assert subject.contract.preprocess.resize == "exact"
    assert subject.sources["mean"] == "preprocessor_config.json"
    subject = _resolve(weights, **both, image_size=96, mean=(0.1, 0.2, 0.3))
    assert (subject.contract.preprocess.image_size, subject.contract.preprocess.resize_size) == (96, 96)
    assert subject.contract.preprocess.mean == (0.1, 0.2, 0.3)
    assert {subject.sources[name] for name in ("image_size", "resize_size", "mean")} == {"command line"}
    assert subject.sources["resize"] == "preprocessor_config.json"
    assert subject.sources["std"] == "architecture default"


def test_labels(weights: Path) -> None:
    names = [f"n{i}" for i in range(10)]
    subject = _resolve(weights, config={"id2label": {str(i): name for i, name in enumerate(names)}})
    assert (subject.contract.labels, subject.sources["labels"]) == (tuple(names), "config.json")
    own = weights.with_name("own.txt")
    own.write_text("\n".join("abcdefghij"))
    subject = _resolve(weights, labels=own)
    assert (subject.contract.labels, subject.sources["labels"]) == (tuple("abcdefghij"), "command line")
    subject = _resolve(weights, config={"id2label": {str(i): f"LABEL_{i}" for i in range(10)}})
    assert subject.contract.labels is None
    assert _resolve(weights, config={"label_names": names}).contract.labels == tuple(names)


def test_grey_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "grey.pth"
    torch.save(ARCHITECTURES["resnet20"].build(in_channels=1).state_dict(), path)
    subject = _resolve(path, config={"num_channels": 1}, processor={"image_mean": [0.5], "image_std": [0.25]})
    assert subject.contract.preprocess.color == "grey"
    assert (subject.contract.preprocess.mean, subject.contract.preprocess.std) == ((0.5,), (0.25,))


def test_summing_channels_is_said_and_needs_its_options(weights: Path) -> None:
    subject = _resolve(weights, channels=1, sum_channels=True)
    assert subject.weights["note"] == "first layer summed over its 3 input channels (conv1.weight)"
    for options in ({"channels": 3}, {}):
        with pytest.raises(InputError, match=r"--sum-channels .* needs --weights and --channels 1"):
            _resolve(weights, sum_channels=True, **options)
    with pytest.raises(WeightsError, match="add --sum-channels"):
        _resolve(weights, channels=1)


def test_problem_type_is_the_task(weights: Path) -> None:
    subject = _resolve(weights, config={"problem_type": "multi_label_classification"})
    assert (subject.contract.task, subject.contract.thresholds) == ("multilabel", (0.5,))
    assert (subject.sources["task"], subject.sources["threshold"]) == ("config.json", "architecture default")
    single = _resolve(weights, config={"problem_type": "single_label_classification"})
    assert single.contract.task == "multiclass"
    assert "threshold" not in single.sources
    with pytest.raises(WeightsError, match=r"problem_type is 'regression'; only single_label_classification, multi"):
        _resolve(weights, config={"problem_type": "regression"})
    overridden = _resolve(weights, config={"problem_type": "regression"}, task="multiclass")
    assert (overridden.contract.task, overridden.sources["task"]) == ("multiclass", "command line")


def test_exact_preprocessing_of_edgeports_own_training_is_taken_whole(weights: Path) -> None:
    exact = replace(
        ARCHITECTURES["resnet20"].preprocess, color="bgr", mean=(0.1, 0.2, 0.3), interpolation="bicubic", resize_size=40
    )
    subject = _resolve(weights, processor={"edgeport": exact.to_dict()})
    assert subject.contract.preprocess == replace(exact, bits=16)
    assert {subject.sources[name] for name in exact.to_dict()} == {"preprocessor_config.json"}
    overridden = _resolve(weights, processor={"edgeport": exact.to_dict()}, color="rgb")
    assert overridden.contract.preprocess == replace(exact, color="rgb", bits=16)
    for damaged, message in (
        ([], "are missing or unknown"),
        ({**exact.to_dict(), "std": [0.0] * 3}, "every value must be positive"),
    ):
        with pytest.raises(WeightsError, match=rf"preprocessor_config\.json of .*: edgeport: .*{message}"):
            _resolve(weights, processor={"edgeport": damaged})
