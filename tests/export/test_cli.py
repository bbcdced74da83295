"""The command export-model: options, output, errors and exit statuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgeport_export.cli import main
from edgeport_models import ARCHITECTURES
from edgeport_runtime import Classifier, load_manifest

if TYPE_CHECKING:
    from pathlib import Path


def _fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str) -> tuple[int, str]:
    """Run the command; whatever is wrong, nothing is printed to stdout and nothing new is left on disk."""
    before = sorted(tmp_path.rglob("*"))
    status = main(argv)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before
    return status, captured.err


def test_list_shows_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for spec in ARCHITECTURES.values():
        assert spec.name in text
        assert f"{spec.num_params:,}" in text
        assert spec.source in text
    assert main(["--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {spec.name for spec in ARCHITECTURES.values()}
    assert next(row for row in rows if row["name"] == "vit_b_16")["aliases"] == ["vit"]


def test_text_output_ends_with_what_to_run_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "my bundle")
    assert main(["lenet5", "-o", output]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[-1] == f"next: run-model predict '{output}' IMAGE"
    assert "note: random weights: parity is proven, predictions mean nothing" in lines
    for stage in ("exported", "simplified", "variant fp32 (= simplified)", "runtime fp32"):
        assert stage in captured.out
    assert max(map(len, lines)) <= 120


def test_trained_weights_show_their_answers_and_random_ones_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["lenet5", "--quantize", "none", "-o"]
    assert main([*argv, str(tmp_path / "random")]) == 0
    assert "golden images are" not in capsys.readouterr().out
    assert main([*argv, str(tmp_path / "digits"), "--weights", "digits"]) == 0
    with np.load(tmp_path / "digits" / "golden" / "expected.npz") as arrays:
        best, score = int(arrays["order"][0, 0]), arrays["scores"][0].max()
    assert f"the first golden images are: golden/0.png {best} ({score:.1%}); golden/1.png " in capsys.readouterr().out


def test_json_output_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet5", "-o", str(tmp_path / "bundle"), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["bundle"] == str(tmp_path / "bundle")
    assert document["manifest"] == load_manifest(tmp_path / "bundle").to_dict()
    assert captured.err == ""


def test_every_option_is_honoured(tmp_path: Path) -> None:
    weights, labels, golden = tmp_path / "net.safetensors", tmp_path / "labels.txt", tmp_path / "golden"
    module = ARCHITECTURES["lenet5"].build(num_classes=3, in_channels=3, image_size=(28, 24))
    save_file(module.state_dict(), weights)
    labels.write_text("cat\ndog\nowl\n")
    golden.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(golden / f"{i}.png")
    options = (
        "--image-size 28 24 --channels 3 --num-classes 3 --mean 0.5 0.4 0.3 --std 0.3 0.2 0.1 --color bgr --scale unit "
        "--resize shorter --interpolation nearest --crop-pct 4/5 --opset 19 --batch 2 --seed 5 "
        "--task multilabel --threshold 0.2 0.3 0.4 --activation in-graph --quantize none --bits 12"
    )
    files = ["--weights", str(weights), "--labels", str(labels), "--golden", str(golden)]
    assert main(["lenet5", "-o", str(tmp_path / "bundle"), *files, *options.split()]) == 0
    manifest = load_manifest(tmp_path / "bundle")
    assert manifest.contract.to_dict() | {"preprocess_sha256": ""} == {
        "task": "multilabel",
        "num_classes": 3,
        "labels": ["cat", "dog", "owl"],
        "thresholds": [0.2, 0.3, 0.4],
        "output": "probabilities",
        "batch": 2,
        "preprocess": {
            "color": "bgr",
            "resize": "shorter",
            "resize_size": [35, 30],
            "interpolation": "nearest",
            "image_size": [28, 24],
            "scale": "unit",
            "mean": [0.5, 0.4, 0.3],
            "std": [0.3, 0.2, 0.1],
            "bits": 12,
        },
        "preprocess_sha256": "",
    }
    assert manifest.variants[0].opset == 19
    assert manifest.provenance["seed"] == 5
    assert len(manifest.golden.images) == 3
    assert manifest.weights["file"] == "net.safetensors"
    with Classifier.load(tmp_path / "bundle") as classifier:
        x_BCHW = np.random.default_rng(0).standard_normal((3, 3, 28, 24), dtype=np.float32)
        with torch.no_grad():
            expected = torch.sigmoid(module.eval()(torch.from_numpy(x_BCHW))).numpy()
        # Measured: 6e-8
        np.testing.assert_allclose(classifier.probabilities(x_BCHW), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnet19"], "unknown architecture 'resnet19'; closest: "),
        (["lenet5", "--color", "grey", "--channels", "3"], "--color grey contradicts --channels 3"),
        (["lenet5", "--mean", "1", "2", "3"], "mean has 3 values, but grey images have 1; give one for each channel"),
        (["lenet5", "--opset", "12"], "--opset is 12; it must be from 13 to 23"),
        (["lenet5", "--batch", "0"], "--batch is 0"),
    ],
)
def test_impossible_options_have_status_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, error = _fails(capsys, tmp_path, *argv, "-o", str(tmp_path / "bundle"))
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_warning_names_the_golden_image_and_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = tmp_path / "photos"
    golden.mkdir()
    for i in range(2):
        Image.fromarray(np.full((28, 28), 1000 + i, np.uint16)).save(golden / f"twelve{i}.png")
    argv = ["lenet5", "-o", str(tmp_path / "bundle"), "--golden", str(golden), "--quantize", "none"]
    assert main([*argv, "--weights", "digits"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert warned[0].startswith(f"warning: golden image {golden / 'twelve0.png'}: an image of 16 bits uses less than")


@pytest.mark.parametrize(
    "argv",
    [
        ["lenet5"],
        ["lenet5", "-o", "x", "--unknown"],
        ["lenet5", "-o", "x", "--batch", "many"],
        ["lenet5", "-o", "x", "--crop-pct", "28/0"],
        ["lenet5", "-o", "x", "--crop-pct", "28/31/2"],
        ["lenet5", "-o", "x", "--color", "cmyk"],
        ["--list", "lenet5"],
    ],
)
def test_wrong_usage_has_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err


def test_a_batch_that_is_no_number_is_told_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lenet5", "-o", "x", "--batch", "many"])
    assert "argument --batch: 'many' is neither dynamic nor a whole number\n" in capsys.readouterr().err


def test_bad_weights_and_labels_have_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["-o", str(tmp_path / "out" / "bundle")]
    (tmp_path / "text.pth").write_text("hello")
    foreign = tmp_path / "foreign.pth"
    torch.save(ARCHITECTURES["resnet20"].build().state_dict(), foreign)
    for argv, message in (
        (["--weights", str(tmp_path / "none.pth")], "none.pth does not exist"),
        (["--weights", str(tmp_path / "text.pth")], "text.pth is not a PyTorch checkpoint"),
        (["--weights", str(foreign)], "do not fit lenet5: 9 keys missing, "),
        (["--labels", str(tmp_path / "none.txt")], "none.txt: No such file"),
        (["--golden", str(tmp_path / "nowhere")], "nowhere is not a folder of images"),
    ):
        status, error = _fails(capsys, tmp_path, "lenet5", *output, *argv)
        assert status == 1
        assert message in error
    assert (
        "these keys are those of resnet20" in _fails(capsys, tmp_path, "lenet5", *output, "--weights", str(foreign))[1]
    )
    error = _fails(capsys, tmp_path, "lenet5", *output, "--weights", str(foreign))[1]
    assert "missing: fc3.weight (10, 84)" in error
    assert "other shape: conv1.weight is (16, 3, 3, 3), the model has (6, 1, 5, 5)" in error
    assert "unexpected: bn1.weight (16,)" in error
    assert len(error.splitlines()) == 22
    assert error.splitlines()[-1].startswith("  and ")


def test_what_exists_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").touch()
    (tmp_path / "file").touch()
    for output, message in (
        ("photos", "holds no EdgePort bundle, so it is not replaced"),
        ("file", "is a file"),
        ("file/sub", "part of that path is a file"),
    ):
        status, error = _fails(capsys, tmp_path, "lenet5", "-o", str(tmp_path / output), "--force")
        assert status == 1
        assert message in error


def test_options_are_checked_against_what_lies_beside_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, default = tmp_path / "weights", ARCHITECTURES["lenet5"].preprocess
    weights.mkdir()
    save_file(ARCHITECTURES["lenet5"].build(in_channels=3).state_dict(), weights / "model.safetensors")
    spec = replace(default, color="rgb", mean=(0.1,) * 3, std=(0.2,) * 3)
    (weights / "preprocessor_config.json").write_text(json.dumps({"edgeport": spec.to_dict()}))
    argv = ["lenet5", "--weights", str(weights), "--quantize", "none"]
    assert main([*argv, "--mean", "0.4", "0.5", "0.6", "-o", str(tmp_path / "bundle")]) == 0
    assert load_manifest(tmp_path / "bundle").contract.preprocess == replace(spec, mean=(0.4, 0.5, 0.6), bits=16)
    capsys.readouterr()
    for contradiction, message in (
        (["--color", "grey", "--channels", "3"], "--color grey contradicts --channels 3"),
        (["--mean", "1", "2"], "mean has 2 values, but grey images have 1; give one for each channel"),
        (
            ["--color", "grey", "--mean", "1", "2", "3"],
            "mean has 3 values, but grey images have 1; give one for each channel",
        ),
    ):
        status, error = _fails(capsys, tmp_path, *argv, *contradiction, "-o", str(tmp_path / "other"))
        assert (status, error) == (2, f"error: {message}\n")


@pytest.mark.parametrize(("size", "sides"), [(["28"], (28, 28)), (["24", "40"], (24, 40))])
def test_the_architecture_may_stand_behind_the_size(size: list[str], sides: tuple[int, int], tmp_path: Path) -> None:
    assert main(["--image-size", *size, "lenet5", "--quantize", "none", "-o", str(tmp_path / "bundle")]) == 0
    assert load_manifest(tmp_path / "bundle").contract.preprocess.image_sides == sides
