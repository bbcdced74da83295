"""hf://OWNER/NAME in place of a bundle, against a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main
from hub_server import COMMIT, Hub, environment, serve
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture
def hub(resnet20: ExportResult) -> Iterator[Hub]:
    root = resnet20.path
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with serve(Hub(files, repository="tester/resnet")) as served:
        yield served


def _run(hub: Hub, home: Path, *argv: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeport_runtime", *map(str, argv)]
    env = environment(hub, home, **variables)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def _fetched(hub: Hub) -> set[str]:
    return {path.split("/resolve/", 1)[1].split("/", 1)[1] for path in hub.asked if "/resolve/" in path}


def test_a_bundle_of_the_hub_predicts_as_from_its_folder(hub: Hub, resnet20: ExportResult, tmp_path: Path) -> None:
    image = resnet20.path / resnet20.manifest.golden.images[0].file
    with Classifier.load(resnet20.path, variant="fp32", device="cpu") as classifier:
        expected = [asdict(prediction) for prediction in classifier.predict(image)]
    argv = ("predict", "hf://tester/resnet", image, "--json", "--variant", "fp32", "--device", "cpu")
    done = _run(hub, tmp_path, *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{"image": str(image), "predictions": expected}]
    # Of the hub comes what is needed, and it is a folder of plain files.
    assert _fetched(hub) == {"manifest.json", "measurements.json", "model.fp32.onnx"}
    folder = tmp_path / "edgeport" / "hub" / COMMIT / "tester--resnet"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "measurements.json", "model.fp32.onnx"]
    assert not any(path.is_symlink() for path in folder.iterdir())
    hub.asked.clear()
    offline = _run(hub, tmp_path, *argv, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, done.stdout)
    assert hub.asked == []


def test_every_command_that_takes_a_bundle_takes_an_address(hub: Hub, resnet20: ExportResult, tmp_path: Path) -> None:
    verified = _run(hub, tmp_path, "verify", f"hf://tester/resnet@{COMMIT}", "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["passed"] is True
    told = _run(hub, tmp_path, "info", "hf://tester/resnet@v1", "--json")
    assert json.loads(told.stdout) == resnet20.manifest.to_dict()
    # After the second @ stands the variant.
    compared = _run(
        hub, tmp_path, "compare", "hf://tester/resnet@v1@fp32", resnet20.path, "--json", "--variant", "fp32"
    )
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["agreement"] == 1.0


def test_golden_images_are_brought_to_verify_at_load(hub: Hub, tmp_path: Path) -> None:
    code = "from edgeport_runtime import Classifier; Classifier.load('hf://tester/resnet', verify=True, device='cpu')"
    env = environment(hub, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "golden/expected.npz" in _fetched(hub)


def test_a_bundle_on_disk_opens_no_socket(lenet5: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    bundle, image = str(lenet5.path), str(lenet5.path / lenet5.manifest.golden.images[0].file)
    for argv in (["predict", bundle, image], ["verify", bundle], ["info", bundle], ["compare", bundle, bundle]):
        assert main(argv) == 0


@pytest.mark.parametrize("name", slow_but(["model.fp32.onnx"], ["model.fp32.onnx", "golden/0.png"]))
def test_what_is_not_the_file_that_was_exported_is_refused(
    name: str, hub: Hub, resnet20: ExportResult, tmp_path: Path
) -> None:
    assert name in resnet20.manifest.digests
    hub.files[name] += b"\0"
    done = _run(hub, tmp_path, "verify", "hf://tester/resnet", "--variant", "fp32")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: hf://tester/resnet: {name} is not the file that was exported")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob(f"tester--resnet/{name}"))


@pytest.mark.parametrize(
    ("address", "missing", "message"),
    [
        pytest.param("hf://tester/none", None, "there is no such repository, or it is private", marks=pytest.mark.slow),
        pytest.param("hf://tester/resnet@v2", None, "it has no revision v2", marks=pytest.mark.slow),
        pytest.param("hf://tester", None, "write a repository as hf://OWNER/NAME", marks=pytest.mark.slow),
        ("hf://tester/resnet", "manifest.json", "it has no manifest.json"),
        ("hf://tester/resnet", "model.fp32.onnx", "model.fp32.onnx, which its manifest lists, cannot be had"),
    ],
)
def test_a_bundle_that_cannot_be_had_is_told_in_a_line(
    address: str, missing: str | None, message: str, hub: Hub, tmp_path: Path
) -> None:
    if missing is not None:
        del hub.files[missing]
    done = _run(hub, tmp_path, "predict", address, "x.png", "--variant", "fp32", "--device", "cpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {address}: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_manifest_that_names_files_elsewhere_is_refused(hub: Hub, tmp_path: Path) -> None:
    manifest = json.loads(hub.files["manifest.json"])
    manifest["variants"][0]["file"] = "../../../outside.onnx"
    hub.files["manifest.json"] = json.dumps(manifest).encode()
    done = _run(hub, tmp_path, "verify", "hf://tester/resnet")
    assert done.returncode == 1
    assert "'../../../outside.onnx' is not a plain path inside the bundle" in done.stderr


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _run(hub, tmp_path, "info", "hf://tester/resnet", EDGEPORT_CACHE=str(tmp_path / "file"))
    assert done.returncode == 1
    assert "set EDGEPORT_CACHE to a folder with room" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_huggingface_hub_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from edgeport_runtime.commands.cli import main; sys.exit(main(['verify', 'hf://tester/resnet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "error: hf://tester/resnet needs huggingface_hub: pip install huggingface_hub\n"
