"""The loss of an int8 variant: how it is measured, budgets, equalization and layers that go back to float."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from bundle_facts import details_of, operators_of
from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_export.quantize.drop import Drop
from edgeport_runtime import Classifier, load_manifest
from speed import slow_but
from task_models import make_module

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = {"multiclass": "a\nb\nc\nd\n", "binary": "no\nyes\n", "multilabel": "a\nb\nc\nd\n"}


def _labelled(task: str, images: Path, weights: Path, folder: Path) -> tuple[Path, NDArray[np.int64]]:
    """A CSV whose labels are what the float model decides, so that it is always right."""
    labels = folder / "labels.txt"
    labels.write_text(LABELS[task])
    result = export(
        ExportConfig(
            architecture="lenet5",
            weights=weights,
            output=folder / "float",
            labels=labels,
            task=task,
            quantize=(),  # type: ignore[arg-type]
        )
    )
    names = LABELS[task].split()
    paths = sorted(images.glob("*.png"))
    rows, targets = [], []
    with Classifier.load(result.path) as classifier:
        for path, predictions in zip(paths, classifier.predict_batch(paths, 4), strict=True):
            decided = sorted(p.index for p in predictions if p.is_decided)
            targets.append([int(i in decided) for i in range(len(names))])
            rows.append((str(path), ";".join(names[i] for i in decided)))
    data = folder / "data.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "labels"), *rows])
    return data, np.array(targets)


@pytest.mark.parametrize("task", slow_but(["multiclass", "binary"], ["multiclass", "binary", "multilabel"]))
def test_the_loss_and_flips_of_each_task_are_measured(task: str, images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(make_module(task).state_dict(), weights)  # type: ignore[arg-type]
    data, targets = _labelled(task, images, weights, tmp_path)
    config = ExportConfig(
        architecture="lenet5",
        weights=weights,
        output=tmp_path / "bundle",
        labels=tmp_path / "labels.txt",
        task=task,  # type: ignore[arg-type]
        quantize=("int8",),
        scheme="static",
        calibration=images,
        max_drop=50.0,
        eval=data,
    )
    result = export(config)
    drop = details_of(result, "int8")["drop"]
    assert (drop["num_images"], drop["float_score"]) == (40, 100.0)
    with Classifier.load(result.path, variant="int8") as classifier:
        predictions = classifier.predict_batch(sorted(images.glob("*.png")), 4)
    decided = np.zeros_like(targets)
    for row, best in enumerate(predictions):
        decided[row, [p.index for p in best if p.is_decided]] = 1
    flips = (decided != targets).sum(axis=0)
    if task == "multiclass":
        assert drop["metric"] == "top-1"
        assert drop["flips"] is None
        assert drop["points"] == pytest.approx(100 * (decided != targets).any(axis=1).mean())
        return
    assert drop["metric"] == "macro F1"
    assert drop["points"] == pytest.approx(100 - 100 * f1_score(targets, decided, average="macro"), abs=1e-4)
    assert drop["flips"] == (flips[1:] if task == "binary" else flips).tolist()


FRAGILE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 4),
    )
    with torch.no_grad():
        net[0].weight[2] *= 1000
        net[0].bias[2] *= 1000
        net[2].weight[:, 2] /= 1000
    return net
"""
FIRST, SECOND = "node_conv2d", "node_conv2d_1"


@pytest.fixture(scope="module")
def fragile(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command for a network whose second layer reads one channel a thousand times larger than the others."""
    path = tmp_path_factory.mktemp("fragile") / "fragile.py"
    path.write_text(FRAGILE)
    shape = ["--image-size", "32", "--channels", "1", "--color", "grey", "--mean", "0.5", "--std", "0.25"]
    return [f"{path}:make", *shape, "--quantize", "int8", "--calibration", str(images)]


def test_channels_out_of_balance_are_equalized(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*fragile, "-o", str(tmp_path / "bundle")]) == 0
    assert f"channels equalized after {FIRST};" in capsys.readouterr().out
    details = load_manifest(tmp_path / "bundle").variants[1].quantization
    assert details is not None
    assert details["relative_l2"] < 0.03


@pytest.mark.slow
def test_without_equalization_the_layer_goes_back_to_float(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    output = str(tmp_path / "bundle")
    assert main([*fragile, "-o", output]) == 3
    captured = capsys.readouterr()
    assert "error: variant int8: its outputs differ from the float model's by a relative L2" in captured.err
    assert "--max-drop" in captured.err
    assert not (tmp_path / "bundle").exists()
    assert main([*fragile, "-o", output, "--max-drop", "3"]) == 3
    assert "of its multiply-adds would run in int8 (at least 50%): the others went back to float" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr("edgeport_export.quantize.recipes.Recipe.min_share", 0.0, raising=False)
    assert main([*fragile, "-o", output, "--max-drop", "3"]) == 0
    text = capsys.readouterr().out
    assert "(all in int8)" in text
    details = load_manifest(output).variants[1].quantization
    assert details is not None
    assert {FIRST, SECOND} <= set(details["float_layers"])
    assert f"layers in float: {', '.join(details['float_layers'])}" in text
    assert details["drop"]["points"] <= 3
    ops = operators_of(tmp_path / "bundle" / "model.int8.onnx")
    assert ops["QuantizeLinear"] > 0


def test_a_budget_that_cannot_be_met_is_status_3_and_no_bundle(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Drop(metric="disagreement", num_images=40, float_score=None, points=7.5, interval=(2.0, 15.0), flips=None)
    monkeypatch.setattr("edgeport_export.quantize.judge.Judge.drop", lambda *_: lost)
    assert main([*fragile, "-o", str(tmp_path / "bundle"), "--max-drop", "1"]) == 3
    message = capsys.readouterr().err
    assert "no choice of layers keeps the loss within 1 points" in message
    assert "accept it with --max-drop 7.5" in message
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_asked_for_is_left_out_where_it_loses_too_much(
    fragile: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    int8_is_free: None,
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    argv = [word for word in fragile if word not in ("--quantize", "int8")]
    assert main([*argv, "-o", str(tmp_path / "bundle")]) == 0
    assert (
        "note: no int8 variant: variant int8: its outputs differ from the float model's by a relative L2"
        in capsys.readouterr().out
    )
    assert [v.name for v in load_manifest(tmp_path / "bundle").variants] == ["fp32"]


@pytest.mark.slow
def test_explain_shows_each_layer_and_the_worst_first(
    fragile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    assert main([*fragile, "-o", str(tmp_path / "bundle"), "--explain"]) == 3
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if "output SNR" in line) + 2
    assert {lines[first].split()[0], lines[first + 1].split()[0]} == {FIRST, SECOND}
    assert sum(" dB" in line for line in lines) == 4
    argv = [*fragile, "-o", str(tmp_path / "bundle"), "--explain", "--max-drop", "100", "--json"]
    assert main(argv) == 0
    layers = json.loads(capsys.readouterr().out)["variants"]["int8"]["layers"]
    costs = [layer["cost_db"] for layer in layers]
    assert costs == sorted(costs)
    assert {layer["node"] for layer in layers[:2]} == {FIRST, SECOND}
    assert layers[0]["clipped"] < 0.01
    assert all(layer["low"] <= 0 < layer["high"] for layer in layers)
