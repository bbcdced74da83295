"""Images as people bring them, through the class and the commands, with trained weights."""

from __future__ import annotations

import base64
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgeport_export import ExportConfig, export
from edgeport_export.quantize.judge import EvaluationImages
from edgeport_runtime import Classifier, InputError
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.accuracy.evaluate import evaluate
from edgeport_runtime.commands.cli import main
from edgeport_runtime.pixels.preprocess import preprocess
from training.data import digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult


def _arrays(folder: Path) -> tuple[list[Any], list[str]]:
    paths = sorted(folder.rglob("*.png"))
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths], [path.parent.name for path in paths]


def _top1(predictions: list[Any], names: list[str]) -> float:
    return sum(found[0].label == name for found, name in zip(predictions, names, strict=True)) / len(names)


def test_arrays_of_opencv_lose_nothing_if_it_is_said(resnet20: ExportResult, shared: Callable[[str], Path]) -> None:
    arrays, names = _arrays(shared("data/cifar10/test"))
    bgr = [array[:, :, ::-1] for array in arrays]
    with Classifier.load(resnet20.path, variant="fp32") as classifier:
        expected = classifier.predict_batch(arrays, 1)
        assert _top1(expected, names) == 0.91
        assert _top1(classifier.predict_batch(bgr, 1), names) == 0.87
        assert classifier.predict_batch(bgr, 1, color="bgr") == expected
        streamed = [result.predictions for result in classifier.stream(bgr, top_k=1, color="bgr")]
        assert _top1(streamed, names) == 0.91
        assert classifier.predict(bgr[0], color="bgr") == classifier.predict(arrays[0])
        mixed = list(classifier.stream([bgr[0], b"\xff\xd8\xff"], color="bgr"))
        assert (mixed[0].error, mixed[1].predictions) == (None, None)
        assert "color='bgr' is for arrays" in str(mixed[1].error)
        for call in (classifier.predict, classifier.stream):
            with pytest.raises(InputError, match="color is 'BGR'; the channels of an array are in the order rgb or"):
                call(arrays[0], color="BGR")  # type: ignore[operator]


def test_files_and_text_for_paths(resnet20: ExportResult, shared: Callable[[str], Path]) -> None:
    path = sorted(shared("data/cifar10/test/cat").iterdir())[0]
    with Classifier.load(resnet20.path) as classifier:
        expected = classifier.predict(path)
        assert classifier.predict(io.BytesIO(path.read_bytes())) == expected
        with path.open("rb") as file:
            assert classifier.predict(file) == expected
        with pytest.raises(InputError, match="looks like base64, not like a path; give the decoded bytes"):
            classifier.predict(base64.b64encode(path.read_bytes()).decode())


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The held-out digits with 12 bits per value in PNG files of 16, and bundles with and without --bits 12."""
    folder = tmp_path_factory.mktemp("twelve")
    found = digits()
    for i, (pixels, target) in enumerate(zip(found["x_test"], found["y_test"], strict=True)):
        path = folder / "data" / str(target) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint16) << 4 | pixels >> 4).save(path)
    made = {"data": folder / "data"}
    for bits in (12, 16):
        config = ExportConfig(
            architecture="lenet5", weights="digits", output=folder / f"{bits}", quantize=(), bits=bits
        )
        made[str(bits)] = export(config).path
    return made


def test_twelve_bits_in_files_of_sixteen(twelve_bits: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads((twelve_bits["12"] / "manifest.json").read_text())["contract"]["preprocess"]
    assert said["bits"] == 12
    scores = {}
    for bits in ("12", "16"):
        assert main(["evaluate", str(twelve_bits[bits]), "--data", str(twelve_bits["data"]), "--json"]) == 0
        captured = capsys.readouterr()
        scores[bits] = json.loads(captured.out)["num_correct"]
        warned = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
        assert len(warned) == (0 if bits == "12" else 1)
    assert scores == {"12": 358, "16": 60}
    assert "uses less than a sixteenth of its range" in warned[0]
    assert str(twelve_bits["data"]) in warned[0]
    assert main(["info", str(twelve_bits["12"])]) == 0
    assert ", 12 bits of 16\n" in capsys.readouterr().out


@pytest.fixture
def mixed(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """Images of two classes in every format, some files that are none, and a damaged one."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, path in enumerate(sorted(shared(f"data/cifar10/test/{name}").iterdir())[:20]):
            target = tmp_path / "data" / name / f"{i:02}"
            if i % 4 == 0:
                shutil.copy(path, target.with_suffix(".PNG"))
            else:
                suffix = {1: ".webp", 2: ".tif", 3: ".avif"}[i % 4]
                options = {".webp": {"lossless": True}, ".avif": {"quality": 100}}.get(suffix, {})
                Image.open(path).save(target.with_suffix(suffix), **options)
    cat = tmp_path / "data" / "cat"
    (cat / "00.PNG").write_bytes((cat / "00.PNG").read_bytes()[:300])
    (cat / "notes.txt").write_text("not an image")
    (cat / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "data" / "stray.jpg").write_bytes(b"")
    return tmp_path / "data"


def test_evaluate_goes_on_after_a_damaged_image(
    resnet20: ExportResult, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(resnet20.path), "--variant", "fp32", "--data", str(mixed)]
    assert main([*command, "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["num_images"], result["num_correct"], result["top1"]) == (39, 35, 35 / 39)
    assert [entry["path"] for entry in result["unusable"]] == [str(mixed / "cat" / "00.PNG")]
    assert "is damaged or cut short" in result["unusable"][0]["error"]
    assert result["left_out"] == {".heic (needs: pip install pillow-heif)": 1, ".txt": 1, "in no folder of a class": 1}
    errors, notes = captured.err.splitlines()
    assert errors.startswith(f"error: {mixed}/cat/00.PNG is damaged or cut short")
    assert notes == (
        "note: 3 files not taken as images: 1 .heic (needs: pip install pillow-heif), 1 .txt, 1 in no folder of a class"
    )
    assert main(command) == 1
    assert "not usable         1 of 40 images, which are in no figure\n" in capsys.readouterr().out


def test_predict_goes_on_and_tells_what_it_did_not_take(
    resnet20: ExportResult, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(resnet20.path), "--variant", "fp32", str(mixed / "cat"), "--json"]) == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert len(told) == 20
    assert sum("error" in entry for entry in told) == 1
    assert sum(entry["predictions"][0]["label"] == "cat" for entry in told if "error" not in entry) == 18
    assert captured.err.splitlines()[-1] == (
        "note: 2 files not taken as images: 1 .heic (needs: pip install pillow-heif), 1 .txt"
    )


def test_what_is_said_once_is_said_once(
    resnet20: ExportResult, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(20):
        image = Image.open(mixed / "dog" / "04.PNG").convert("RGBA")
        image.putalpha(128)
        image.save(tmp_path / f"{i}.png")
    for _ in range(2):  # and by the next command again
        assert main(["predict", str(resnet20.path), *(str(tmp_path / f"{i}.png") for i in range(20)), "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.err.startswith(f"warning: {tmp_path}/")
        assert "the transparency of an image is dropped" in captured.err
    assert {entry["predictions"][0]["label"] for entry in json.loads(captured.out)} == {"dog"}
    text = base64.b64encode(bytes(range(256)) * 36).decode()
    assert main(["predict", str(resnet20.path), text]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: 'AAECAw")
    assert len(told) < 250


def test_a_damaged_image_of_eval_is_left_out(resnet20: ExportResult, mixed: Path) -> None:
    contract = resnet20.manifest.contract
    images = read_labelled_images(mixed, contract)
    given = EvaluationImages(images, contract)
    for _ in range(2):
        with np.errstate(all="raise"):
            x_BCHW = np.concatenate(list(given.batches()))
        assert len(x_BCHW) == len(given.targets) == 39
    np.testing.assert_array_equal(given.targets, images.targets[1:])
    np.testing.assert_array_equal(x_BCHW[0], preprocess(images.paths[1], contract.preprocess))
    for path in (mixed / "cat").glob("*.webp"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"--eval: 3 of 40 images cannot be used, more than 5%; the last error"):
        list(EvaluationImages(images, contract).batches())


def test_classes_by_number_of_correct_images(resnet20: ExportResult, mixed: Path) -> None:
    with Classifier.load(resnet20.path, variant="fp32") as classifier:
        result: Any = evaluate(classifier, mixed)
    assert [(c.name, c.num_correct, c.num_images) for c in result.classes] == [("cat", 18, 19), ("dog", 17, 20)]
