"""What an export writes of itself: report.json, and the command that makes the bundle again."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeport_export.bundle.report as bundle_report
from edgeport_export import ExportConfig, export
from edgeport_export.bundle.report import command_of
from edgeport_export.cli import main
from edgeport_runtime.commands.verify import verify
from task_models import make_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult

DIGITS_MULTIPLY_ADDS = {"node_conv2d": 117_600, "node_conv2d_1": 240_000, "node_linear": 48_000}


@pytest.fixture(scope="module")
def exported(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    """LeNet-5 with its shipped weights, and an explained int8 variant."""

    def make(folder: Path) -> ExportResult:
        return export(ExportConfig(architecture="lenet5", weights="digits", output=folder / "digits", explain=True))

    return exported_once("digits-report", make)


def _report(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    return document


def test_layers_have_their_work_parameters_time_and_cost(exported: ExportResult) -> None:
    rows = {row["name"]: row for row in _report(exported.path)["layers"]["rows"]}
    assert len(rows) == 5
    for name, count in DIGITS_MULTIPLY_ADDS.items():  # LeCun et al. 1998, Figure 2: 6x28x28x25, 16x10x10x150, 120x400
        assert rows[name]["multiply_adds"] == count
    assert sum(row["num_params"] for row in rows.values()) == exported.manifest.architecture["num_params"]
    assert all(row["times_ms"]["fp32"] > 0 for row in rows.values())
    linear = [row["variants"]["int8"] for row in rows.values() if row["op_type"] == "Gemm"]
    assert [told["is_float"] for told in linear] == [False, False, False]
    assert all(0 < told["error"] < 0.1 for told in linear)
    convolutions = [row["variants"]["int8"] for row in rows.values() if row["op_type"] == "Conv"]
    reason = "dynamic int8 is for linear layers with constant weights"
    assert [(told["is_float"], told["reason"]) for told in convolutions] == [(True, reason)] * 2


def test_the_chain_and_the_variants_are_those_of_the_manifest(exported: ExportResult) -> None:
    told = _report(exported.path)
    assert told["chain"] == [dict(stage) for stage in exported.manifest.parity]
    for row, variant in zip(told["variants"], exported.manifest.variants, strict=True):
        assert (row["name"], row["sha256"]) == (variant.name, variant.sha256)
        assert row["latency"]["p50_ms"] == exported.measured[variant.name]["latency_ms"]
        assert row["latency"]["p90_ms"] >= row["latency"]["p50_ms"]
    assert told["images"]["source"] == "synthetic"
    assert any("No real image was used" in sentence for sentence in told["not_tested"])
    assert [step["name"] for step in told["input"]["steps"]] == ["decoded", "resized", "cropped", "normalized"]


def test_a_bundle_is_whole_without_its_report(exported: ExportResult, tmp_path: Path) -> None:
    bundle = shutil.copytree(exported.path, tmp_path / "bundle")
    (bundle / "report.html").unlink()
    (bundle / "report.json").write_text("altered")
    assert verify(bundle).passed


def test_without_altair_there_is_no_page_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeport_runtime.report.page import bundle_page

    monkeypatch.setattr(bundle_report, "bundle_page", bundle_page)
    monkeypatch.setitem(sys.modules, "altair", None)
    result = export(ExportConfig(architecture="lenet5", output=tmp_path / "b", quantize=()))
    assert not (result.path / "report.html").exists()
    assert result.notes[-1] == (
        "no report.html: altair is not installed, which draws plots; pip install altair jinja2 vl-convert-python"
    )


@pytest.mark.parametrize(
    "options",
    [
        "lenet5 -o out",
        "lenet5 --weights digits --quantize none --no-thumbnails -o 'my out'",
        "resnet18 --weights 'a b.pth' --num-classes 3 --mean 0.5 0.5 0.5 --quantize int8,fp16 --target cpu,arm64 "
        "--calibration builtin --max-drop 0.5 --eval photos --explain --batch 4 --seed 3 -o out",
        "googlenet --no-transform-input --task multilabel --threshold 0.25 0.75 --crop-pct 0.875 -o out "
        "--image-size 96 128",
    ],
)
def test_the_command_makes_the_same_export(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ExportConfig] = []

    def stop(config: ExportConfig) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeport_export.source.subject.check_options", stop)
    main(shlex.split(options))
    command = command_of(seen[0], is_module=False)
    assert command.startswith("export-model ")
    main(shlex.split(command)[1:])
    assert seen[1] == seen[0]


def test_of_a_module_the_call_is_told() -> None:
    config = ExportConfig(output=Path("out"), image_size=32, quantize=())
    assert command_of(config, is_module=True) == (
        "export(module, ExportConfig(output='out', image_size=32, quantize=()))"
    )


@pytest.mark.parametrize("has_thumbnails", [True, False])
def test_golden_images_of_the_users_are_shown_unless_they_are_not_to_be(
    has_thumbnails: bool, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    config = ExportConfig(
        architecture="lenet5",
        output=tmp_path / "b",
        golden=shared("data/cats-dogs/test/cat"),
        thumbnails=has_thumbnails,
        quantize=(),
    )
    told = _report(export(make_module("multiclass"), _for_lenet(config)).path)
    assert {step["picture"] is not None for step in told["input"]["steps"]} == {has_thumbnails}
    assert told["images"]["source"] == "golden"


def _for_lenet(config: ExportConfig) -> ExportConfig:
    from dataclasses import replace

    return replace(config, image_size=32, channels=1)


def test_labelled_images_without_a_budget_give_the_accuracy(shared: Callable[[str], Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label in ("cat", "dog"):
        (data / label).mkdir(parents=True)
        for image in sorted(shared(f"data/cats-dogs/test/{label}").iterdir())[:4]:
            shutil.copy(image, data / label)
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\ncow\n")
    (data / "dog" / "cut.png").write_bytes(b"\x89PNG")
    config = ExportConfig(
        output=tmp_path / "b",
        labels=tmp_path / "labels.txt",
        eval=data,
        quantize=(),
        image_size=32,
        channels=1,
    )
    told = _report(export(make_module("multiclass"), config).path)
    assert told["images"] == {
        "source": "evaluation",
        "num_images": 8,
        "is_labelled": True,
        "note": "1 of 9 images could not be used and are in no figure",
    }
    assert [c["num_images"] for c in told["accuracy"]["fp32"]["classes"]] == [4, 4]
    assert sum(count for _, _, count in told["accuracy"]["fp32"]["confusion"]) == 8
