"""Pages as text: what is not to be trusted in them, their size, and what they say where something is missing."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime.accuracy.dataset import read_images
from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.commands.cli import main
from edgeport_runtime.report.document import Findings, report_document
from edgeport_runtime.report.outcomes import Seen
from edgeport_runtime.report.page import bundle_page
from edgeport_runtime.report.record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

EVIL = "<script>alert(1)</script>\"'&\u202e"
LABELS = (EVIL, "](javascript:x)", *(f"label {i}" for i in range(8)))


class _Tags(HTMLParser):
    """The tags of a page, and the values of attributes that could lead somewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: set[str] = set()
        self.handlers: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.targets |= {value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")}
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}


@pytest.fixture(scope="module")
def evil(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    """LeNet-5 in two variants whose labels are markup."""

    def make(folder: Path) -> ExportResult:
        labels = folder / "labels.json"
        labels.write_text(json.dumps({label: i for i, label in enumerate(LABELS)}))
        return export(ExportConfig(architecture="lenet5", output=folder / "evil", labels=labels))

    return exported_once("evil-labels", make)


@pytest.fixture
def document(evil: ExportResult, shared: Callable[[str], Path]) -> Callable[..., dict[str, Any]]:
    """The report of that bundle on photos, decided by two variants at random."""

    def make(**options: Any) -> dict[str, Any]:
        images = read_images(shared("data/cats-dogs/test"), evil.manifest.contract, match="auto").paths[:40]
        generator = np.random.default_rng(0)
        outputs = {name: generator.standard_normal((40, 10), np.float32) for name in ("fp32", "int8")}
        latency = {"p50_ms": 1.0, "p90_ms": 2.0, "batch": 1, "runs": 5}
        findings = Findings(
            is_build_machine=True,
            device="cpu",
            machine={"cpu": EVIL, "num_cpus": 2, "system": "Linux"},
            versions={"edgeport": "0"},
            chosen="int8",
            reason="for a test",
            executed={"fp32": "float32", "int8": "int8"},
            latency={"fp32": latency, "int8": latency},
            seen=Seen("data", images, outputs),
        )
        record = read_record(evil.path)
        return report_document(evil.path, load_manifest(evil.path), record, findings, name=EVIL, **options)

    return make


def test_nothing_that_is_said_becomes_markup(document: Callable[..., dict[str, Any]]) -> None:
    page = bundle_page(document())
    seen = _Tags(page)
    assert "script" not in seen.tags
    assert seen.handlers == set()
    assert all(target.startswith(("#", "data:")) for target in seen.targets)
    assert html.escape("<script>alert(1)</script>") in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page


def test_no_more_than_2_mb_for_24_photos(document: Callable[..., dict[str, Any]]) -> None:
    told = document()
    assert sum(flip["picture"] is not None for flip in told["flips"]) == 24
    page = bundle_page(told)
    assert page.count("<img src=") == 24 + len(told["input"]["steps"])
    assert len(page.encode()) < 2e6
    assert f"{told['num_flips'] - 24} more are in report.json" in page


def test_no_thumbnails(document: Callable[..., dict[str, Any]]) -> None:
    told = document(has_thumbnails=False)
    assert {flip["picture"] for flip in told["flips"]} == {None}
    page = bundle_page(told)
    assert "Pictures were left out on request" in page
    assert page.count("<img src=") == len(told["input"]["steps"])  # of a synthetic image, which is nobody's


def test_the_names_of_plots_do_not_meet(document: Callable[..., dict[str, Any]]) -> None:
    page = bundle_page(document())
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_without_altair_a_line_says_what_to_install(
    evil: ExportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    for argv in (
        ["report", str(evil.path), "-o", str(tmp_path / "x.html")],
        ["compare", str(evil.path), str(evil.path), "-o", str(tmp_path / "x.html")],
        ["bench", str(evil.path), "--plot", str(tmp_path / "x.svg")],
    ):
        assert main(argv) == 1
        out, err = capsys.readouterr()
        assert (out, err) == (
            "",
            "error: vl_convert is not installed, which draws plots; pip install altair jinja2 vl-convert-python\n",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_named(
    evil: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["report", str(evil.path)], ["compare", str(evil.path), str(evil.path)]):
        assert main([*command, "-o", str(tmp_path / "missing" / "x.html")]) == 1
        assert "error: --output: the folder of" in capsys.readouterr().err


def test_a_device_makes_its_own_report(evil: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert main(["report", str(evil.path), "--device", "cpu", "-o", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["where"]["is_build_machine"] is False
    assert told["export"] == json.loads((evil.path / "report.json").read_text())["export"]
    assert [row["golden"]["passed"] for row in told["variants"]] == [True, True]
    assert all(row["latency"]["p50_ms"] > 0 for row in told["variants"])
    layers = {row["name"]: row["times_ms"] for row in told["layers"]["rows"]}
    assert len(layers) == 5
    assert all(times["fp32"] > 0 for times in layers.values())
    assert "The weights are random" in " ".join(told["not_tested"])
    assert "The golden images on this device" in file.read_text(encoding="utf-8")


def test_a_bundle_without_a_report_has_one_all_the_same(
    resnet20: ExportResult, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    bundle = shutil.copytree(resnet20.path, tmp_path / "old")
    for name in ("report.json", "report.html", "measurements.json"):
        (bundle / name).unlink()
    data, file = tmp_path / "data", tmp_path / "r.html"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for image in sorted(shared(f"data/cifar10/test/{name}").iterdir())[:5]:
            shutil.copy(image, data / name)
    assert main(["report", str(bundle), "--device", "cpu", "--data", str(data), "-o", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["export"] is None
    assert told["images"] == {"source": "data", "num_images": 10, "is_labelled": True, "note": None}
    assert told["accuracy"]["fp32"]["num_images"] == 10
    text = file.read_text(encoding="utf-8")
    assert "has no record of its layers" in text
    assert 'id="accuracy"' in text


def test_a_damaged_report_is_one_line(evil: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    bundle = shutil.copytree(evil.path, tmp_path / "b")
    (bundle / "report.json").write_text("{}")
    assert main(["verify", str(bundle)]) == 0  # which has nothing to do with it
    capsys.readouterr()
    assert main(["report", str(bundle), "-o", str(tmp_path / "r.html")]) == 1
    assert capsys.readouterr().err == "error: report.json: lacks the field 'export'\n"
