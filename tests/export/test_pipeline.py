"""Whole exports through the public interface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from contracts import make_contract
from edgeport_export import ExportConfig, ExportResult, export
from edgeport_export.parity.chain import Chain
from edgeport_export.parity.torch_original import TorchOriginal
from edgeport_export.progress import Progress
from edgeport_models import ARCHITECTURES
from edgeport_runtime import Classifier, InputError, ParityError, load_manifest
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# One of each shape of network; tools/export_all.py exports every one.
ARCHITECTURES_EXPORTED = [
    "lenet5",
    "lenet5_1998",
    "alexnet_2012",
    "googlenet",
    "googlenet_2014",
    "inception_naive",
    "inception_reduced",
    "resnet18",
    "resnet50",
    "resnet20",
    "resnet56",
    "plain56",
    "vit_ti_16",
]


@pytest.mark.parametrize(
    "architecture",
    slow_but(
        ("lenet5", "lenet5_1998", "inception_naive", "inception_reduced", "resnet20"),
        ARCHITECTURES_EXPORTED,
    ),
)
def test_random_weights_keep_parity(architecture: str, tmp_path: Path) -> None:
    stages: list[str] = []
    progress = Progress()
    progress.stage = stages.append  # type: ignore[method-assign]
    config = ExportConfig(architecture=architecture, output=tmp_path / "bundle", quantize=())
    result = export(config, progress=progress)
    expected = ["exported", "simplified", "variant fp32", "runtime fp32"]
    assert [stage.stage for stage in result.parity.stages] == expected
    assert [stage for stage in stages if stage in expected] == expected
    for stage in result.parity.stages:
        assert stage.relative_l2 <= 1e-5
        assert stage.agreement == 1
    assert [stage.num_samples for stage in result.parity.stages] == [6, 14, 14, 8]
    assert result.parity.stages[2].same_bytes_as == "simplified"
    logits = np.load(result.path / "golden" / "expected.npz")["logits"]
    # Of order 1, and not one answer for every image (measured: 0.7 to 5.8, and 0.3 to 5.0).
    # The distances of lenet5_1998 are larger: its head has no weights to scale.
    assert 0.2 < logits.std() < (30 if architecture == "lenet5_1998" else 10)
    assert logits.std(axis=0).mean() > 0.1
    manifest = load_manifest(result.path)
    assert manifest == result.manifest
    assert manifest.architecture["num_params"] == ARCHITECTURES[architecture].num_params
    assert manifest.weights["note"] == "random weights: parity is proven, predictions mean nothing"


def test_trained_resnet20_uses_64_images_and_keeps_8(resnet20: ExportResult) -> None:
    exported, simplified = resnet20.parity.stages[:2]
    assert (exported.num_samples, simplified.num_samples) == (3 + 2 + 1, 64 + 3 + 2 + 1)
    assert simplified.agreement_interval[0] > 0.9
    assert len(resnet20.manifest.golden.images) == 8
    assert len(list((resnet20.path / "golden").iterdir())) == 9
    assert resnet20.manifest.weights == {
        "source": "file",
        "file": "resnet20-12fca82f.th",
        "sha256": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        "layout": "torchvision or timm ResNet",
    }


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        export(ExportConfig(architecture="lenet5", output=folder))
    contents = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    for content in contents:
        assert set(json.loads(content.pop("measurements.json"))) == {"machine", "variants", "export"}
        assert json.loads(content.pop("report.json"))["schema_version"] == 1
        assert content.pop("report.html")
        assert content.pop("README.md").startswith(b"---\n")
    assert contents[0] == contents[1]
    assert len(contents[0]) == 1 + 1 + 2 + 8 + 1


@pytest.mark.parametrize(
    ("architecture", "opset"),
    [("lenet5", 18), *(pytest.param("vit_ti_16", opset, marks=pytest.mark.slow) for opset in (18, 23))],
)
def test_opset_is_honoured(architecture: str, opset: int, tmp_path: Path) -> None:
    result = export(ExportConfig(architecture=architecture, output=tmp_path / "bundle", opset=opset))
    model = onnx.load(result.path / "model.fp32.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert result.manifest.variants[0].opset == opset


def test_input_options_reach_the_runtime(tmp_path: Path) -> None:
    config = ExportConfig(
        architecture="resnet18",
        output=tmp_path / "bundle",
        quantize=(),
        num_classes=3,
        image_size=64,
        color="bgr",
        scale="byte",
        mean=(104.0, 117.0, 123.0),
        std=(1.0, 1.0, 1.0),
        resize="exact",
        interpolation="bicubic",
    )
    result = export(config)
    with Classifier.load(result.path) as classifier:
        spec = classifier.contract.preprocess
        assert (spec.color, spec.scale, spec.resize, spec.interpolation) == ("bgr", "byte", "exact", "bicubic")
        assert classifier.logits(np.zeros((2, 3, 64, 64), np.float32)).shape == (2, 3)


def test_a_golden_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "broken.png").write_text("not a picture")
    config = ExportConfig(architecture="lenet5", output=tmp_path / "bundle", golden=tmp_path / "golden")
    with pytest.raises(InputError, match=r"golden image .*broken\.png: "):
        export(config)
    assert not config.output.exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.zeros(len(x), 3), "all equal"),
        (lambda x: torch.full((len(x), 3), torch.nan), "NaN or infinite"),
    ],
)
def test_logits_that_prove_nothing_are_refused(answer: Callable[[torch.Tensor], Any], message: str) -> None:
    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return answer(x)

    with pytest.raises(ParityError, match=f"stage torch: .*{message}"):
        Chain(TorchOriginal(Module()), [np.ones((2, 1, 4, 4), np.float32)], contract=make_contract(num_classes=3))


def test_a_named_network_with_one_output_names_the_binary_task(tmp_path: Path) -> None:
    torch.save(ARCHITECTURES["lenet5"].build(num_classes=1).state_dict(), tmp_path / "net.pth")
    config = ExportConfig(architecture="lenet5", output=tmp_path / "bundle", weights=tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"lenet5 gives one output per image, .*; add --task binary"):
        export(config)
    assert not config.output.exists()


class _WithDropoutAndAuxiliary(nn.Module):
    """In evaluation mode, neither the dropout nor the second head may reach the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.auxiliary = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.dropout(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        unused = self.auxiliary(x)
        return (self.head(x), unused) if self.training else self.head(x)


def test_norms_dropout_and_dead_outputs_are_gone(tmp_path: Path) -> None:
    from edgeport_export.graph.simplify import simplify
    from edgeport_export.graph.trace import trace
    from edgeport_export.source.subject import find_subject as resolve

    contract = resolve(ExportConfig(architecture="lenet5", output=tmp_path, num_classes=3)).contract
    module = _WithDropoutAndAuxiliary().train()
    for _ in range(3):  # statistics of its own, so that dropping the norm would show
        module(torch.rand(8, 1, 32, 32) * 3 + 1)
    module.eval()
    traced = trace(module, contract, opset=20, path=tmp_path / "traced.onnx")
    simplify(traced, contract, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "ReduceMean", "Gemm"]
    assert len(model.graph.output) == 1
    weights = {tuple(tensor.dims) for tensor in model.graph.initializer}
    assert weights == {(4, 1, 3, 3), (4,), (2,), (3, 4), (3,)}
    chain = Chain(
        TorchOriginal(module),
        [np.random.default_rng(0).random((n, 1, 32, 32), np.float32) for n in (1, 2, 3, 8)],
        contract=contract,
    )
    chain.check_graph("simplified", tmp_path / "model.onnx")
    assert chain.report.passed
