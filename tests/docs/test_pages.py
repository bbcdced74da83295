"""README and tutorials are run as by a reader: each fence in its order, in a folder with the reader's files.

A fence that cannot be run has a line above it: ``<!-- not run: the reason -->``. Fences of output are ``text``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx
import pytest
import torch

from cifar10 import CLASSES
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import load_checkpoint
from edgeport_models.weights.random import init_random

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SECONDS = 300


class Fence(NamedTuple):
    kind: str
    text: str
    reason: str | None


def fences_of(page: Path) -> list[Fence]:
    return [Fence(m["kind"], m["text"], m["reason"]) for m in FENCE.finditer(page.read_text())]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a reader types, with the commands of this environment first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=SECONDS
    )


def _save(name: str, num_classes: int, path: Path) -> None:
    """A checkpoint of a network whose random weights give logits of order 1."""
    torch.manual_seed(0)
    spec = ARCHITECTURES[name]
    module = spec.build(num_classes=num_classes)
    init_random(module, head=spec.head, input_shape=(3, 224, 224), seed=0)
    torch.save({"model": module.state_dict()}, path)


def _labels(folder: Path, labels: list[str]) -> None:
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")


def _photos(folder: Path, paths: list[Path]) -> None:
    (folder / "photos").mkdir()
    for number, path in enumerate(paths):
        (folder / "photos" / f"{number}.jpg").symlink_to(path)


def _readme(folder: Path, shared: Callable[[str], Path]) -> None:
    _save("resnet18", 1000, folder / "resnet18.pth")
    _labels(folder, [f"class {i}" for i in range(1000)])
    _photos(folder, sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[:2])
    (folder / "tools").symlink_to(ROOT / "tools")


def _raspberry_pi(folder: Path, shared: Callable[[str], Path]) -> None:
    _save("vit_ti_16", 2, folder / "my-vit.pth")
    _labels(folder, ["cat", "dog"])
    paths = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[:3]
    _photos(folder, paths[1:])
    (folder / "photos" / "cat.jpg").symlink_to(paths[0])


def _int8(folder: Path, shared: Callable[[str], Path]) -> None:
    (folder / "resnet20.th").symlink_to(shared("weights/resnet20-12fca82f.th"))
    _labels(folder, CLASSES)
    for name in ("calibration", "test"):
        (folder / name).symlink_to(shared(f"data/cifar10/{name}"))


def _browser(folder: Path, shared: Callable[[str], Path]) -> None:
    del shared
    (folder / "node_modules").symlink_to(ROOT / ".peers" / "npm" / "node_modules")


def _multilabel(folder: Path, shared: Callable[[str], Path]) -> None:
    table = shared("data/voc-multilabel/labels.csv")
    rows = [line.partition(",") for line in table.read_text().splitlines()[1:]]
    labels = sorted({label for _, _, names in rows for label in names.strip('"').split(";")})
    _save("resnet18", len(labels), folder / "tags.pth")
    _labels(folder, labels)
    (folder / "images").symlink_to(table.parent / "images")
    (folder / "photos.csv").write_text(table.read_text())
    _photos(folder, sorted((table.parent / "images").iterdir())[:2])


def _given_onnx(folder: Path, shared: Callable[[str], Path]) -> None:
    module = ARCHITECTURES["resnet20"].build()
    module.load_state_dict(load_checkpoint(shared("weights/resnet20-12fca82f.th")))
    program = torch.onnx.export(module.eval(), (torch.zeros(1, 3, 32, 32),), dynamo=True, verbose=False)
    assert program is not None
    onnx.save(program.model_proto, folder / "net.onnx")
    _labels(folder, CLASSES)
    (folder / "test").symlink_to(shared("data/cifar10/test"))


FILES: dict[str, Callable[[Path, Callable[[str], Path]], None]] = {
    "README": _readme,
    "raspberry-pi": _raspberry_pi,
    "int8": _int8,
    "browser": _browser,
    "multilabel": _multilabel,
    "given-onnx": _given_onnx,
}


def test_every_page_has_its_files_and_every_fence_its_kind() -> None:
    assert {page.stem for page in PAGES} == set(FILES)
    for page in PAGES:
        fences = fences_of(page)
        assert page.read_text().count("\n```") == 2 * len(fences), page
        assert {fence.kind for fence in fences} <= {"sh", "python", "text"}, page
        assert any(fence.kind == "sh" and fence.reason is None for fence in fences), page


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_as_it_stands(page: Path, shared: Callable[[str], Path], tmp_path: Path) -> None:
    FILES[page.stem](tmp_path, shared)
    for fence in fences_of(page):
        if fence.reason is not None or fence.kind == "text":
            continue
        command = ["bash", "-euo", "pipefail", "-c"] if fence.kind == "sh" else [sys.executable, "-c"]
        done = _run([*command, fence.text], tmp_path)
        assert done.returncode == 0, f"{fence.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
    assert sorted((tmp_path / "build").glob("*/manifest.json"))  # every page makes a bundle


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs_as_it_stands(example: Path, tmp_path: Path) -> None:
    done = _run([sys.executable, str(example)], tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.strip()  # each prints what it found


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # which is of the theme's future, not of these pages
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    assert "Classifier" in (tmp_path / "site" / "api" / "index.html").read_text()
