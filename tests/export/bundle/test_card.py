"""The model card: the Hugging Face hub reads its header, and it tells what was measured and what was not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard

from edgeport_export.bundle.card import write_card

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult

DROP = {"metric": "top-1", "num_images": 500, "float_score": 91.4, "points": 0.2, "interval": [-0.4, 0.8]}


def _header(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard.load(folder / "README.md").data.to_dict()
    return found


def _quantized(result: ExportResult, **details: Any) -> Any:
    int8 = replace(
        result.manifest.variants[0], name="int8", quantization={"scheme": "static", "target": "cpu", **details}
    )
    return replace(result.manifest, variants=(*result.manifest.variants, int8))


def test_the_card_of_an_export(resnet20: ExportResult) -> None:
    text = (resnet20.path / "README.md").read_text("utf-8")
    header = _header(resnet20.path)
    assert header["library_name"] == "edgeport"
    assert header["pipeline_tag"] == "image-classification"
    assert {"onnx", "multiclass"} <= set(header["tags"])
    assert "model-index" not in header
    assert 'Classifier.load("hf://OWNER/NAME")' in text
    assert "- Labels: airplane, automobile, bird," in text
    assert "No labelled images were given" in text
    assert "weights are random" not in text
    assert "synthetic" not in text
    stage = next(stage for stage in resnet20.manifest.parity if stage["stage"] == "runtime fp32")
    row = next(line for line in text.splitlines() if line.startswith("| fp32 |"))
    assert f"| {stage['relative_l2']:.1e} | 8 of 8 golden images |" in row
    assert f"| {resnet20.measured['fp32']['latency_ms']:.3f} ms (batch 1) |" in row
    assert "[report.html](report.html)" in text


def test_random_weights_and_synthetic_images_are_told(lenet5: ExportResult) -> None:
    text = (lenet5.path / "README.md").read_text("utf-8")
    assert "The weights are random" in text
    assert "The golden images are synthetic" in text


def test_what_was_measured_on_labelled_images_is_in_the_header(resnet20: ExportResult, tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    write_card(tmp_path, _quantized(resnet20, drop=DROP), resnet20.measured, accuracy={}, is_synthetic=False)
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results[:1]
    assert (result.metric_type, result.metric_value, result.dataset_name) == (
        "accuracy",
        0.914,
        "500 labelled images of the exporter's",
    )
    assert [one.metric_value for one in ModelCard.load(tmp_path / "README.md").data.eval_results] == [0.914, 0.912]
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "int8 loses 0.2 points top-1 of 91.4% on 500 images (95% interval -0.4 to 0.8)." in text
    assert "No labelled images" not in text
    assert "[report.html](report.html)" in text


def test_accuracy_without_a_budget_is_in_the_header_and_in_words(resnet20: ExportResult, tmp_path: Path) -> None:
    one = {"metric": "top1", "value": 0.91, "interval": [0.88, 0.93], "num_images": 500}
    write_card(tmp_path, resnet20.manifest, resnet20.measured, accuracy={"fp32": one}, is_synthetic=False)
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert (result.metric_type, result.metric_name, result.metric_value) == ("accuracy", "top1, fp32", 0.91)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "fp32: top-1 91.0% on 500 labelled images (95% interval 88.0% to 93.0%)." in text
    assert "No labelled images" not in text


def test_agreement_on_images_without_labels(resnet20: ExportResult, tmp_path: Path) -> None:
    agreement = {"num_images": 500, "num_equal": 498, "interval": [0.98, 0.999]}
    write_card(tmp_path, _quantized(resnet20, agreement=agreement, drop=None), {}, accuracy={}, is_synthetic=False)
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert (result.metric_type, result.metric_value) == ("agreement", 0.996)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "498 of 500 images" in text
    assert "| not run here |" in text


@pytest.mark.parametrize("name", ['a: "b"\\', "---", "<script>x</script>", "| [a](b) | `c`", "# no"])
def test_names_of_the_users_are_shown_and_do_nothing(name: str, resnet20: ExportResult, tmp_path: Path) -> None:
    contract = replace(resnet20.manifest.contract, labels=(name, *"bcdefghij"))
    architecture = {**resnet20.manifest.architecture, "name": name}
    manifest = replace(_quantized(resnet20, drop=DROP), contract=contract, architecture=architecture)
    write_card(tmp_path, manifest, resnet20.measured, accuracy={}, is_synthetic=False)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert ModelCard.load(tmp_path / "README.md").data.model_name == name
    body = text.partition("\n---\n")[2]
    assert "<script>" not in body
    assert sum(line.startswith("# ") for line in body.splitlines()) == 1
    assert "[a](b)" not in body
