"""`run-model bench`: what it reports, not how fast anything is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime.commands.cli import main
from edgeport_runtime.engine.machine import describe_machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bench") / "bundle"
    return export(ExportConfig(architecture="lenet5", output=output, target=("cpu-avx2",))).path


def test_every_variant_and_batch_is_timed_with_its_memory(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "chart.svg"
    argv = ["bench", str(bundle), "--batch", "1", "3", "--rounds", "2", "--device", "cpu", "cuda", "--plot", str(chart)]
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["machine"] == describe_machine()
    assert [(row["variant"], row["batch"]) for row in told["rows"]] == [
        ("fp32", 1),
        ("int8-avx2", 1),
        ("fp32", 3),
        ("int8-avx2", 3),
    ]
    for row in told["rows"]:
        assert row["runs"] == 6
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"], rel=0.01)
        assert row["start_ms"] > row["p50_ms"]
        assert 20e6 < row["peak_bytes"] < 2e9
    assert [row["times_first"] for row in told["rows"] if row["variant"] == "fp32"] == [1, 1]
    assert "'cuda' cannot be used here" in told["excluded"]["fp32 on cuda"]
    drawn = list(ElementTree.parse(chart).iter())
    texts = [element.text for element in drawn if element.tag.endswith("text")]
    assert "int8-avx2 on cpu, batch 3" in texts
    assert all(len(row["times_ms"]) == 6 for row in told["rows"])
    marks = [len(element) for element in drawn if "role-mark layer_0_marks" in element.get("class", "")]
    assert marks == [4 * 6]  # every call by itself
    assert "var(" not in chart.read_text()  # which a file of its own has no values for


def test_as_a_table_and_with_wrong_arguments(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--variant", "fp32", "--batch", "1", "--rounds", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[1:]] == ["variant", "fp32"]
    assert main(["bench", str(bundle), "--variant", "int4"]) == 1
    assert "unknown variant 'int4'; this bundle has fp32, int8-avx2" in capsys.readouterr().err
    assert main(["bench", str(bundle), "--device", "cuda"]) == 1
    assert "no variant can be timed: device 'cuda' cannot be used here" in capsys.readouterr().err
    assert main(["bench", str(bundle), "--plot", str(tmp_path / "missing" / "chart.svg")]) == 1
    assert "--plot: the folder of" in capsys.readouterr().err
