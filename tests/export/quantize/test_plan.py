"""Which nodes run in int8: where the work is, and where it pays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import nn

from bundle_facts import details_of, operators_of
from edgeport_export import ExportConfig, export
from edgeport_export.quantize.cut import Network
from edgeport_export.quantize.plan import Planner
from edgeport_export.quantize.recipes import family_of, find_recipe
from edgeport_export.quantize.work import multiply_adds
from edgeport_export.variants import LIMITS
from edgeport_runtime import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult


class _Norm(nn.Module):
    """A norm over the channels of each place, as ConvNeXt has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class _NextBlock(nn.Module):
    """Of a ConvNeXt whose layers are convolutions of 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mixed = nn.Sequential(
            _Norm(channels), nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.mixed(self.spatial(x_BCHW))  # type: ignore[no-any-return]


class _ExciteBlock(nn.Module):
    """An inverted residual of MobileNetV3, with hard swish and squeeze-and-excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.expand = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.Hardswish(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
            nn.Hardswish(),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, channels, 1), nn.ReLU(), nn.Conv2d(channels, inner, 1)
        )
        self.project = nn.Conv2d(inner, channels, 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = self.expand(x_BCHW)
        return x_BCHW + self.project(y_BCHW * nn.functional.hardsigmoid(self.gate(y_BCHW)))  # type: ignore[no-any-return]


def _network(channels: int, *blocks: nn.Module, stride: int = 2) -> nn.Module:
    stem = [nn.Conv2d(3, channels, stride, stride), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def _config(output: Path, **values: object) -> ExportConfig:
    return ExportConfig(output=output, image_size=32, calibration="builtin", **values)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def convnext(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    torch.manual_seed(0)
    module = _network(64, _NextBlock(64), _NextBlock(64))
    return exported_once("plan-convnext", lambda folder: export(module, _config(folder / "bundle")))


def _quantized(path: Path) -> set[str]:
    """Names of the convolutions whose weights are in int8."""
    graph = onnx.load(path).graph
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in restored}


def test_a_hybrid_with_norms_has_its_convolutions_in_int8(convnext: ExportResult) -> None:
    model = onnx.load(convnext.path / "model.fp32.onnx")
    counts = multiply_adds(model)
    # 64 channels at 16x16: two blocks of 7x7 depthwise and two layers of 64 by 256; the stem of 2x2; the head.
    expected = 2 * 256 * (49 * 64 + 2 * 64 * 256) + 256 * 64 * 12 + 64 * 5
    assert sum(counts.values()) == expected
    details = details_of(convnext, "int8")
    layers = _quantized(convnext.path / "model.int8.onnx")
    assert details["scheme"] == "static"
    assert details["share"] == pytest.approx(sum(counts[name] for name in layers) / expected, abs=1e-4)
    assert details["share"] > 0.8
    depthwise = [n.name for n in model.graph.node if n.op_type == "Conv" and [64] in [[a.i] for a in n.attribute]]
    assert len(depthwise) == 2
    assert set(depthwise) <= set(details["float_layers"])  # between a norm and a sum in float, they pay for nothing
    assert not layers & set(details["float_layers"])
    assert len(layers) + len(details["float_layers"]) == details["num_layers"] == len(counts)


def test_what_float_makes_for_float_is_not_rounded(convnext: ExportResult) -> None:
    graph = onnx.load(convnext.path / "model.int8.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in makers:
            continue
        source = makers.get(makers[node.input[0]].input[0])
        readers = {reader.op_type for reader in graph.node if node.output[0] in reader.input}
        if source is not None and source.op_type in ("Gelu", "LayerNormalization", "Add"):
            assert readers <= {"Conv", "Gemm"}


def test_gates_stay_in_a_byte_where_the_way_out_is_dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeport_export.quantize.costs._CHANGED", 10.0)
    module = _network(64, _ExciteBlock(64), _ExciteBlock(64))
    result = export(module, _config(tmp_path / "bundle", quantize=("int8",)))
    ops = operators_of(result.path / "model.int8.onnx")
    assert (ops["HardSwish"], ops["HardSigmoid"]) == (0, 0)  # additions that saturate, and products
    assert ops["GlobalAveragePool"] == 2
    assert details_of(result, "int8")["share"] == 1
    stages = {stage.stage: stage for stage in result.parity.stages}
    # Measured: 0.0038.
    assert stages["variant int8"].relative_l2 < 0.02
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(result.path / "model.int8.onnx"), options, providers=["CPUExecutionProvider"])
    fused = operators_of(tmp_path / "optimized.onnx")
    assert fused["QLinearMul"] == 6  # two hard swishes and a gate in each block
    assert fused["QLinearAdd"] == 6 + 2  # and as many additions, and the residuals
    assert fused["QLinearGlobalAveragePool"] == 2
    assert (fused["Mul"], fused["Add"]) == (0, 0)


def test_int8_that_would_not_be_faster_is_left_out_with_the_reason(tmp_path: Path) -> None:
    small = _network(8, _ExciteBlock(8), stride=4)
    left_out = export(small, _config(tmp_path / "left_out"))
    assert [variant.name for variant in left_out.manifest.variants] == ["fp32"]
    (note,) = [note for note in left_out.notes if note.startswith("no int8 variant")]
    assert "int8 would not be faster: at best" in note
    assert "(at least 50%, and 1.05 times)" in note
    assert not list(left_out.path.glob("*int8*"))


def test_less_than_half_of_the_work_is_not_called_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_is_free: None
) -> None:
    monkeypatch.setattr(Planner, "plan", lambda self, **_: self.choose(fixed=self.layers[-1:]))
    module = _network(16, nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    with pytest.raises(
        QuantizeError, match=r"variant int8: 0% of its multiply-adds would run in int8 \(at least 50%\)"
    ):
        export(module, _config(tmp_path / "asked", quantize=("int8",)))
    result = export(module, _config(tmp_path / "not_asked"))
    assert any("of its multiply-adds would run in int8" in note for note in result.notes)
    assert [variant.name for variant in result.manifest.variants] == ["fp32"]


def test_layers_go_back_to_float_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_is_free: None
) -> None:
    monkeypatch.setattr("edgeport_export.quantize.equalize._MAX_IMBALANCE", 1e9)
    monkeypatch.setitem(LIMITS, "int8", replace(LIMITS["int8"], relative_l2=0.01))  # with all layers in int8: 0.038
    module = _network(16, *(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(5)))
    with torch.no_grad():  # one channel a thousand times larger than the others, between two layers
        module[3][0].weight[2] *= 1000
        module[3][0].bias[2] = 1000
        module[4][0].weight[:, 2] /= 1000
    result = export(module, _config(tmp_path / "bundle", quantize=("int8",)))
    details = details_of(result, "int8")
    returned = details["float_layers"]
    assert 1 <= len(returned) <= 3
    assert "node_conv2d_3" in returned  # reads the value out of balance
    assert details["relative_l2"] <= 0.01
    assert 0.5 <= details["share"] < 1
    assert any(f"int8: {len(returned)} of 7 layers went back to float" in note for note in result.notes)


def test_an_int8_that_was_not_asked_for_never_stops_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_is_free: None
) -> None:
    module = _network(16, nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the quantizer does not know this graph")

    monkeypatch.setattr("edgeport_export.quantize.static.QDQQuantizer", fail)
    result = export(module, _config(tmp_path / "broken"))
    assert [variant.name for variant in result.manifest.variants] == ["fp32"]
    assert any("the quantizer does not know this graph" in note for note in result.notes)
    with pytest.raises(QuantizeError, match="quantizing raises RuntimeError: the quantizer does not know this graph"):
        export(module, _config(tmp_path / "asked", quantize=("int8",)))


@pytest.mark.parametrize("stage", ["variant int8", "runtime int8"])
def test_a_stage_that_departs_takes_an_int8_that_was_not_asked_for_with_it(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_is_free: None
) -> None:
    from edgeport_export.parity import chain as chains

    original = chains.compare

    def compare(name: str, *args: object, **options: object) -> object:
        report = original(name, *args, **options)  # type: ignore[arg-type]
        return chains.replace(report, relative_l2=9.0) if name == stage else report

    monkeypatch.setattr(chains, "compare", compare)
    module = _network(16, nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    result = export(module, _config(tmp_path / "bundle"))
    assert [variant.name for variant in result.manifest.variants] == ["fp32"]
    assert result.made == ()
    assert not list(result.path.glob("*int8*"))
    assert all("int8" not in found.stage for found in result.parity.stages)
    assert any(f"no int8 variant: stage {stage} departs from PyTorch" in note for note in result.notes)


class _Shuffled(nn.Module):
    """A unit of ShuffleNetV2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels // 2, channels // 2, 1), nn.ReLU())

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        left, right = x_BCHW.chunk(2, dim=1)
        return nn.functional.channel_shuffle(torch.cat([left, self.body(right)], dim=1), 2)


def test_what_is_only_moved_is_not_rounded_again(tmp_path: Path) -> None:
    module = _network(128, *(_Shuffled(128) for _ in range(3)))
    result = export(module, _config(tmp_path / "bundle", quantize=("int8",)))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(result.path / "model.int8.onnx"), options, providers=["CPUExecutionProvider"])
    fused = operators_of(tmp_path / "optimized.onnx")
    assert (fused["QLinearConcat"], fused["Split"]) == (3, 3)
    assert fused["QuantizeLinear"] <= 2  # the image, and what the head reads


def test_a_family_is_where_the_work_is() -> None:
    def model(channels: int, width: int) -> onnx.ModelProto:
        """A convolution of 3x3 over 8x8 places, and a linear layer over each, with a norm between them."""
        constants = {"w": (channels, channels, 3, 3), "m": (channels, width), "s": (channels,), "b": (channels,)}
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["a"], name="conv", pads=[1] * 4),
            helper.make_node("Transpose", ["a"], ["t"], name="turn", perm=[0, 2, 3, 1]),
            helper.make_node("LayerNormalization", ["t", "s", "b"], ["n"], name="norm"),
            helper.make_node("MatMul", ["n", "m"], ["y"], name="linear"),
        ]
        graph = helper.make_graph(
            nodes,
            "hybrid",
            [helper.make_tensor_value_info("image", 1, ["batch", channels, 8, 8])],
            [helper.make_tensor_value_info("y", 1, ["batch", 8, 8, width])],
            [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])

    assert multiply_adds(model(4, 8)) == {"conv": 64 * 4 * 4 * 9, "linear": 64 * 4 * 8}
    assert family_of(model(4, 8)) == "convolutional"
    assert family_of(model(4, 40)) == "transformer"
    assert find_recipe("convolutional", "cpu", None).is_planned


def test_a_cut_is_the_cheapest_of_all() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        alone, pairs = generator.integers(0, 9, (5, 2)), generator.integers(0, 6, (5, 5))
        network = Network()
        nodes = [network.add_node(source=float(source), sink=float(sink)) for source, sink in alone]
        for i in range(5):
            for j in range(5):
                if i != j:
                    network.add_edge(nodes[i], nodes[j], float(pairs[i, j]))

        def cost(chosen: set[int], alone: np.ndarray = alone, pairs: np.ndarray = pairs) -> int:
            total = sum(alone[i, 0] if i in chosen else alone[i, 1] for i in range(5))
            return int(total + sum(pairs[i, j] for i in range(5) for j in chosen if i != j and i not in chosen))

        found = {nodes.index(node) for node in network.sink_side() if node in nodes}
        every = ({i for i in range(5) if number >> i & 1} for number in range(32))
        assert cost(found) == min(map(cost, every))
