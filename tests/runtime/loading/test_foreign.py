"""A lone ``.onnx`` that EdgePort did not write, with the contract that its user tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from edgeport_runtime import Classifier, InputError
from edgeport_runtime.commands.cli import main as run_model
from edgeport_runtime.errors import EdgeportError
from edgeport_runtime.outputs.metrics import softmax
from given_files import SIZE, own_answers, write_net

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _prepared(image: Path) -> np.ndarray[Any, Any]:
    """By numpy alone: (1, H, W, 3)."""
    pixels = np.asarray(Image.open(image)).astype(np.float32) / np.float32(255)
    return ((pixels - np.float32(MEAN)) / np.float32(STD))[np.newaxis]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", [1, "N", 3])
def test_it_answers_as_the_file_does(layout: str, batch: int | str, image: Path, tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", layout=layout, batch=batch)
    x_BHWC = np.repeat(_prepared(image), 3, axis=0)
    own = own_answers(file, x_BHWC if layout == "nhwc" else x_BHWC.transpose(0, 3, 1, 2))
    with Classifier.load(file, contract={"mean": MEAN, "std": STD, "labels": list("abcde")}) as classifier:
        assert classifier.contract.batch == (None if batch == "N" else batch)
        found = {p.label: p.score for p in classifier.predict(image)}
        for label, score in zip("abcde", softmax(own)[0], strict=True):
            assert found[label] == pytest.approx(score, abs=1e-6)
        assert len(classifier.predict_batch([image] * 4)) == 4


def test_a_letterbox_and_an_open_size_that_is_not_square_by_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    height, width = 4, 20  # as many values behind the pool as of 8x8
    pixels = np.random.default_rng(3).integers(0, 256, (height, width // 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[:, width // 4 : width // 4 + width // 2] = pixels
    x_BCHW = (padded.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[np.newaxis]
    file = write_net(tmp_path / "net.onnx", size=None)
    command = ["predict", str(file), str(tmp_path / "photo.png"), "--json"]
    assert run_model([*command, "--image-size", str(height), str(width), "--resize", "pad", "--pad-color", "255"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    found = {p["index"]: p["score"] for p in answer["predictions"]}
    for index, score in enumerate(softmax(own_answers(file, x_BCHW))[0]):
        assert found[index] == pytest.approx(score, abs=1e-6)


def test_pixels_probabilities_and_float16_are_seen(image: Path, tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", kind=TensorProto.UINT8, layout="nhwc", ending=("Softmax",))
    own = own_answers(file, np.asarray(Image.open(image))[np.newaxis])
    with Classifier.load(file, contract={"resize": "exact"}) as classifier:
        assert (classifier.contract.output, classifier.contract.preprocess.scale) == ("probabilities", "byte")
        np.testing.assert_allclose(sorted(p.score for p in classifier.predict(image)), np.sort(own[0]), atol=1e-6)
    half = write_net(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    with Classifier.load(half, contract={"std": STD, "mean": MEAN}) as classifier:
        x = _prepared(image).transpose(0, 3, 1, 2).astype(np.float16)
        np.testing.assert_array_equal(next(iter(classifier.iter_outputs([image]))), own_answers(half, x)[0])


def test_ranges_of_each_call_are_those_of_one_image(image: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    file = write_net(tmp_path / "net.onnx")
    quantize_dynamic(str(file), str(tmp_path / "dynamic.onnx"))
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    with Classifier.load(tmp_path / "dynamic.onnx", contract={"std": [0.1] * 3}) as classifier:
        alone, *_ = classifier.iter_outputs([image])
        beside, *_ = classifier.iter_outputs([image, noise])
        np.testing.assert_array_equal(alone, beside)


def test_the_command_takes_options_and_a_file_of_them(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lenet5: ExportResult
) -> None:
    file = write_net(tmp_path / "net.onnx")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    told = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]
    command = ["predict", str(file), str(image), "--json"]
    assert run_model([*command, *told, "--labels", str(tmp_path / "labels.txt")]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert {p["label"] for p in expected[0]["predictions"]} == set("abcde")
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps({"image_size": 8, "mean": MEAN, "std": [1, 1, 1], "labels": list("abcde")}))
    assert run_model([*command, "--contract", str(contract), "--std", *map(str, STD)]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    # The manifest of a bundle holds a contract, too: of a grey network here, of another size.
    manifest = json.loads((lenet5.path / "manifest.json").read_text())
    manifest["contract"]["preprocess"] |= {"image_size": 8, "resize_size": 8}
    contract.write_text(json.dumps(manifest))
    assert run_model([*command, "--contract", str(contract)]) == 1
    assert "preprocess_sha256: is not the digest of preprocess" in capsys.readouterr().err


@pytest.mark.parametrize(
    "told", [{"crop_pct": 0.5}, {"resize": "pad", "pad_color": [9, 8, 7]}, {"crop_pct": 0.5, "crop_offset": "down"}]
)
def test_a_contract_of_a_bundle_is_taken(told: dict[str, Any], image: Path, tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx")
    with Classifier.load(file, contract={"mean": MEAN, "std": STD, **told}) as classifier:
        contract, (expected,) = classifier.contract, list(classifier.iter_outputs([image]))
    (tmp_path / "manifest.json").write_text(json.dumps({"contract": contract.to_dict(), "variants": []}))
    with Classifier.load(file, contract=tmp_path / "manifest.json") as classifier:
        assert classifier.contract == contract
        np.testing.assert_array_equal(next(iter(classifier.iter_outputs([image]))), expected)


@pytest.mark.parametrize(
    ("options", "contract", "message"),
    [
        ({}, {"means": MEAN}, "there is no option 'means'; known are bits, color"),
        ({}, {"mean": "0.5"}, "mean is '0.5'; give a list of finite numbers"),
        ({}, {"mean": [0.5]}, "mean has 1 value, but rgb images have 3"),
        ({}, {"color": "grey"}, "color is grey, but the model takes 3 channels"),
        ({}, {"image_size": 9}, "--image-size is 9, but net.onnx takes"),
        ({}, {"image_size": "8"}, "image_size is '8'; give a whole number"),
        ({}, {"labels": ["a"]}, "there are 1 labels, but 5 classes"),
        ({}, {"labels": "abcde"}, "labels is 'abcde'; give a list of strings"),
        ({}, {"crop_pct": 2}, "crop_pct is 2; it must be above 0 and at most 1"),
        ({}, {"task": "binary"}, "task is binary, but net.onnx gives 5 values for an image"),
        ({}, {"task": "detection"}, "task is 'detection'; choose one of multiclass"),
        ({}, {"input_layout": "nhwc"}, "is --input-layout right"),
        ({"kind": TensorProto.UINT8}, {"mean": MEAN}, "takes pixels as uint8 and prepares them itself"),
        ({"size": None}, {"mean": MEAN}, "--image-size is missing"),
        ({"others": ("features",)}, {"mean": MEAN}, "choose with --output-name NAME"),
        ({"size": None}, {"image_size": 0}, "takes images of 0x0 pixels; EdgePort takes sides from 1 to 4096"),
        ({}, {"output": "probabilities"}, "output is probabilities, but net.onnx gives values from -"),
        ({}, {"color": "rgba"}, "color is rgba, but the model takes 3 channels"),
        ({}, {"resize": "pad", "crop_pct": 0.5}, "with resize pad nothing is cropped; omit one of them"),
        ({}, {"resize": "exact", "pad_color": [0]}, "resize is exact; the two go together"),
        ({"ending": ("Sigmoid",)}, {"task": "multilabel"}, "say which: --output probabilities, or --output logits"),
    ],
)
def test_what_is_not_possible_is_told_in_a_line(
    options: dict[str, Any], contract: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_net(tmp_path / "net.onnx", **options)
    with pytest.raises(EdgeportError) as caught:
        Classifier.load(file, contract=contract)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "holds no object of options"), ("{", "is not JSON"), ('{"contract": {}}', "contract: lacks the field")],
)
def test_a_damaged_contract_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text(content)
    with pytest.raises(EdgeportError, match=message):
        Classifier.load(write_net(tmp_path / "net.onnx"), contract=tmp_path / "contract.json")


def test_without_a_contract_it_is_told_what_is_missing(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], lenet5: ExportResult
) -> None:
    file = write_net(tmp_path / "a net.onnx")
    assert run_model(["predict", str(file), str(image)]) == 1
    error = capsys.readouterr().err
    assert f"--contract FILE), and export-model '{file}' -o DIR makes a bundle of it" in error
    assert run_model(["verify", str(file)]) == 1
    error = capsys.readouterr().err
    assert "verify needs golden images with known outputs" in error
    assert f"export-model '{file}' -o DIR" in error
    with pytest.raises(InputError, match="was written by EdgePort and holds its contract; omit the options"):
        Classifier.load(lenet5.path / "model.fp32.onnx", contract={"task": "multiclass"})
    with pytest.raises(InputError, match=r"is a folder; a contract is for a lone \.onnx file"):
        Classifier.load(lenet5.path, contract={"mean": [0.5]})
