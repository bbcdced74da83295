"""tools/train.py through its command line: interruptions, and everything that it must refuse in one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    Train: TypeAlias = Callable[..., dict[str, Any]]
    Refusal: TypeAlias = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 60
QUICK = ("--epochs", "2", "--batch-size", "16", "--image-size", "16", "--lr", "0.01")


def start(*argv: object) -> subprocess.Popen[str]:
    """The command as a process of its own, in which one thread computes."""
    return subprocess.Popen(
        [sys.executable, ROOT / "tools" / "train.py", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Train:
    """Trains; the document of --json. Nothing else is said where no terminal listens."""

    def run(*argv: object) -> dict[str, Any]:
        status = main([*map(str, argv), "--json"])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        document: dict[str, Any] = json.loads(captured.out)
        return document

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The exit status and the one line that a command ends with."""

    def run(*argv: object) -> tuple[int, str]:
        status = main([*map(str, argv)])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        return status, captured.err

    return run


def pictures(num_channels: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise that is brighter in the upper half for class 0, and in the lower half for class 1: easily told apart."""
    random = np.random.default_rng(0)
    shape = (NUM_IMAGES, 16, 16, num_channels) if num_channels else (NUM_IMAGES, 16, 16)
    x = random.integers(0, 100, shape).astype(np.uint8)
    y = np.arange(NUM_IMAGES) % 2
    x[y == 0, :8] += 120
    x[y == 1, 8:] += 120
    return x, y


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    x, y = pictures()
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for i, (pixels, target) in enumerate(zip(*pictures(3), strict=True)):
        place = root / ("lower" if target else "upper")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:02}.png")
    return root


@pytest.fixture
def csv(folder: Path) -> Path:
    path = folder.parent / "labels.csv"
    images = sorted(folder.rglob("*.png"))
    names = {"upper": "upper;any", "lower": "lower"}
    path.write_text(
        "path,labels\n" + "".join(f"{p.relative_to(folder.parent)},{names[p.parent.name]}\n" for p in images)
    )
    return path


def test_multilabel_from_an_npz(train: Train, tmp_path: Path) -> None:
    x, y = pictures(3)
    np.savez(tmp_path / "many.npz", x_train=x, y_train=np.stack([y, 1 - y, np.ones_like(y)], axis=1))
    train("lenet5", "--task", "multilabel", "--data", tmp_path / "many.npz", "-o", tmp_path / "b", *QUICK)
    assert load_file(tmp_path / "b" / "model.safetensors")["fc3.weight"].shape == (3, 84)


@pytest.mark.slow
def test_interrupted_training_goes_on_to_the_same_result(npz: Path, tmp_path: Path) -> None:
    # BatchNorm's statistics and AdamW's moments must come back too, not the weights alone.
    options = ("--data", npz, "--channels", 1, "--image-size", 16, "--epochs", 8, "--batch-size", 16, "--flip")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = finished(start("resnet20", *options, "-o", whole, "--json"))
    process = start("resnet20", *options, "-o", broken)
    limit = time.monotonic() + 60
    while not (broken / "state.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "interrupted\n")
    assert [path.name for path in broken.iterdir()] == ["state.pt"]
    assert 1 <= torch.load(broken / "state.pt", weights_only=True)["epoch"] < 8
    assert finished(start("resnet20", *options, "-o", broken, "--json", "--resume")) == expected
    one, other = load_file(whole / "model.safetensors"), load_file(broken / "model.safetensors")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_single_image_over_is_trained_on_with_the_others(train: Train, refusal: Refusal, tmp_path: Path) -> None:
    """BatchNorm refuses a batch of one where its input is one pixel: 36 images in batches of 5, at 4x4 pixels."""
    x, y = pictures()
    np.savez(tmp_path / "odd.npz", x_train=x[:40], y_train=y[:40])
    argv = ("resnet20", "--data", tmp_path / "odd.npz", "--image-size", 4, "--channels", 1, "--epochs", 1)
    assert train(*argv, "--batch-size", 5, "-o", tmp_path / "out")["task"] == "multiclass"
    status, said = refusal(*argv, "--batch-size", 1, "-o", tmp_path / "alone")
    assert status == 1
    assert said.startswith(
        "error: the network cannot be trained on a batch of 1 (Expected more than 1 value per channel"
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--lr", "0.02"), "lr"),
        (("--held-out", "0.3"), "held-out part"),
        (("--mean", "0.3"), "data or input"),
    ],
)
def test_resuming_with_other_options_is_refused(
    train: Train,
    refusal: Refusal,
    change: tuple[str, ...],
    named: str,
    npz: Path,
    tmp_path: Path,
) -> None:
    argv = ("lenet5", "--data", npz, "-o", tmp_path / "out", *QUICK, "--epochs", "1")
    train(*argv)
    status, said = refusal(*argv, *change, "--resume")
    assert (status, f"was started with another {named}; give the same options" in said) == (1, True), said


class _Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (os.environ["EDGEPORT_TEST_MADE"],)


@pytest.mark.parametrize("content", ["nothing", "damage", "code"])
def test_state_that_cannot_be_resumed(
    refusal: Refusal, content: str, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    monkeypatch.setenv("EDGEPORT_TEST_MADE", str(made))
    out = tmp_path / "out"
    out.mkdir()
    if content == "damage":
        (out / "state.pt").write_bytes(b"PK\x03\x04 cut short")
    elif content == "code":
        with (out / "state.pt").open("wb") as file:
            pickle.dump({"settings": _Code()}, file)
    status, said = refusal("lenet5", "--data", npz, "-o", out, *QUICK, "--resume")
    assert status == 1
    assert said.startswith(f"error: {out / 'state.pt'} ")
    assert ("nothing to resume" if content == "nothing" else "is not a state of this training") in said
    assert not made.exists()


def _arrays(**changes: object) -> dict[str, Any]:
    x, y = pictures()
    return {"x_train": x, "y_train": y} | changes


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": pictures()[0]}, "lacks x_train or y_train"),
        (_arrays(y_train=np.zeros(3, int)), r"x_train is uint8 \(60, 16, 16\) and y_train int64 \(3,\); images are"),
        (_arrays(x_train=np.zeros((60, 16, 16))), r"x_train is float64 .* images are uint8"),
        (_arrays(y_train=np.full(60, 0.5)), r"y_train float64 \(60,\)"),
        (_arrays(y_train=np.array([object()] * 60)), "not an .npz of plain arrays: .*allow_pickle"),
        (_arrays(x_test=pictures()[0], y_test=np.full(60, 7)), "y_test contains class 7, which y_train does not"),
        (_arrays(y_train=-np.ones(60, int)), "y_train is empty, or has negative classes"),
    ],
    ids=["no targets", "other number", "float images", "float targets", "pickled", "unknown class", "negative"],
)
def test_npz_that_does_not_fit_is_refused(refusal: Refusal, arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    status, err = refusal("lenet5", "--data", tmp_path / "bad.npz", "-o", tmp_path / "out", *QUICK)
    assert status == 1
    assert re.search(said, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (
            ("lenet5", "--data", "absent.npz"),
            1,
            "absent.npz does not exist; --data takes one folder per class",
        ),
        (("lenet5", "--data", "absent"), 1, "absent does not exist; --data takes"),
        (("lenet5", "--data", "empty"), 1, "empty holds no classes; --data takes one folder per class, or a CSV"),
        (
            ("lenet5", "--data", "column.csv"),
            1,
            "column.csv has no column 'labels'; its first line must be path,labels",
        ),
        (("lenet5", "--data", "path.csv"), 1, "path.csv has no column 'path'; its first line must be path,labels"),
        (("lenet5", "--data", "binary.csv"), 1, "binary.csv is not a CSV file in UTF-8"),
        (("lenet5", "--data", "absent.csv"), 1, "0.png: No such file"),
        (
            ("lenet5", "--data", "images", "--task", "multilabel"),
            1,
            "images is a folder, where each image has one",
        ),
        (
            ("lenet5", "--data", "labels.csv"),
            1,
            "labels.csv, line .*: 2 labels, but an image of a multiclass",
        ),
        (("lenet5", "--data", "labels.csv", "--task", "binary"), 1, "there are 3 labels, but 2 classes"),
        (("lenet5", "--data", "images", "--resize", "none"), 1, "is 16x16 pixels, but this model takes 32x32"),
        (("lenet5", "--data", "images", "--held-out", "0"), 1, "--held-out 0.0 of 60 images leaves nothing"),
        (("lenet5", "--data", "truncated.npz"), 1, "truncated.npz is not an .npz of plain arrays"),
        (("lenet5", "--data", "digits", "--test", "images"), 1, "--test is for folders and CSV files"),
        (
            ("lenet5", "--data", "digits", "--task", "binary"),
            1,
            "digits has 10 classes, but --task binary needs 2",
        ),
        (("lenet5", "--data", "images", "--image-size", "8"), 1, "lenet5: image size 8 is too small"),
        (("lenet4", "--data", "images"), 2, "unknown architecture 'lenet4'; closest: lenet"),
        (("lenet5", "--data", "images", "--channels", "5"), 2, "--channels is 5; it must be 1"),
        (("lenet5", "--data", "images", "--epochs", "0"), 2, "--epochs is 0; it must be at least 1"),
        (("lenet5", "--data", "images", "--lr", "nan"), 2, "--lr is nan; it must be at least 0"),
        (("lenet5", "--data", "images", "--zoom", "1"), 2, "--zoom is 1.0; it must be at least 0 and below 1"),
        (("lenet5", "--data", "images", "--lr", "1e30", "--epochs", "9"), 1, "the loss is .* use a smaller --lr"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("csv", "npz")
def test_bad_input_is_refused_in_one_line(
    refusal: Refusal,
    argv: tuple[str, ...],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("column.csv").write_text("path,classes\nimages/lower/01.png,lower\n")
    Path("path.csv").write_text("file,labels\nimages/lower/01.png,lower\n")
    Path("binary.csv").write_bytes(b"path,labels\n\xff\xfe\n")
    Path("absent.csv").write_text("path,labels\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    Path("truncated.npz").write_bytes(Path("data.npz").read_bytes()[:2000])
    found, err = refusal(*argv, "-o", "out")
    assert found == status
    assert re.match(rf"error: .*{said}", err), err
