"""The parts of a report: curves, layers, what is kept of the export, and text that nobody can trust."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn import metrics

from edgeport_runtime.engine.session import NodeTime
from edgeport_runtime.errors import ManifestError
from edgeport_runtime.report.curves import precision_recall, reliability
from edgeport_runtime.report.figures import short_names, unlike_names
from edgeport_runtime.report.layers import Layer, LayerInVariant, layer_times
from edgeport_runtime.report.outcomes import Seen, agreements, flips, names_of
from edgeport_runtime.report.record import ExportRecord, read_record
from edgeport_runtime.report.words import cleaned, shell_lines

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult
    from edgeport_runtime.bundle.contract import Contract

RECORD: dict[str, Any] = {"golden": "images", "layers": [], "notes": [], "command": "export-model x", "seconds": 1}


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    targets_B = generator.integers(0, 2, 40)
    p_B = np.round(np.clip(0.3 * targets_B + generator.random(40), 0, 1), 1)  # with equal ones among them
    found = precision_recall(p_B, targets_B, 0.5)
    precision, recall, _ = metrics.precision_recall_curve(targets_B, p_B)
    expected = {(round(float(r), 6), round(float(p), 6)) for r, p in zip(recall[:-1], precision[:-1], strict=True)}
    assert {tuple(point) for point in found["points"]} == expected
    decided = p_B >= 0.5
    assert found["at"] == [
        pytest.approx(metrics.recall_score(targets_B, decided), abs=1e-6),
        pytest.approx(metrics.precision_score(targets_B, decided), abs=1e-6),
    ]
    assert precision_recall(p_B, targets_B, 1.5)["at"] is None


def test_a_long_curve_keeps_its_ends() -> None:
    p_B = np.linspace(0, 1, 1000)
    points = precision_recall(p_B, (p_B > 0.7).astype(np.int64), 0.5)["points"]
    assert len(points) <= 60
    assert points[-1] == [1.0, 0.3]


def test_reliability_by_tenths() -> None:
    bins = reliability(np.array([0.91, 0.99, 0.55, 1.0]), np.array([True, False, True, True]))
    assert bins == [
        {"confidence": 0.55, "accuracy": 1.0, "num_images": 1},
        {"confidence": pytest.approx(0.966667), "accuracy": pytest.approx(0.666667), "num_images": 3},
    ]


def test_flips_and_agreement(resnet20: ExportResult, tmp_path: Path) -> None:
    contract: Contract = resnet20.manifest.contract
    first = np.eye(10, dtype=np.float32)[[0, 1, 2, 3]] * 4
    other = first.copy()
    other[1, 5], other[3, 7] = 5.0, 9.0
    images = [tmp_path / "a" / f"{i}.png" for i in range(4)]
    seen = Seen("data", images, {"fp32": first, "int8": other})
    told = agreements(seen, contract)
    assert list(told) == ["int8"]
    assert (told["int8"]["num_images"], told["int8"]["num_equal"]) == (4, 2)
    rows = flips(seen, contract)
    assert [row["image"] for row in rows] == ["3.png", "1.png"]  # the larger difference first
    assert [d["label"] for side in rows[0]["decisions"].values() for d in side] == ["cat", "horse"]
    assert rows[0]["true"] is None
    assert flips(seen._replace(outputs={"fp32": first}), contract) == []


def test_names_are_below_the_common_folder(tmp_path: Path) -> None:
    assert names_of([tmp_path / "a" / "x.png", tmp_path / "b" / ".." / "b" / "y.png"]) == ["a/x.png", "b/y.png"]
    assert names_of([]) == []


def _layer(name: str, *also: str, variants: tuple[str, ...] = ()) -> Layer:
    states = {variant: LayerInVariant(is_float=False) for variant in variants}
    return Layer(name=name, op_type="Conv", multiply_adds=1, num_params=1, also=also, variants=states)


def test_times_go_to_layers_by_name_and_the_rest_by_operator() -> None:
    layers = [_layer("conv", "conv_out", "relu", "relu_out"), _layer("linear"), _layer("linear_1")]
    nodes = [
        NodeTime("relu_out_nchwc", "Conv", 1.0),
        NodeTime("relu", "Relu", 2.0),  # by itself it is no layer, whatever its name
        NodeTime("fused linear", "FusedGemm", 4.0),
        NodeTime("linear_1_token_5", "Gemm", 8.0),
        NodeTime("somewhere", "MatMul", 16.0),
    ]
    assert layer_times(layers, nodes, "fp32") == (
        {"conv": 1.0, "linear": 4.0, "linear_1": 8.0},
        {"Relu": 2.0, "MatMul": 16.0},
    )


def test_layers_whose_names_are_lost_are_told_by_their_order() -> None:
    layers = [_layer("conv"), _layer("one", variants=("int8",)), _layer("two", variants=("int8",))]
    nodes = [NodeTime("conv", "Conv", 1.0), NodeTime("q1", "DynamicQuantizeMatMul", 2.0), NodeTime("q2", "MatMul", 4.0)]
    assert layer_times(layers, nodes, "int8") == ({"conv": 1.0, "one": 2.0, "two": 4.0}, {})
    assert layer_times(layers, nodes[:2], "int8")[1] == {"DynamicQuantizeMatMul": 2.0}


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    told = {"int8": LayerInVariant(is_float=True, reason="why", error=0.1)}
    layer = Layer(name="a", op_type="Conv", multiply_adds=2, num_params=3, also=("b",), variants=told)
    record = ExportRecord(golden="synthetic", layers=(layer,), notes=("n",), command="c", seconds=2)
    (tmp_path / "report.json").write_text(json.dumps({"export": record.to_dict(), "other": 1}))
    assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"golden": "mine"}, "export.golden: 'mine'"),
        ({"seconds": -1}, "export.seconds: is -1"),
        ({"layers": [{"name": "a"}]}, "export.layers[0]: lacks the field 'op_type'"),
        ({"notes": [3]}, "export.notes[0]: is of type int"),
        ({"extra": 1}, "has the unknown field 'extra'"),
    ],
)
def test_a_damaged_record_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"export": RECORD | change}))
    with pytest.raises(ManifestError) as caught:
        read_record(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"export": 1}'])
def test_what_is_no_report_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ManifestError, match=r"report\.json"):
        read_record(tmp_path)


def test_hidden_characters_are_shown() -> None:
    text = "cat\x00\u202egod\n\u200d\ud800"
    assert cleaned({text: [text, 1, None]}) == {
        "cat\ufffd\ufffdgod\ufffd\u200d\ufffd": ["cat\ufffd\ufffdgod\ufffd\u200d\ufffd", 1, None]
    }


def test_a_command_has_a_line_for_each_option() -> None:
    command = "export-model lenet5 --weights 'my weights.pth' --mean 0.1 0.2 -o out"
    assert shell_lines(command) == (
        "export-model lenet5 \\\n  --weights 'my weights.pth' \\\n  --mean 0.1 0.2 \\\n  -o out"
    )
    assert shell_lines("export(module, ...)") == "export(module, ...)"


def test_names_that_would_be_one_bar_are_told_apart() -> None:
    assert unlike_names({134: "crane", 517: "crane", 1: "goldfish"}) == {
        134: "crane (134)",
        517: "crane (517)",
        1: "goldfish",
    }
    long = [f"layer_{middle}_of_the_network.conv" for middle in ("one", "two")]
    labels = short_names([*long, "short"])
    assert list(labels) == [*long, "short"]
    assert len(set(labels.values())) == 3
    assert labels["short"] == "short"
    assert max(map(len, labels.values())) < 24
