"""ONNX Runtime's telemetry is off in every command and script, outside of CI, where it is off by itself."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from fresh_home import EXPORT_MODEL, PACKAGES, RUN_MODEL, run_at_home, traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_LONGER = (
    f"ONNX Runtime {onnxruntime.__version__} leaves nothing even if allowed: these tests look in the wrong place"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export is the first command under test."""
    home = tmp_path_factory.mktemp("home")
    argv = ("lenet5", "--weights", "digits", "--preprocess", "in-graph", "--ort", "-o", "bundle")
    run_at_home(home, *EXPORT_MODEL, *argv)
    assert traces(home) == []
    return home / "bundle"


@pytest.fixture(scope="module")
def image(bundle: Path) -> Path:
    """An image in a folder of its class, as `evaluate` takes it."""
    path = bundle.parent / "data" / "0" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_bytes((bundle / "golden" / "0.png").read_bytes())
    return path


def test_list(tmp_path: Path) -> None:
    assert "lenet5" in run_at_home(tmp_path, *EXPORT_MODEL, "--list")
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("predict", "{bundle}", "{image}"),
        ("evaluate", "{bundle}", "--data", "{data}"),
        ("verify", "{bundle}"),
        ("info", "{bundle}", "--assignment"),
        ("bench", "{bundle}", "--rounds", "1"),
        ("tune", "{bundle}"),
        ("doctor",),
    ],
    ids=lambda argv: argv[0],
)
def test_commands(argv: tuple[str, ...], bundle: Path, image: Path, tmp_path: Path) -> None:
    data = image.parents[1]
    run_at_home(tmp_path, *RUN_MODEL, *(word.format(bundle=bundle, image=image, data=data) for word in argv))
    assert traces(tmp_path) == []


def test_web(bundle: Path, peer: Callable[[str], Path], tmp_path: Path) -> None:
    engine = peer("npm") / "node_modules" / "onnxruntime-web"
    run_at_home(tmp_path, *RUN_MODEL, "web", bundle, "-o", "site", "--onnxruntime-web", engine)
    assert traces(tmp_path) == []


def test_infer(bundle: Path, image: Path, tmp_path: Path) -> None:
    run_at_home(tmp_path, sys.executable, bundle / "infer.py", image)
    assert traces(tmp_path) == []
    run_at_home(tmp_path, sys.executable, bundle / "infer.py", image, ORT_DISABLE_TELEMETRY="0")
    assert traces(tmp_path), NO_LONGER


@pytest.mark.parametrize("name", ["edgeport_runtime", "edgeport_export", "infer"])
def test_an_import_before_the_users_own(name: str, bundle: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-c", f"import {name}, onnxruntime")
    path = os.pathsep.join([PACKAGES, str(bundle)])
    run_at_home(tmp_path, *command, PYTHONPATH=path)
    assert traces(tmp_path) == []
    run_at_home(tmp_path, *command, PYTHONPATH=path, ORT_DISABLE_TELEMETRY="0")
    assert traces(tmp_path), NO_LONGER


def test_doctor_tells_of_the_users_choice(tmp_path: Path) -> None:
    assert "telemetry      off\n" in run_at_home(tmp_path, *RUN_MODEL, "doctor")
    told = json.loads(run_at_home(tmp_path, *RUN_MODEL, "doctor", "--json", ORT_DISABLE_TELEMETRY="0"))
    assert told["telemetry"] == "on: ORT_DISABLE_TELEMETRY=0 is set"
    assert traces(tmp_path), NO_LONGER


@pytest.mark.parametrize(("value", "state"), [("true", "off"), ("false", "on"), ("", "on")])
def test_doctor_reads_values_as_onnxruntime_does(value: str, state: str, tmp_path: Path) -> None:
    told = json.loads(run_at_home(tmp_path, *RUN_MODEL, "doctor", "--json", ORT_DISABLE_TELEMETRY=value))
    assert told["telemetry"].partition(":")[0] == state
    assert bool(traces(tmp_path)) == (state == "on")


def test_doctor_tells_that_it_was_too_late(tmp_path: Path) -> None:
    code = "import onnxruntime\nfrom edgeport_runtime.commands.doctor import diagnose\nprint(diagnose()['telemetry'])"
    told = run_at_home(tmp_path, sys.executable, "-c", code)
    assert told == "on: onnxruntime was imported before edgeport_runtime could turn it off\n"
    assert traces(tmp_path), NO_LONGER


@pytest.mark.parametrize(("version", "state"), [("1.28.2", "none: ONNX Runtime 1.28.2 has none"), ("1.29.0", "off")])
def test_doctor_knows_who_has_none(version: str, state: str, tmp_path: Path) -> None:
    code = f"""
from edgeport_runtime.engine.ort import telemetry
import onnxruntime
onnxruntime.__version__ = {version!r}
print(telemetry())"""
    assert run_at_home(tmp_path, sys.executable, "-c", code) == f"{state}\n"
