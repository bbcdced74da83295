"""The shipped weights: what the documentation says of them, through an exported bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_models import ARCHITECTURES
from edgeport_runtime import Classifier, WeightsError
from edgeport_runtime.accuracy.evaluate import MulticlassEvaluation, evaluate
from training.data import digits

ROOT = Path(__file__).resolve().parents[2]
# Measured by tools/train.py in PyTorch on the 360 held-out digits (docs/training.md).
TOP1 = {"lenet5": 0.9944, "vit_digits": 0.9917}


@pytest.mark.parametrize("architecture", TOP1)
def test_accuracy_is_what_the_documentation_says(architecture: str, tmp_path: Path) -> None:
    found = digits()
    for i, (pixels, target) in enumerate(zip(found["x_test"], found["y_test"], strict=True)):
        folder = tmp_path / "test" / str(target)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    result = export(ExportConfig(architecture=architecture, weights="digits", output=tmp_path / "bundle"))
    assert result.manifest.weights["source"] == "shipped"
    assert result.manifest.contract.labels == tuple("0123456789")
    assert result.manifest.variants[0].size_bytes < 400_000
    with Classifier.load(result.path, variant="fp32") as classifier:
        measured = evaluate(classifier, tmp_path / "test")
    assert isinstance(measured, MulticlassEvaluation)
    assert measured.num_images == 360
    assert measured.top1 == pytest.approx(TOP1[architecture], abs=5e-5)
    assert f"| `{architecture}` | {TOP1[architecture]:.4f} |" in (ROOT / "docs" / "training.md").read_text()


@pytest.mark.parametrize("architecture", TOP1)
def test_shipped_files_are_small(architecture: str) -> None:
    folder = ROOT / "models" / "edgeport_models" / "weights" / "shipped" / "digits" / architecture
    assert 0 < sum(path.stat().st_size for path in folder.iterdir()) < 400_000


def test_sample_digit_is_recognized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "made" / "digit.png"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "sample_digit.py", image, "--number", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert main(["lenet5", "--weights", "digits", "-o", str(tmp_path / "bundle")]) == 0
    with Classifier.load(tmp_path / "bundle", variant="fp32") as classifier:
        best = classifier.predict(image)[0]
    assert done.stdout == f"{image} shows the digit {best.label}\n"
    assert best.score > 0.5


def test_weights_are_for_some_architectures_only(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"are for lenet5, vit_digits, not for resnet18; a file .* \./dig"):
        export(ExportConfig(architecture="resnet18", weights="digits", output=tmp_path / "bundle"))


def test_a_file_of_that_name_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("not weights")
    assert ARCHITECTURES["lenet5"].num_params == 61_706
    with pytest.raises(WeightsError, match=r"weights digits: the file name must end in"):
        export(ExportConfig(architecture="lenet5", weights="./digits", output=tmp_path / "bundle"))
