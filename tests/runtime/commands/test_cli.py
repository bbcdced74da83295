"""The command run-model: output, errors and exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgeport_export.cli import main as export_main
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult

    EditManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

COMMAND = [sys.executable, "-c", "import sys; from edgeport_runtime.commands.cli import main; sys.exit(main())"]


def _run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def images(shared: Callable[[str], Path]) -> list[Path]:
    return sorted(shared("data/cifar10/test/cat").glob("*.png"))[:2]


def test_predict_prints_labels_and_scores(
    resnet20: ExportResult, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _run(capsys, "predict", resnet20.path, *images, "--top-k", "2")
    assert (status, err) == (0, "")
    with Classifier.load(resnet20.path) as classifier:
        expected = [
            line
            for image in images
            for line in (str(image), *(f"  {p.score:7.2%}  {p.label}" for p in classifier.predict(image, 2)))
        ]
    assert out.splitlines() == [*expected, "by fp32 on cpu"]
    assert "cat" in out


def test_predict_json(resnet20: ExportResult, images: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run(capsys, "predict", resnet20.path, *images, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert [entry["image"] for entry in document] == [str(image) for image in images]
    for entry in document:
        assert len(entry["predictions"]) == 5
        assert set(entry["predictions"][0]) == {"index", "label", "score", "is_decided"}


def test_predict_takes_a_lone_file(
    lenet5: ExportResult, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = _run(capsys, "predict", lenet5.path / "model.fp32.onnx", images[0], "--json")
    assert status == 0
    assert json.loads(out) == json.loads(_run(capsys, "predict", lenet5.path, images[0], "--json")[1])


def test_one_bad_image_costs_the_others_nothing(
    lenet5: ExportResult, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, empty, cut, absent = (tmp_path / f"{name}.png" for name in ("text", "empty", "cut", "absent"))
    text.write_text("no picture")
    empty.touch()
    cut.write_bytes(images[0].read_bytes()[:400])
    status, out, err = _run(capsys, "predict", lenet5.path, text, empty, images[0], cut, absent, "--json")
    assert status == 1
    lines = err.splitlines()
    assert len(lines) == 4
    for line, (path, message) in zip(
        lines,
        (
            (text, "read as an image"),
            (empty, "is empty (0 bytes)"),
            (cut, "is damaged"),
            (absent, "No such file"),
        ),
        strict=True,
    ):
        assert line.startswith(f"error: {path}")
        assert message in line
    document = json.loads(out)
    assert ["error" in entry for entry in document] == [True, True, False, True, True]


def test_verify(bundle: Path, edit_manifest: EditManifest, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run(capsys, "verify", bundle)
    assert (status, err) == (0, "")
    assert out.startswith("fp32 on cpu: 8 golden images, relative L2 ")
    assert out.endswith("same decision on 8: passed\n")
    # Half the tolerance the exporter would never reach: every device fails it.
    edit_manifest(bundle, lambda data: data["variants"][0].update(tolerance=1e-30))
    status, out, err = _run(capsys, "verify", bundle, "--json")
    assert (status, err) == (3, "")
    document = json.loads(out)
    assert document["passed"] is False
    assert 0 < document["relative_l2"] < 1e-5
    assert _run(capsys, "verify", bundle)[1].endswith("FAILED\n")


def test_evaluate(
    resnet20: ExportResult, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for image in images:
            (tmp_path / label / image.name).write_bytes(image.read_bytes())
    status, out, err = _run(capsys, "evaluate", resnet20.path, "--data", tmp_path, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert (document["variant"], document["device"], document["matched_by"]) == ("fp32", "cpu", "name")
    assert document["num_images"] == 4
    text = _run(capsys, "evaluate", resnet20.path, "--data", tmp_path)[1]
    assert text.startswith("images matched to classes by name\n")
    assert f"top-1              {document['top1']:.4f}  ({document['num_correct']} of 4)" in text
    assert f"cross-entropy      {document['cross_entropy']:.4f} nats" in text
    assert text.endswith("\nby fp32 on cpu\n")


def test_info(resnet20: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run(capsys, "info", resnet20.path)
    assert status == 0
    for part in (
        "resnet20 (269,722 parameters; He et al. 2015, Section 4.2)",
        "resnet20-12fca82f.th",
        "multiclass, 10 classes; labels: airplane, automobile, bird, cat, deer, ...",
        "rgb 32x32, batch any; resize shorter side to 32 (bilinear), scale unit, mean [0.485, 0.456, 0.406]",
        "fp32: model.fp32.onnx, opset 20",
        "exported: relative L2",
        "torch 2.",
        "pillow ",
    ):
        assert part in out
    assert json.loads(_run(capsys, "info", resnet20.path, "--json")[1]) == resnet20.manifest.to_dict()
    document = json.loads(_run(capsys, "info", resnet20.path / "model.fp32.onnx", "--json")[1])
    assert document == {"contract": resnet20.manifest.contract.to_dict()}
    assert "task           multiclass" in _run(capsys, "info", resnet20.path / "model.fp32.onnx")[1]


def test_info_tells_that_weights_are_random(lenet5: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert "random weights: parity is proven, predictions mean nothing" in _run(capsys, "info", lenet5.path)[1]


@pytest.mark.parametrize("command", ["predict", "verify", "evaluate", "info"])
def test_what_is_no_bundle_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"predict": ["x.png"], "evaluate": ["--data", str(tmp_path)]}.get(command, [])
    for path in (tmp_path, tmp_path / "absent"):
        status, out, err = _run(capsys, command, path, *more)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: {path} ")
        assert err.count("\n") == 1


def test_altered_model_and_later_schema_have_status_1(
    bundle: Path, edit_manifest: EditManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    with (bundle / "model.fp32.onnx").open("ab") as file:
        file.write(b"\0")
    status, _, err = _run(capsys, "verify", bundle)
    assert status == 1
    assert "model.fp32.onnx is not the file that was exported (its SHA-256 differs)" in err
    edit_manifest(bundle, lambda data: data.update(schema_version=3))
    status, _, err = _run(capsys, "info", bundle)
    assert status == 1
    assert err.startswith("error: schema_version: 3 is later than 2")


@pytest.mark.parametrize(
    "argv",
    [
        ["predict"],
        ["predict", "bundle"],
        ["predict", "bundle", "x.png", "--top-k", "0"],
        ["predict", "bundle", "x.png", "--top-k", "many"],
        ["evaluate", "bundle"],
        ["explode", "bundle"],
    ],
)
def test_wrong_usage_has_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err


def test_where_nothing_was_predicted_no_model_is_named(
    lenet5: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _run(capsys, "predict", lenet5.path, tmp_path / "absent.png")
    assert (status, out) == (1, "")
    assert err == f"error: {tmp_path / 'absent.png'}: No such file or directory\n"


@pytest.mark.parametrize("value", ["0", "many", "1.5"])
def test_a_count_that_is_none_is_told_as_that(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "bundle", "x.png", "--top-k", value])
    assert f"argument --top-k: {value!r} is not a whole number of at least 1\n" in capsys.readouterr().err


def test_image_of_too_many_pixels_is_one_line(lenet5: ExportResult, tmp_path: Path) -> None:
    # Pillow itself warns of such images; a process of its own shows what a user sees.
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((9500, 9500), np.uint8)).save(path)
    done = subprocess.run([*COMMAND, "predict", lenet5.path, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {path} has 9500x9500 pixels; at most 89,478,485 are accepted\n"


def test_reader_that_goes_away_is_no_traceback(lenet5: ExportResult, images: list[Path]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "predict", lenet5.path, *images * 500], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_a_name_that_the_terminal_cannot_show_is_escaped(
    lenet5: ExportResult, images: list[Path], tmp_path: Path
) -> None:
    names = [tmp_path / "B\xe4r \u732b.png", Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))]
    for name in names:
        name.write_bytes(images[0].read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for command in ([*COMMAND, "predict", lenet5.path], [sys.executable, lenet5.path / "infer.py"]):
        done = subprocess.run([*command, *names], capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert "B\\xe4r \\u732b.png" in done.stdout
        assert "\\udcff.png" in done.stdout


def test_what_is_printed_tells_that_images_are_not_resized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--resize", "none", "--quantize", "none"]
    assert export_main(["lenet5", *options, "-o", str(tmp_path / "bundle")]) == 0
    assert "grey 32x32, batch any; no resize: images must have this size, scale unit" in capsys.readouterr().out
