"""The runtime's wheel in a bundle: a device without a package index installs it, and it runs the bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

from edgeport_export import ExportConfig, export
from edgeport_export.bundle.wheel import write_wheel
from edgeport_runtime import ExportError, ManifestError, load_manifest
from edgeport_runtime.commands.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture(scope="module")
def bundle(exported_once: Callable[[str, Callable[[Path], ExportResult]], ExportResult]) -> Path:
    def make(folder: Path) -> ExportResult:
        return export(ExportConfig(architecture="lenet5", output=folder / "b", quantize=(), with_runtime=True))

    return exported_once("with-runtime", make).path


def test_a_device_without_an_index_installs_it(bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["--no-index", "--find-links", str(bundle / "runtime"), "--no-deps", "--target", str(site), "edgeport"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *install]
    subprocess.run(command, check=True, capture_output=True)
    assert not (site / "edgeport_export").exists()
    assert not (site / "edgeport_models").exists()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = (
        "import edgeport_runtime, sys; assert edgeport_runtime.__file__.startswith(sys.argv.pop(1))\n"
        "from importlib.metadata import entry_points\n"
        "found, = entry_points(group='console_scripts', name='run-model')\n"
        "sys.exit(found.load()())"
    )
    command = [sys.executable, "-c", code, str(site), "verify", str(bundle), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


def test_it_is_the_runtime_alone_and_the_same_each_time(bundle: Path, tmp_path: Path) -> None:
    (wheel,) = (bundle / "runtime").iterdir()
    assert write_wheel(tmp_path / "again").read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
        entry_points = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    assert {name.partition("/")[0] for name in names} == {
        "edgeport_runtime",
        f"edgeport-{metadata['Version']}.dist-info",
    }
    assert "edgeport_runtime/commands/site/index.html" in names
    assert "edgeport_runtime/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    required = metadata.get_all("Requires-Dist") or []
    assert {one for one in required if "extra" not in one} == {"numpy>=1.26", "pillow>=10.3"}
    assert not [one for one in required if one.startswith(("torch", "onnx>", "pytest"))]
    assert "export-model" not in entry_points
    # Measured: 0.14 MB
    assert wheel.stat().st_size < 500_000


def test_the_manifest_lists_it_and_verify_checks_it(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(bundle), str(copy)], check=True)
    runtime = load_manifest(copy).runtime
    assert runtime is not None
    wheel = copy / runtime.file
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        verify(copy)


def test_an_edgeport_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("edgeport_export.bundle.wheel.distribution", missing)
    config = ExportConfig(architecture="lenet5", output=tmp_path / "b", quantize=(), with_runtime=True)
    with pytest.raises(ExportError, match=r"it is not installed; install it with pip install \. in its"):
        export(config)
    assert list(tmp_path.iterdir()) == []
