"""Checkpoints as their writers write them: the exported bundle gives the logits that the writer's network gives.

Shapes: B batch, C channels, H W image, K classes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_export.source.subject import find_subject as resolve
from edgeport_models.weights import read_checkpoint
from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.outputs.metrics import relative_l2
from edgeport_runtime.pixels.preprocess import preprocess
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

POSITIONS_160 = "position embeddings interpolated from 14x14 to 10x10 patches"
SUMMED = "first layer summed over its 3 input channels (conv_proj.weight)"

# library, architecture, checkpoint, logits, options, layout and note of the manifest
CASES: dict[str, tuple[str, str, str, str, dict[str, Any], str, str | None]] = {
    "Hugging Face ViT": ("transformers", "vit_ti_16", "vit", "vit", {}, "Hugging Face ViT", None),
    "Hugging Face ResNet-18": ("transformers", "resnet18", "resnet18", "resnet18", {}, "Hugging Face ResNet", None),
    "Hugging Face ResNet-50": ("transformers", "resnet50", "resnet50", "resnet50", {}, "Hugging Face ResNet", None),
    "timm ViT": ("timm", "vit_ti_16", "vit.pth", "vit", {}, "timm ViT", None),
    "timm ViT at 160": ("timm", "vit_ti_16", "vit.pth", "vit_160", {"image_size": 160}, "timm ViT", POSITIONS_160),
    "timm ViT, grey": (
        "timm", "vit_ti_16", "vit.pth", "vit_grey", {"channels": 1, "sum_channels": True}, "timm ViT", SUMMED,
    ),
    "timm ResNet-18": ("timm", "resnet18", "resnet18.pth", "resnet18", {}, "torchvision or timm ResNet", None),
    "timm ResNet-50": ("timm", "resnet50", "resnet50.safetensors", "resnet50", {}, "torchvision or timm ResNet", None),
    "google-research": (
        "timm", "vit_ti_16", "vit_google_weights.npz", "vit_google", {}, "google-research ViT", None,
    ),
    "Lightning": ("lightning", "resnet18", "plain.ckpt", "resnet18", {}, "torchvision or timm ResNet", None),
}  # fmt: skip


@pytest.mark.parametrize("case", slow_but(["Hugging Face ResNet-18"], CASES))
def test_bundle_gives_the_writers_logits(
    case: str, written_by: Callable[[str], Path], photo_folder: Path, tmp_path: Path
) -> None:
    library, architecture, weights, logits, options, layout, note = CASES[case]
    folder = written_by(library)
    output = tmp_path / "bundle"
    config = ExportConfig(architecture=architecture, weights=folder / weights, output=output, quantize=(), **options)
    result = export(config)
    assert result.manifest.weights["layout"] == layout
    assert result.manifest.weights.get("note") == note
    assert result.manifest.contract.num_classes == 5
    reference = np.load(folder / f"{logits}.npz")
    expected_BK = reference["logits"]
    with Classifier.load(result.path, device="cpu", variant="fp32") as classifier:
        logits_BK = classifier.logits(reference["input"])
    assert expected_BK.std(axis=0).mean() > 0.1
    # Measured: 1e-6 (google-research) to 8e-6 (ResNet-50); float32 against float64 gives as much.
    assert relative_l2(logits_BK, expected_BK).max() <= 1e-5


@pytest.mark.parametrize("form", ["vit_sharded", "vit_memory", "vit_bin", "vit/model.safetensors"])
def test_every_form_of_hugging_face_holds_the_same_weights(form: str, written_by: Callable[[str], Path]) -> None:
    folder = written_by("transformers")
    expected, found = (read_checkpoint(folder / name).converted for name in ("vit", form))
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(found.state[key], value) for key, value in expected.state.items())
    assert (found.layer_norm_eps, found.num_heads) == (1e-12, 3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["vit_training.pth", "vit_hub"])
def test_every_form_of_timm_holds_the_same_weights(form: str, written_by: Callable[[str], Path]) -> None:
    folder = written_by("timm")
    expected, found = (read_checkpoint(folder / name).converted.state for name in ("vit.pth", form))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.slow
def test_objects_in_lightnings_hyperparameters_are_passed_over(written_by: Callable[[str], Path]) -> None:
    path = written_by("lightning") / "objects.ckpt"
    expected = torch.load(path, weights_only=False)["state_dict"]
    found = read_checkpoint(path).converted.state
    assert {f"model.{key}" for key in found} == set(expected)
    assert all(torch.equal(value, expected[f"model.{key}"]) for key, value in found.items())


@pytest.mark.slow
def test_descriptions_fill_in_preprocessing_and_labels(
    written_by: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeport_runtime.commands.cli import main as run_model

    bundle = tmp_path / "bundle"
    weights = str(written_by("transformers") / "vit")
    argv = ["vit_ti_16", "-o", str(bundle), "--weights", weights, "--interpolation", "bilinear", "--quantize", "none"]
    assert main(argv) == 0
    contract = load_manifest(bundle).contract
    assert contract.labels == ("cat", "dog", "owl", "fox", "bee")
    assert (contract.preprocess.resize, contract.preprocess.resize_size) == ("exact", 224)
    assert contract.preprocess.mean == contract.preprocess.std == (0.5, 0.5, 0.5)
    assert contract.preprocess.interpolation == "bilinear"
    sources = json.loads((bundle / "manifest.json").read_text())["provenance"]["sources"]
    processor = dict.fromkeys(
        ("resize", "resize_size", "image_size", "scale", "mean", "std"), "preprocessor_config.json"
    )
    defaults = dict.fromkeys(("color", "bits", "task", "positions", "pooling"), "architecture default")
    assert sources == processor | defaults | {
        "interpolation": "command line",
        "labels": "config.json",
        "num_classes": "checkpoint",
    }
    capsys.readouterr()
    assert run_model(["info", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "command line: interpolation" in shown
    assert "config.json: labels" in shown


@pytest.mark.parametrize(("name", "architecture"), [("vit", "vit_ti_16"), ("resnet50", "resnet50")])
def test_preprocessing_is_that_of_the_image_processor(
    name: str, architecture: str, written_by: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = written_by("transformers")
    config = ExportConfig(architecture=architecture, weights=folder / name, output=tmp_path / "unused")
    expected_CHW = np.load(folder / "photo.npz")[name][0]
    values_CHW = preprocess(folder / "photo.png", resolve(config).contract.preprocess)
    # The order of subtraction and division may differ; one of 256 levels would be 7.8e-3.
    assert np.abs(values_CHW - expected_CHW).max() <= 1e-6
