"""`run-model push` to a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeport_runtime import load_manifest
from hub_server import TOKEN, Hub, environment, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({}, repository="tester/mine")) as served:
        yield served


def _run(hub: Hub, home: Path, *argv: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeport_runtime", *map(str, argv)]
    env = environment(hub, home, **{"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", **variables})
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_what_is_pushed_is_the_bundle_and_loads_from_there(bundle: Path, hub: Hub, tmp_path: Path) -> None:
    (bundle / "notes.txt").write_text("of the user's own, and not the bundle's")
    card = (bundle / "README.md").read_text("utf-8")
    (bundle / "README.md").write_text(f"{card}\nMy own words.\n", "utf-8")
    (bundle / "report.html").write_text('<img src="data:image/png;base64,AAAA">')
    done = _run(hub, tmp_path, "push", bundle, "hf://tester/mine", "--private", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    manifest = load_manifest(bundle)
    others = {"README.md", "manifest.json", "measurements.json", "infer.py", "report.json", "report.html"}
    assert set(hub.files) == set(told["files"]) == {*manifest.digests, *others}
    assert told["address"] == "hf://tester/mine"
    assert hub.created[0]["name"] == "mine"
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    assert "golden/ holds 8 images as they were given" in done.stderr
    assert "report.html is pushed without images" in done.stderr
    for name in told["files"]:
        if name not in ("README.md", "report.json", "report.html"):
            assert hub.files[name] == (bundle / name).read_bytes()
    for name in ("report.json", "report.html"):
        assert b'src="data:image/' not in hub.files[name]
        assert b': "data:image/' not in hub.files[name]
    assert b"The verdict" in hub.files["report.html"]
    assert (
        json.loads(hub.files["report.json"])["variants"]
        == json.loads((bundle / "report.json").read_bytes())["variants"]
    )
    pushed = hub.files["README.md"].decode()
    assert 'Classifier.load("hf://tester/mine")' in pushed
    assert "My own words." in pushed
    assert "](report.html)" in pushed
    verified = _run(hub, tmp_path, "verify", "hf://tester/mine")
    assert verified.returncode == 0, verified.stderr


def test_a_page_with_images_that_cannot_be_made_without_them_is_left_out(
    bundle: Path, hub: Hub, tmp_path: Path
) -> None:
    (bundle / "report.html").write_text('<img src="data:image/png;base64,AAAA">')
    (bundle / "report.json").write_text('{"flips": [{"picture": "data:image/png;base64,AAAA", "score": 0.5}]}')
    done = _run(hub, tmp_path, "push", bundle, "hf://tester/mine")
    assert done.returncode == 0, done.stderr
    assert "report.html has images embedded, and was left out (report.json is of another EdgePort)" in done.stderr
    assert "report.html" not in hub.files
    assert json.loads(hub.files["report.json"]) == {"flips": [{"picture": None, "score": 0.5}]}
    assert "](report.html)" not in hub.files["README.md"].decode()


@pytest.mark.slow
def test_thumbnails_are_pushed_when_asked(bundle: Path, hub: Hub, tmp_path: Path) -> None:
    (bundle / "report.html").write_text('<img src="data:image/png;base64,AAAA">')
    (bundle / "report.json").write_text('["data:image/png;base64,AAAA"]')
    done = _run(hub, tmp_path, "push", bundle, "hf://tester/mine", "--thumbnails")
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "report.json"):
        assert hub.files[name] == (bundle / name).read_bytes()
    assert f"files to hf://tester/mine: {hub.endpoint}/tester/mine/commit/" in done.stdout


@pytest.mark.parametrize("fault", ["altered", "missing", "wrong"])
def test_a_bundle_that_does_not_verify_is_not_pushed(fault: str, bundle: Path, hub: Hub, tmp_path: Path) -> None:
    status, message = 1, "model.fp32.onnx"
    if fault == "altered":
        (bundle / "model.fp32.onnx").write_bytes((bundle / "model.fp32.onnx").read_bytes() + b"\0")
    elif fault == "missing":
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
        message = "model.fp32.in-graph.onnx"
        manifest["variants"][0]["in_graph"] = {"file": message, "sha256": 64 * "0", "size_bytes": 1}
        (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    else:  # the tolerance is below what float32 gives
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
        manifest["variants"][0]["tolerance"] = 1e-30
        (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        status, message = 3, "is not pushed: fp32 on cpu"
    done = _run(hub, tmp_path, "push", bundle, "hf://tester/mine")
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (hub.files, hub.created) == ({}, [])


def test_who_may_not_write_is_told_in_a_line(bundle: Path, hub: Hub, tmp_path: Path) -> None:
    done = _run(hub, tmp_path, "push", bundle, "hf://tester/mine", HF_TOKEN="hf_of_another")
    assert done.returncode == 1
    assert done.stderr.startswith("error: hf://tester/mine cannot be pushed to: ")
    assert "log in with hf auth login, with a token that may write there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_hub_that_is_out_of_reach_is_told_in_a_line(bundle: Path, tmp_path: Path) -> None:
    nowhere = Hub({}, endpoint="http://127.0.0.1:9")  # the port discard, where nothing listens
    done = _run(nowhere, tmp_path, "push", bundle, "hf://tester/mine")
    assert done.returncode == 1
    assert "check the name, the connection and HF_ENDPOINT" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_huggingface_hub_it_is_said_what_to_install(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        f"from edgeport_runtime.commands.cli import main; sys.exit(main(['push', {str(bundle)!r}, 'hf://tester/mine']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "error: hf://tester/mine needs huggingface_hub: pip install huggingface_hub\n"
