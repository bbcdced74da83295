"""Fixtures that several test folders share: real data, peers, and bundles that are dear to make."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from cifar10 import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_export import ExportResult

ROOT = Path(__file__).resolve().parent.parent


# Beside other workers, threads of PyTorch would only wait for each other; processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that puts a command into the background has it ignore Ctrl-C, and the processes that tests start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Many tests import onnxruntime before EdgePort could turn its telemetry off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What each export of a process does anew for nothing here is done once, or not at all.

    PyTorch makes its table of operators, always the same, which is a third of the export of a small network; and what
    is timed rests before each turn, for figures that no test looks at. Exports that tests start as commands do all.
    """
    registration = sys.modules.get("torch.onnx._internal.exporter._registration")
    if registration is not None and not hasattr(registration.ONNXRegistry.from_torchlib, "cache_info"):
        make = functools.cache(registration.ONNXRegistry.from_torchlib)
        registration.ONNXRegistry.from_torchlib = staticmethod(make)
    report = sys.modules.get("edgeport_export.bundle.report")
    if report is not None:  # to draw a page takes as long as the rest of a small export; tests of pages ask for it
        has_pages = item.get_closest_marker("pages") is not None
        report.bundle_page = sys.modules["edgeport_runtime.report.page"].bundle_page if has_pages else _no_page
    if "edgeport_runtime.tuning.timing" in sys.modules:
        sys.modules["edgeport_runtime.tuning.timing"]._REST_S = 0.0


def _no_page(_document: object) -> str:
    return "<!doctype html>"


def _require(path: Path, remedy: str) -> Path:
    """The path; where it is absent, skip with a reason, or fail where everything is required."""
    if not path.exists():
        reason = f"{path} is absent: {remedy}"
        if os.environ.get("EDGEPORT_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file or folder of the test data, by its name below EDGEPORT_TEST_DATA (default ../shared)."""
    root = Path(os.environ.get("EDGEPORT_TEST_DATA", ROOT.parent / "shared"))
    return lambda name: _require(root / name, "set EDGEPORT_TEST_DATA")


@pytest.fixture(scope="session")
def require() -> Callable[[str, str], Path]:
    """A path of the machine, and what brings it where it is absent."""
    return lambda path, remedy: _require(Path(path), remedy)


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Path]:
    """Path of a peer, such as torchvision, pillow12, cpu or arm64."""
    return lambda name: _require(ROOT / ".peers" / name, "run: make .peers/.installed .peers/edge/.installed")


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend to run on another processor: its instructions (None: the system does not tell), architecture, and sums.

    ``is_exact`` is what a product of 8-bit values would show: False where pairs of products saturate.
    """
    from edgeport_runtime.engine import machine, saturation

    def pretend(instructions: str | None, *, architecture: str = "x86_64", is_exact: bool = True) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("" if instructions is None else f"model name : pretended\nflags : {instructions}\n")
        monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
        monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
        monkeypatch.setattr(saturation, "_probe_saturates", lambda: not is_exact)

    return pretend


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Folder by its name, filled by the first worker that asks for it: tests only read it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / f"once-{name}", base / f"once-{name}.done"
        with FileLock(base / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return fill


@pytest.fixture(scope="session")
def exported_once(
    once: Callable[[str, Callable[[Path], object]], Path],
) -> Callable[[str, Callable[[Path], ExportResult]], ExportResult]:
    """An export by its name, made into a folder by the first worker that asks for it: tests only read it."""

    def export_(name: str, make: Callable[[Path], ExportResult]) -> ExportResult:
        folder = once(name, lambda folder: (folder / "result.pickle").write_bytes(pickle.dumps(make(folder))))
        result: ExportResult = pickle.loads((folder / "result.pickle").read_bytes())
        return result

    return export_


@pytest.fixture(scope="session")
def resnet20(
    shared: Callable[[str], Path], exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]
) -> ExportResult:
    """A bundle of the trained CIFAR-10 ResNet-20, with labels."""
    from edgeport_export import ExportConfig, export

    def make(folder: Path) -> ExportResult:
        labels = folder / "cifar10.txt"
        labels.write_text("\n".join(CLASSES) + "\n")
        config = ExportConfig(
            architecture="resnet20",
            output=folder / "resnet20",
            weights=shared("weights/resnet20-12fca82f.th"),
            labels=labels,
            golden=shared("data/cifar10/test"),
        )
        return export(config)

    return exported_once("resnet20", make)


@pytest.fixture(scope="session")
def lenet5(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> ExportResult:
    """A bundle of LeNet-5 with random weights, float32 alone; needs no data."""
    from edgeport_export import ExportConfig, export

    def make(folder: Path) -> ExportResult:
        return export(ExportConfig(architecture="lenet5", output=folder / "lenet5", quantize=()))

    return exported_once("lenet5", make)
