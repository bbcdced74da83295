"""tools/train.py by its command line, on few images and for few steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import train
from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier
from edgeport_runtime.accuracy.evaluate import evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHORT = ["--epochs", "2", "--batch-size", "8", "--held-out", "0.25"]


def _images(num: int) -> NDArray[np.uint8]:
    """Bright and dark blocks: images of two kinds that a few steps can tell apart."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 120, (num, 4, 4)) + 130 * (np.arange(num) % 2)[:, None, None]
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, image in enumerate(_images(40)):
        path = tmp_path / "photos" / ("dark", "light")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture
def csv(folder: Path) -> Path:
    lines = ["path,labels"]
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        labels = [path.parent.name, *(["third"] if i % 3 == 0 else [])]
        lines.append(f"{path.relative_to(folder)},{';'.join(labels)}")
    path = folder / "labels.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    images = _images(40)
    np.savez(path, x_train=images, y_train=np.arange(40) % 2, x_test=images[:10], y_test=np.arange(10) % 2)
    return path


def _fails(capsys: pytest.CaptureFixture[str], *argv: Any, status: int = 1) -> str:
    capsys.readouterr()
    assert train.main([*map(str, argv)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


OWN = """
from torch import nn

def make(num_classes=7):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, num_classes),
    )
"""


def test_a_module_of_ones_own_is_trained_and_exports(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, output = tmp_path / "own.py", tmp_path / "out"
    own.write_text(OWN)
    shape = ["--image-size", "32", "--channels", "1", "--mean", "0.5", "--std", "0.25"]
    argv = [f"{own}:make", "--data", str(npz), "-o", str(output), *SHORT, "--json"]
    assert "--image-size is missing" in _fails(capsys, *argv, status=2)
    assert train.main([*argv, *shape]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["architecture"] == "own.py:make"
    result = export(
        ExportConfig(architecture=f"{own}:make", weights=output, output=tmp_path / "bundle", num_classes=2, quantize=())
    )
    contract = result.manifest.contract
    assert (contract.num_classes, contract.preprocess.mean, contract.preprocess.color) == (2, (0.5,), "grey")
    with np.load(npz) as arrays, Classifier.load(result.path) as classifier:
        decided = [classifier.predict(image, top_k=1)[0].index for image in arrays["x_test"]]
        top1 = float(np.mean(np.array(decided) == arrays["y_test"]))
    assert document["metrics"]["top1"] == pytest.approx(top1)


@pytest.mark.parametrize(
    ("task", "data"), [("multiclass", "folder"), ("binary", "folder"), ("multilabel", "csv"), ("binary", "npz")]
)
def test_what_is_trained_exports_and_measures_the_same(
    task: str, data: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = request.getfixturevalue(data), tmp_path / "out"
    test = [] if data == "npz" else ["--test", str(source)]
    argv = [
        "lenet5",
        "--data",
        str(source),
        *test,
        "-o",
        str(output),
        "--task",
        task,
        *SHORT,
        "--flip",
        "--rotate",
        "5",
    ]
    assert train.main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert (document["task"], document["measured_on"]) == (task, "test")
    assert json.loads((output / "metrics.json").read_text()) == document
    result = export(ExportConfig(architecture="lenet5", weights=output, output=tmp_path / "bundle"))
    contract = result.manifest.contract
    assert contract.task == task
    assert contract.labels == {"npz": None, "folder": ("dark", "light"), "csv": ("dark", "light", "third")}[data]
    sources = result.manifest.provenance["sources"]
    assert (sources["mean"], sources["task"]) == ("preprocessor_config.json", "config.json")
    if data == "npz":
        return
    with Classifier.load(result.path, variant="fp32") as classifier:
        measured = evaluate(classifier, source).to_dict()
    for name, value in document["metrics"].items():
        # Measured: at most 2e-8; the issue asks for 1e-4
        assert measured[name] == pytest.approx(value, abs=1e-5), name


def test_training_learns(npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        train.main(["lenet5", "--data", str(npz), "-o", str(tmp_path / "out"), "--epochs", "8", "--batch-size", "8"])
        == 0
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]["top1"] == 1
    assert "top1                    1.0000  (test images)" in capsys.readouterr().out


def test_the_seed_decides_the_weights_and_resuming_changes_nothing(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *options: str) -> dict[str, torch.Tensor]:
        argv = ["lenet5", "--data", str(npz), "-o", str(tmp_path / name), *SHORT, "--shift", "0.1", *options]
        assert train.main(argv) == 0
        return load_file(tmp_path / name / "model.safetensors")

    one, same, other = run("one"), run("same"), run("other", "--seed", "1")
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)

    from training import loop

    def interrupted(*args: Any) -> Any:
        write(*args)
        raise KeyboardInterrupt

    write = loop.write_atomically
    monkeypatch.setattr(loop, "write_atomically", interrupted)
    argv = ["lenet5", "--data", str(npz), "-o", str(tmp_path / "cut"), *SHORT, "--shift", "0.1"]
    assert train.main(argv) == 130
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    monkeypatch.setattr(loop, "write_atomically", write)
    resumed = run("cut", "--resume")
    assert all(torch.equal(one[key], resumed[key]) for key in one)


def test_weights_are_refused_for_an_architecture_of_the_same_keys(npz: Path, tmp_path: Path) -> None:
    from edgeport_runtime import WeightsError

    argv = ["resnet20", "--data", str(npz), "-o", str(tmp_path / "out"), "--channels", "1", *SHORT]
    assert train.main(argv) == 0
    with pytest.raises(WeightsError, match=r"these weights are for 'resnet20', not of plain20"):
        export(ExportConfig(architecture="plain20", weights=tmp_path / "out", output=tmp_path / "bundle"))


def test_bad_input_is_named(
    npz: Path, folder: Path, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", tmp_path / "out"]
    assert "closest: lenet" in _fails(capsys, "lenet6", "--data", npz, *out, status=2)
    assert "nowhere does not exist; --data takes" in _fails(capsys, "lenet5", "--data", tmp_path / "nowhere", *out)
    assert "--test is for folders and CSV files" in _fails(capsys, "lenet5", "--data", npz, "--test", folder, *out)
    assert "--lr is -1.0; it must be at least 0" in _fails(
        capsys, "lenet5", "--data", npz, "--lr", "-1", *out, status=2
    )
    assert "--held-out 0.001 of 40 images leaves" in _fails(
        capsys, "lenet5", "--data", npz, "--held-out", "0.001", *out
    )
    assert "needs a CSV file" in _fails(capsys, "lenet5", "--data", folder, "--task", "multilabel", *out)
    assert "nothing to resume" in _fails(capsys, "lenet5", "--data", npz, "--resume", *out)
    assert "image size 8 is too small" in _fails(capsys, "lenet5", "--data", npz, "--image-size", "8", *out)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((4, 8, 8), np.uint8)}, "lacks x_train or y_train"),
        ({"x_train": np.zeros((4, 8, 8)), "y_train": np.zeros(4, int)}, "x_train is float64 (4, 8, 8)"),
        ({"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.zeros(3, int)}, "y_train int64 (3,)"),
        ({"x_train": np.array([{}], object), "y_train": np.zeros(1, int)}, "is not an .npz of plain arrays"),
        ({"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.array([0, 1, 2, -1])}, "has negative classes"),
    ],
)
def test_npz_that_cannot_be_used_is_named(
    arrays: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    assert message in _fails(capsys, "lenet5", "--data", tmp_path / "bad.npz", "-o", tmp_path / "out")


def test_state_that_is_not_of_this_training_is_refused(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["lenet5", "--data", npz, "-o", tmp_path / "out"]
    assert train.main([*map(str, argv), *SHORT]) == 0
    assert "was started with another epochs" in _fails(capsys, *argv, *SHORT, "--epochs", "3", "--resume")
    (tmp_path / "out" / "state.pt").write_bytes(b"not a state")
    assert "state.pt is not a state of this training" in _fails(capsys, *argv, *SHORT, "--resume")
