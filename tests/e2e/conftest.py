"""Checkpoints and logits of other libraries, and bundles that run everywhere, each made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from edgeport_export import ExportConfig, export
from training.data import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

    from edgeport_export import ExportResult

_NUM_GOLDEN = 4
# Inputs that are not square; lanczos gives the same pixels in the graph, so that no answer hangs on a resize.
_NOT_SQUARE: dict[str, dict[str, Any]] = {
    "resnet18_96x160": {
        "architecture": "resnet18",
        "image_size": (96, 160),
        "num_classes": 5,
        "interpolation": "lanczos",
    },
    "vit_32x64": {
        "architecture": "vit_digits",
        "weights": "digits",
        "image_size": (32, 64),
        "resize": "pad",
        "pad_color": (0,),
        "interpolation": "lanczos",
    },
}
_ANSWERS: dict[str, dict[str, list[int]]] = {}


@pytest.fixture
def photo_folder(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """One photo alone: golden images of large networks, each of which is run through the whole chain."""
    folder = tmp_path / "photo"
    folder.mkdir()
    shutil.copy(min(shared("data/cats-dogs/test").rglob("*.jpg")), folder)
    return folder


@pytest.fixture(scope="session")
def everywhere(
    shared: Callable[[str], Path], exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]
) -> Callable[[str], Path]:
    """Bundle of a network by its name, for x86, ARM64, C, browsers and Node, with a few golden images."""

    def make(folder: Path, name: str) -> ExportResult:
        golden = folder / "golden"
        golden.mkdir()
        weights: str | Path = "digits"
        if name == "resnet18_96x160":
            for i, image in enumerate(sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[:: 100 // _NUM_GOLDEN]):
                Image.open(image).reduce(2).save(golden / f"{i}.png")
        elif name == "resnet20":
            weights = shared("weights/resnet20-12fca82f.th")
            for image in sorted(shared("data/cifar10/test").rglob("*.png"))[:: 500 // _NUM_GOLDEN]:
                shutil.copy(image, golden / f"{image.parent.name}.png")
        else:
            for i, pixels in enumerate(digits()["x_test"][:_NUM_GOLDEN]):
                Image.fromarray(pixels).save(golden / f"{i}.png")
        options = {"output": folder / name, "golden": golden, "script": "c"}
        if name in _NOT_SQUARE:
            return export(ExportConfig(**options, **_NOT_SQUARE[name], quantize=()))
        config = ExportConfig(
            architecture=name,
            weights=weights,
            calibration=shared("data/cifar10/calibration") if name == "resnet20" else None,
            quantize=("int8",),
            target=("cpu", "arm64"),
            **options,
        )
        return export(config)

    return lambda name: exported_once(f"everywhere-{name}", lambda folder: make(folder, name)).path


@pytest.fixture(scope="session")
def answer() -> Callable[[str, str, list[int]], None]:
    """Note the classes that somebody gives a bundle's golden images, for the table at the end."""

    def note(bundle: str, who: str, top1: list[int]) -> None:
        _ANSWERS.setdefault(who, {})[bundle] = top1

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ANSWERS:
        return
    bundles = sorted({bundle for answers in _ANSWERS.values() for bundle in answers})
    terminalreporter.section("top-1 of the golden images")
    terminalreporter.line(f"| {'':<18} | " + " | ".join(f"{bundle:<12}" for bundle in bundles) + " |")
    for who, answers in _ANSWERS.items():
        cells = (" ".join(map(str, answers.get(bundle, ["-"]))) for bundle in bundles)
        terminalreporter.line(f"| {who:<18} | " + " | ".join(f"{cell:<12}" for cell in cells) + " |")


@pytest.fixture(scope="session")
def written_by(
    peer: Callable[[str], Path], once: Callable[[str, Callable[[Path], object]], Path]
) -> Callable[[str], Path]:
    """Folder that ``<library>_reference.py`` has filled, in a process of its own that finds the library."""

    def write(library: str) -> Path:
        search = [peer(library), peer("torchvision")]
        if library == "transformers":  # it would take the torchvision that its other half does not fit
            search = search[:1]

        def run(folder: Path) -> None:
            result = subprocess.run(
                [sys.executable, Path(__file__).with_name(f"{library}_reference.py"), folder],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search))},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr

        return once(library, run)

    return write


@pytest.fixture
def browser(require: Callable[[str, str], Path], tmp_path: Path) -> Iterator[Chrome]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(require("/usr/bin/chromium", "apt-get install chromium chromium-driver"))
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"):
        options.add_argument(flag)
    options.add_argument("--disable-background-networking")
    options.add_argument("--disable-component-update")
    options.add_argument("--window-size=390,844")  # a phone's width
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.get("about:blank")
    driver.get_log("performance")  # of the browser's own first page
    yield driver
    driver.quit()
