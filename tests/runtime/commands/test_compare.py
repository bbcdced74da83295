"""run-model compare on trained networks and real images, against figures computed by themselves."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scipy import stats

from cifar10 import CLASSES
from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult


@pytest.fixture(scope="module")
def bundles(shared: Callable[[str], Path], once: Callable[[str, Callable[[Path], object]], Path]) -> tuple[Path, Path]:
    """Trained CIFAR-10 networks: ResNet-20 with its int8 variant, and ResNet-56."""

    def make(folder: Path) -> None:
        labels, calibration = folder / "labels.txt", folder / "calibration"
        labels.write_text("\n".join(CLASSES) + "\n")
        calibration.mkdir()
        for image in sorted(shared("data/cifar10/calibration").rglob("*.png"))[::8]:
            shutil.copy(image, calibration)
        for name, weights, quantize in (
            ("resnet20", "resnet20-12fca82f.th", ("int8",)),
            ("resnet56", "resnet56-4bfd9763.th", ()),
        ):
            export(
                ExportConfig(
                    architecture=name,
                    output=folder / name,
                    weights=shared(f"weights/{weights}"),
                    labels=labels,
                    calibration=calibration if quantize else None,
                    quantize=quantize,
                )
            )

    folder = once("compared", make)
    return folder / "resnet20", folder / "resnet56"


def _json(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 0) -> dict[str, Any]:
    assert main(["compare", *map(str, argv), "--json"]) == status
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def _decided(path: Path, variant: str, images: list[Path]) -> list[str | None]:
    with Classifier.load(path, variant=variant, device="cpu") as classifier:
        return [found[0].label for found in classifier.predict_batch(images, 1)]


def _images(shared: Callable[[str], Path]) -> list[Path]:
    return sorted(shared("data/cifar10/test").rglob("*.png"))


def test_two_networks(
    bundles: tuple[Path, Path],
    shared: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resnet20, resnet56 = bundles
    data, images = shared("data/cifar10/test"), _images(shared)
    argv = [f"{resnet20}@fp32", resnet56, "--data", data, "--csv", tmp_path / "flips.csv"]
    found = _json(capsys, *argv)
    first, second = _decided(resnet20, "fp32", images), _decided(resnet56, "fp32", images)
    true = [image.parent.name for image in images]
    flipped = {str(image) for image, a, b in zip(images, first, second, strict=True) if a != b}
    assert found["num_images"] == 500
    assert found["num_equal"] == 500 - len(flipped)
    assert found["agreement"] == found["num_equal"] / 500
    assert {flip["image"] for flip in found["flips"]} == flipped
    right = [[a == t for a, t in zip(side, true, strict=True)] for side in (first, second)]
    alone = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    labelled = found["labelled"]
    assert (labelled["accuracy_first"], labelled["accuracy_second"]) == (0.91, 0.94)
    assert [labelled["first_only"], labelled["second_only"]] == alone
    assert labelled["p_value"] == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue)
    cat = next(change for change in found["classes"] if change["label"] == "cat")
    assert cat["num_true"] == true.count("cat")
    assert cat["num_first"] == first.count("cat")
    assert cat["right_second"] == sum(a == t == "cat" for a, t in zip(second, true, strict=True))
    assert (found["first"]["size_bytes"], found["second"]["size_bytes"]) == tuple(
        (path / "model.fp32.onnx").stat().st_size for path in bundles
    )
    assert found["first"]["latency_ms"] > 0
    rows = list(csv.DictReader((tmp_path / "flips.csv").open(encoding="utf-8")))
    assert [row["image"] for row in rows] == [flip["image"] for flip in found["flips"]]
    assert rows[0]["first"] == found["flips"][0]["first"][0]["label"]


def test_variants_of_a_bundle_and_the_gate(
    bundles: tuple[Path, Path], shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resnet20, data, images = bundles[0], shared("data/cifar10/test"), _images(shared)
    pair, page = [f"{resnet20}@fp32", f"{resnet20}@int8"], tmp_path / "page.html"
    found = _json(capsys, *pair, "--data", data, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert f"A and B decide the same on {found['num_equal']} of 500 images" in text
    assert f"{found['labelled']['p_value']:.3g} (McNemar&#39;s test)" in text
    assert text.count('<li class="card">') == text.count("<img src=") == len(found["flips"])
    assert all(Path(flip["image"]).name in text for flip in found["flips"])
    first, second = (_decided(resnet20, variant, images) for variant in ("fp32", "int8"))
    num_equal = sum(a == b for a, b in zip(first, second, strict=True))
    assert found["num_equal"] == num_equal < 500
    argv = ["compare", *pair, "--data", str(data)]
    assert main([*argv, "--min-agreement", str(num_equal / 500)]) == 0
    text = capsys.readouterr().out
    assert f"same decision      {num_equal} of 500 images" in text
    assert "right              A 455, B" in text
    assert main([*argv, "--min-agreement", "0.9999"]) == 3
    assert "error: the decisions agree on" in capsys.readouterr().err


def test_golden_images_where_there_are_no_others(resnet20: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, resnet20.path / "model.fp32.onnx", f"{resnet20.path}@fp32", "--device", "cpu", "cpu")
    assert (found["num_images"], found["num_equal"], found["flips"], found["labelled"]) == (8, 8, [], None)
    assert (found["first"]["variant"], found["second"]["variant"]) == (None, "fp32")


def test_a_folder_whose_folders_are_no_classes_is_compared_without_labels(
    resnet20: ExportResult, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, image in enumerate(_images(shared)[::100]):
        (tmp_path / f"day{i}").mkdir()
        shutil.copy(image, tmp_path / f"day{i}")
    (tmp_path / "day0" / "cut.png").write_bytes(b"\x89PNG")
    pair = (f"{resnet20.path}@fp32", f"{resnet20.path}@fp32")
    assert main(["compare", *pair, "--data", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "same decision      5 of 5 images (100.00%, 95% interval 56.55% to 100.00%)" in out
    assert "right" not in out
    assert "cut.png" in err
    assert "note: no labels: " in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{b}/model.fp32.onnx", "{b}/model.fp32.onnx"], "two lone .onnx have no golden images; give images with"),
        (["{b}", "{b}@int4"], "int4"),
        (["{b}", "{b}", "--device", "cpu", "cpu", "cpu"], "--device takes one device for both models, or two; 3 are"),
        (["{b}", "{b}/nothing"], "nothing does not exist"),
        (["{b}", "{b}", "--csv", "{b}/no/flips.csv"], "--csv: the folder of"),
        (["{b}", "{b}", "--data", "{b}/labels.csv"], "labels.csv does not exist"),
    ],
)
def test_what_cannot_be_compared_is_told(
    argv: list[str], message: str, resnet20: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *(word.format(b=resnet20.path) for word in argv)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
