"""Own modules of 1 to 4 channels and two sides, through a whole bundle: every reader gives what PyTorch gives."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.commands.cli import main as run_model

if TYPE_CHECKING:
    from pathlib import Path

SIDES = (24, 40)


def _net(channels: int) -> nn.Module:
    """Sees where things are: a transposed or shifted input gives other logits."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(channels, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 11 * 19, 5))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(("channels", "color"), [(1, "grey"), (2, "la"), (4, "rgba")])
def test_every_reader_gives_what_pytorch_gives(channels: int, color: str, tmp_path: Path) -> None:
    net = _net(channels)
    config = ExportConfig(
        output=tmp_path / "bundle",
        image_size=SIDES,
        channels=channels,
        resize="pad",
        pad_color=(7,),
        interpolation="nearest",
        preprocess="in-graph",
        quantize=(),
    )
    bundle = export(net, config).path
    spec = load_manifest(bundle).contract.preprocess
    assert (spec.color, spec.image_size, spec.pad_color) == (color, SIDES, (7,) * channels)

    modes = {1: "L", 2: "LA", 4: "RGBA"}
    shape = (12, 10) if channels == 1 else (12, 10, channels)
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "image.png")
    assert Image.open(tmp_path / "image.png").mode == modes[channels]

    # Twice as large, nearest; then 20 of 40 columns, 10 to the left.
    pixels_HWC = np.full((*SIDES, channels), 7, np.uint8)
    pixels_HWC[:, 10:30] = array.reshape(12, 10, channels).repeat(2, axis=0).repeat(2, axis=1)
    x_BCHW = torch.from_numpy(pixels_HWC.transpose(2, 0, 1).astype(np.float32)[None] / np.float32(255))
    with torch.no_grad():
        expected = net(x_BCHW)[0].softmax(dim=0).numpy()

    found: dict[str, Any] = {}
    with Classifier.load(bundle, device="cpu") as classifier:
        for name, image in (("array", array), ("file", tmp_path / "image.png")):
            found[name] = {p.index: p.score for p in classifier.predict(image, 5)}
    found_spec = importlib.util.spec_from_file_location("infer", bundle / "infer.py")
    assert found_spec is not None
    assert found_spec.loader is not None
    infer = importlib.util.module_from_spec(found_spec)
    found_spec.loader.exec_module(infer)
    found["infer.py"] = {p["index"]: p["score"] for p in infer.predict(infer.load(), tmp_path / "image.png")}
    session = onnxruntime.InferenceSession(bundle / "model.fp32.in-graph.onnx", providers=["CPUExecutionProvider"])
    given = np.asarray(Image.open(tmp_path / "image.png").convert("RGB" if channels == 1 else "RGBA"))
    logits = torch.from_numpy(session.run(None, {"image": given})[0][0])
    found["in-graph"] = dict(enumerate(logits.softmax(dim=0).tolist()))
    for name, scores in found.items():
        # Measured: 6e-8 at most.
        np.testing.assert_allclose([scores[i] for i in range(5)], expected, rtol=0, atol=1e-6, err_msg=name)


def test_two_sides_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--image-size", "24", "40", "--resize", "pad", "--pad-color", "255", "--quantize", "none"]
    assert main(["vit_digits", "--weights", "digits", "-o", str(tmp_path / "bundle"), *options]) == 0
    manifest = load_manifest(tmp_path / "bundle")
    assert "interpolated from 4x4 to 6x10 patches" in manifest.weights["note"]
    assert manifest.provenance["sources"]["image_size"] == "command line"
    capsys.readouterr()
    assert run_model(["info", str(tmp_path / "bundle")]) == 0
    assert "grey 40 wide, 24 high, batch any; resize to fit, padded with 255 (bilinear)" in capsys.readouterr().out
    assert run_model(["verify", str(tmp_path / "bundle")]) == 0


def test_the_architecture_may_follow_one_side(tmp_path: Path) -> None:
    argv = ["--quantize", "none", "--image-size", "24", "lenet5", "-o", str(tmp_path / "bundle")]
    assert main(argv) == 0
    assert load_manifest(tmp_path / "bundle").contract.preprocess.image_size == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "24", "40", "7"], "--image-size is 24 40 7; give one side, or the height and the width"),
        (["--image-size", "24", "41"], "vit_digits: image size 24 41 is not a multiple of the patch size 4"),
        (["--pad-color", "0"], "--pad-color is for --resize pad, but --resize is shorter"),
        (["--channels", "4"], "--mean is missing; rgba images need 4 values, one per channel"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vit_digits", "-o", str(tmp_path / "bundle"), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
