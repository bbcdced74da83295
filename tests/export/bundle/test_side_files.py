"""Files beside the variants: what speaks for an answer, and features, as a bundle's user gets them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import find_weights, load_checkpoint
from edgeport_runtime import Classifier, load_manifest
from edgeport_runtime.errors import ExportError, InputError, ManifestError
from edgeport_runtime.pixels.preprocess import preprocess
from measure_heatmap import measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult


@pytest.fixture(scope="module")
def resnet20_with_evidence(
    shared: Callable[[str], Path], exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]
) -> ExportResult:
    """The trained CIFAR-10 ResNet-20 for photos of any shape."""

    def make(folder: Path) -> ExportResult:
        config = ExportConfig(
            architecture="resnet20",
            output=folder / "bundle",
            weights=shared("weights/resnet20-12fca82f.th"),
            resize="exact",
            golden=shared("data/cifar10/test"),
            quantize=(),
            evidence=True,
            features=True,
        )
        return export(config)

    return exported_once("resnet20-evidence", make)


@pytest.fixture(scope="module")
def vit_with_evidence(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    """The ViT for digits that EdgePort ships, with int8."""

    def make(folder: Path) -> ExportResult:
        config = ExportConfig(
            architecture="vit_digits", output=folder / "bundle", weights="digits", evidence=True, features=True
        )
        return export(config)

    return exported_once("vit-evidence", make)


@pytest.fixture(scope="module")
def binary(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    """One probability, a fixed batch, and no linear layer behind the pooling."""

    def make(folder: Path) -> ExportResult:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        config = ExportConfig(
            output=folder / "bundle",
            image_size=16,
            channels=1,
            task="binary",
            activation="in-graph",
            batch=2,
            quantize=(),
            evidence=True,
        )
        return export(module.eval(), config)

    return exported_once("binary-evidence", make)


def golden(result: ExportResult) -> list[Path]:
    return [result.path / image.file for image in result.manifest.golden.images]


def inputs(result: ExportResult, images: list[Path]) -> torch.Tensor:
    return torch.from_numpy(np.stack([preprocess(image, result.manifest.contract.preprocess) for image in images]))


def test_the_map_of_resnet20_is_the_class_activation_map(
    resnet20_with_evidence: ExportResult, shared: Callable[[str], Path]
) -> None:
    result = resnet20_with_evidence
    photos = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[:3]
    module = ARCHITECTURES["resnet20"].build().eval()
    module.load_state_dict(load_checkpoint(shared("weights/resnet20-12fca82f.th")))
    kept: list[torch.Tensor] = []
    module.get_submodule("layer3").register_forward_hook(lambda _, __, a: kept.append(a))
    with torch.no_grad():
        logits_BK = module(inputs(result, photos))
        weight = module.get_submodule("linear").weight
        maps = torch.einsum("kc,bchw->bkhw", weight, kept[0])
    with Classifier.load(result.path) as classifier:
        for photo, outputs_K, expected in zip(photos, logits_BK, maps.numpy(), strict=True):
            found = classifier.heatmap(photo)
            assert (found.method, found.reason, found.prediction.index) == ("cam", None, int(outputs_K.argmax()))
            # Measured: 4.6e-5, of values up to 118.
            np.testing.assert_allclose(found.values, expected[found.prediction.index], atol=1e-4)
            np.testing.assert_allclose(classifier.heatmap(photo, 7).values, expected[7], atol=1e-4)


def by_rollout(module: nn.Module, x_BCHW: torch.Tensor) -> NDArray[np.float32]:
    """Rollout (B, N, N) by PyTorch's own attention, from the inputs of each layer."""
    layers = [one for name, one in module.named_modules() if name.endswith("self_attention")]
    found: list[torch.Tensor] = []

    def keep(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        theirs = nn.MultiheadAttention(given[0].shape[-1], layer.num_heads, batch_first=True)
        theirs.load_state_dict(layer.state_dict())
        found.append(theirs(given[0], given[0], given[0])[1])  # the mean over the heads

    for layer in layers:
        layer.register_forward_pre_hook(keep)
    with torch.no_grad():
        module(x_BCHW)
        flow = torch.eye(found[0].shape[-1]).repeat(len(x_BCHW), 1, 1)
        for weights in found:
            mixed = weights + torch.eye(weights.shape[-1])
            flow = mixed / mixed.sum(-1, keepdim=True) @ flow
    return flow.numpy()


def test_the_map_of_a_vit_is_attention_rollout(vit_with_evidence: ExportResult) -> None:
    result = vit_with_evidence
    images = golden(result)[:3]
    module = ARCHITECTURES["vit_digits"].build().eval()
    module.load_state_dict(load_checkpoint(find_weights("digits", architecture="vit_digits").file))
    flow_BNN = by_rollout(module, inputs(result, images))
    expected = flow_BNN[:, 0, 1:].reshape(-1, 4, 4)  # from the class token to the patches
    # Measured: of float32 5e-8, of int8 4.8e-4, of values up to 0.11.
    for variant, tolerance in (("fp32", 1e-6), ("int8", 2e-3)):
        with Classifier.load_exactly(result.path, variant=variant, device="cpu") as classifier:
            for image, map_hw in zip(images, expected, strict=True):
                found = classifier.heatmap(image, 3)
                assert (found.method, found.prediction.index) == ("attention-rollout", 3)
                np.testing.assert_allclose(found.values, map_hw, atol=tolerance)


def test_features_are_those_of_pytorch(
    vit_with_evidence: ExportResult, resnet20_with_evidence: ExportResult, shared: Callable[[str], Path]
) -> None:
    photos = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[:10]
    module = ARCHITECTURES["resnet20"].build().eval()
    module.load_state_dict(load_checkpoint(shared("weights/resnet20-12fca82f.th")))
    kept: list[torch.Tensor] = []
    module.get_submodule("linear").register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        module(inputs(resnet20_with_evidence, photos))
    with Classifier.load(resnet20_with_evidence.path) as classifier:
        features_ND = classifier.features(iter(photos))
        assert features_ND.dtype == np.float32
        np.testing.assert_allclose(features_ND, kept[0].numpy(), atol=1e-4)  # measured: 1.4e-6, of values up to 3.6
        assert classifier.features([]).shape == (0, 64)
    told = {variant.name: variant.features for variant in vit_with_evidence.manifest.variants}
    assert all(features is not None and features.num_features == 48 for features in told.values())
    assert told["fp32"].relative_l2 < 1e-5 < told["int8"].relative_l2


def test_dynamic_int8_gives_an_image_the_same_features_alone(vit_with_evidence: ExportResult) -> None:
    images = golden(vit_with_evidence)
    with Classifier.load_exactly(vit_with_evidence.path, variant="int8", device="cpu") as classifier:
        together = classifier.features(images)
        np.testing.assert_array_equal(together[:1], classifier.features(images[:1]))


def test_the_manifest_tells_the_method_and_every_file(vit_with_evidence: ExportResult) -> None:
    result = vit_with_evidence
    assert load_manifest(result.path) == result.manifest
    stages = [stage["stage"] for stage in result.manifest.parity]
    for variant in result.manifest.variants:
        assert variant.evidence is not None
        assert variant.evidence.method == "attention-rollout"
        assert f"evidence {variant.name}" in stages
        assert f"{variant.name}: heat maps of 4x4 are made by attention-rollout" in result.notes


def test_the_plain_file_is_the_same_without(lenet5: ExportResult, tmp_path: Path) -> None:
    config = ExportConfig(
        architecture="lenet5", output=tmp_path / "more", quantize=(), evidence=True, features=True, opset=20
    )
    result = export(config)
    assert (result.path / "model.fp32.onnx").read_bytes() == (lenet5.path / "model.fp32.onnx").read_bytes()
    assert result.manifest.variants[0].evidence is not None
    assert result.manifest.variants[0].evidence.method == "grad-cam"
    assert {"evidence", "features"}.isdisjoint(lenet5.manifest.to_dict()["variants"][0])


def test_without_evidence_occlusion_says_why(lenet5: ExportResult) -> None:
    counted: list[tuple[int, int]] = []
    with Classifier.load(lenet5.path) as classifier:
        image = golden(lenet5)[0]
        found = classifier.heatmap(image, on_progress=lambda done, total: counted.append((done, total)))
        assert (found.method, found.reason) == ("occlusion", "the model was exported without --evidence")
        assert counted[-1] == (196, 196)
        with pytest.raises(InputError, match="export it again with --features"):
            classifier.features([image])
    with (
        Classifier.load(lenet5.path / "model.fp32.onnx") as lone,
        pytest.raises(InputError, match="features need the bundle's folder"),
    ):
        lone.features([golden(lenet5)[0]])


@pytest.mark.parametrize("kind", ["evidence", "features"])
def test_an_altered_file_is_refused(kind: str, vit_with_evidence: ExportResult, tmp_path: Path) -> None:
    bundle = shutil.copytree(vit_with_evidence.path, tmp_path / "bundle")
    file = bundle / f"model.fp32.{kind}.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    image = golden(vit_with_evidence)[0]
    with Classifier.load(bundle, variant="fp32") as classifier:
        ask = {"evidence": classifier.heatmap, "features": lambda image: classifier.features([image])}[kind]
        with pytest.raises(ManifestError, match="SHA-256 differs"):
            ask(image)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "magic", "evidence.method: is 'magic'"),
        ("file", "../x.onnx", "evidence.file"),
        ("sha256", "0", "evidence.sha256"),
    ],
)
def test_a_wrong_entry_is_named(
    field: str, value: str, message: str, vit_with_evidence: ExportResult, tmp_path: Path
) -> None:
    document = json.loads((vit_with_evidence.path / "manifest.json").read_text())
    document["variants"][0]["evidence"][field] = value
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ManifestError, match=message.replace(".", r"\.")):
        load_manifest(tmp_path)


class TwoHeads(nn.Module):
    """Whose outputs are the sum of two layers, so that no one of them reads the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.body(x)
        return self.one(p) + self.other(p.tanh())


def test_what_the_graph_does_not_show_is_occluded_or_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {"image_size": 16, "channels": 1, "quantize": (), "evidence": True}
    result = export(TwoHeads().eval(), ExportConfig(output=tmp_path / "a", **values))
    told = result.manifest.variants[0].evidence
    assert told is not None
    assert (told.method, told.graph) == ("occlusion", None)
    with Classifier.load(result.path) as classifier:
        found = classifier.heatmap(golden(result)[0])
        assert (found.method, found.reason) == ("occlusion", told.reason)
    with pytest.raises(ExportError, match=r"--features: the graph does not show them: .* joins 2 values"):
        export(TwoHeads().eval(), ExportConfig(output=tmp_path / "b", features=True, **values))
    assert not (tmp_path / "b").exists()


def test_the_maps_of_a_binary_model_speak_for_either_class(binary: ExportResult) -> None:
    with Classifier.load(binary.path) as classifier:
        first, second = (classifier.heatmap(golden(binary)[0], index) for index in (0, 1))
        assert first.method == "cam"
        assert first.prediction.score == pytest.approx(1 - second.prediction.score)
        np.testing.assert_allclose(first.values, -second.values)
        logit = np.log(second.prediction.score / first.prediction.score)
        assert second.values.mean() == pytest.approx(logit, abs=1e-4)  # there is no bias
        hidden = classifier.heatmap(golden(binary)[0], 1, method="occlusion")
        assert (hidden.method, hidden.reason, hidden.values.shape) == ("occlusion", None, (14, 14))
        assert np.abs(hidden.values).max() > 1e-3


def test_the_hottest_fifth_counts_more_than_another(
    resnet20_with_evidence: ExportResult, shared: Callable[[str], Path]
) -> None:
    photos = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))
    found = measure(resnet20_with_evidence.path, photos[:: len(photos) // 20][:20])
    assert (found["method"], found["num_images"]) == ("cam", 20)
    # Of all 100 photos: 0.725 and 0.282, and more on 87 (docs/run.md).
    assert found["hottest"] > 1.5 * found["random"] > 0
    assert found["num_more"] >= 14
